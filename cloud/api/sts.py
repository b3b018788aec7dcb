"""The caller's identity, in the XML of the Security Token Service (GDK asks it for the account)."""

from __future__ import annotations

import uuid
from urllib import parse
from xml.sax import saxutils

from cloud.api import calls, errors


def act(call: calls.Call) -> calls.Answer:
    """The one operation there is: GetCallerIdentity."""
    form = dict(parse.parse_qsl(call.body.decode("latin-1")))
    action = form.get("Action") or call.first("Action")
    if action != "GetCallerIdentity" or call.operator is None:
        raise errors.ApiError(400, "InvalidAction", f"cannot do {action!r}: only GetCallerIdentity is here")
    user = call.operator
    arn = f"arn:aws:iam::{call.services.account}:user/{user.user_name}"
    user_id = f"AIDA{user.id.removeprefix('AKIA')}"
    if user.role:
        arn = f"arn:aws:sts::{call.services.account}:assumed-role/{user.role}/{user.user_name}"
        user_id = f"AROA{user.id.removeprefix('ASIA')}:{user.user_name}"
    members = {"Arn": arn, "UserId": user_id, "Account": call.services.account}
    result = "".join(f"<{name}>{saxutils.escape(value)}</{name}>" for name, value in members.items())
    text = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<GetCallerIdentityResult>{result}</GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
    return calls.Answer(200, {"content-type": "text/xml"}, text.encode())
