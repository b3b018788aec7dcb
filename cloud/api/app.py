"""The operator's API on one port: `greengrassv2`, `iot`, `sts` and S3, dispatched on the scope of the signature.

A call is one transaction in a worker thread: signature, operation, commit, then the answer.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator

import structlog
from msgspec import Struct, structs
from sqlalchemy import Connection
from starlette import applications, concurrency, requests, responses, routing
from starlette.types import Receive, Scope, Send

from cloud.api import calls, errors, identity, router, s3, services, session_permissions, uploads
from cloud.objects import files
from cloud.store import identities, role_aliases

# The largest body held in memory: a CreateDeployment with a merge of 10,485,760 characters.
LIMIT_BODY_BYTES = 12 * 1024 * 1024
_SAFE_METHODS = ("GET", "HEAD")
_UNSIGNED = "UNSIGNED-PAYLOAD"
_log = structlog.stdlib.get_logger()


def build(held: services.Services) -> applications.Starlette:
    """The ASGI application."""
    return applications.Starlette(routes=[routing.Route("/{path:path}", endpoint=_Front(held))])


class _Received(Struct, frozen=True, kw_only=True):
    """A request on its way to its operation. Without a claim it is on an open route; `operator` is set once verified."""

    found: router.Match
    signed: identity.Request
    claim: identity.Claim | None = None
    operator: identities.AccessKey | None = None
    body: bytes = b""
    stored: files.Stored | None = None


class _Front:
    """Takes every request; what goes wrong is answered in the dialect of the service that was called."""

    def __init__(self, held: services.Services) -> None:
        self._services = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.uuid4())
        request = requests.Request(scope, receive)
        try:
            answer = await self._answer(request, request_id)
        except requests.ClientDisconnect:
            return
        await _response(answer, request_id)(scope, receive, send)

    async def _answer(self, request: requests.Request, request_id: str) -> calls.Answer:
        signed, dialect = _signed(request), ""
        try:
            found = router.find(router.Access.OPEN, signed.method, signed.raw_path, {})
            if found is not None:
                return await concurrency.run_in_threadpool(self._perform, _Received(found=found, signed=signed))
            claim = identity.read(signed)
            dialect = claim.service
            return await self._operate(request, signed, claim)
        except errors.ApiError as error:
            refusal = error
        except requests.ClientDisconnect:
            raise
        except Exception:
            # The edge of the service: a client must get the shape it can retry on, and we must hear of it.
            _log.exception("api.failed", request_id=request_id, method=signed.method, path=signed.raw_path)
            refusal = errors.ApiError(500, "InternalServerException", f"internal error, see the log for {request_id}")
        headers, body = errors.render(refusal, dialect, request_id)
        if signed.header("content-length") not in ("", "0") or signed.header("transfer-encoding"):
            # The body may be unread, or (Expect: 100-continue) never sent: the connection cannot be used again.
            headers["connection"] = "close"
        return calls.Answer(refusal.status, headers, b"" if signed.method == "HEAD" else body)

    async def _operate(
        self, request: requests.Request, signed: identity.Request, claim: identity.Claim
    ) -> calls.Answer:
        received = _Received(found=self._route(signed, claim), signed=signed, claim=claim)
        if not received.found.route.streams:
            received = structs.replace(received, body=await _body(request))
            return await concurrency.run_in_threadpool(self._perform, received)
        operator = await concurrency.run_in_threadpool(self._admit, received)
        headers = dict(signed.headers)
        signer = uploads.signer(claim, operator.secret, headers)
        stored = await uploads.receive(self._services.objects, request.stream(), headers, signer)
        return await concurrency.run_in_threadpool(
            self._perform, structs.replace(received, operator=operator, stored=stored)
        )

    def _route(self, signed: identity.Request, claim: identity.Claim) -> router.Match:
        region = self._services.region
        if claim.region != region and claim.service != router.Access.STS.value:
            message = (
                f"the request is signed for region {claim.region}, this service is {region}: set AWS_REGION={region}"
            )
            raise errors.ApiError(403, "InvalidSignatureException", message)
        query = identity.query_of(signed.raw_query)
        operators = [one for one in _OPERATORS if one.value == claim.service]
        found = router.find(operators[0], signed.method, signed.raw_path, query) if operators else None
        if found is None:
            what = f"{signed.method} {signed.raw_path} of service {claim.service!r}"
            raise errors.ApiError(
                404, "UnknownOperationException", f"cannot do {what}: there is no such operation here"
            )
        return found

    def _admit(self, received: _Received) -> identities.AccessKey:
        """Signature and target of an upload, before its body is read (which may take longer than a signature lives)."""
        with self._services.database.read() as tx:
            call = self._call(tx, received)
            s3.admit(call)
        assert call.operator is not None  # a route that streams is never open
        return call.operator

    def _perform(self, received: _Received) -> calls.Answer:
        database = self._services.database
        reads = received.signed.method in _SAFE_METHODS
        if (gather := received.found.route.gather) is not None:
            with database.read() as tx:
                call = self._call(tx, received)
                received = structs.replace(received, operator=call.operator, stored=gather(call))
        with database.read() if reads else database.begin() as tx:
            answer = router.perform(received.found.route, self._call(tx, received))
        if not reads:
            self._services.notify()
        return answer

    def _call(self, tx: Connection, received: _Received) -> calls.Call:
        now_ms, operator = self._services.clock(), received.operator
        if operator is None and received.claim is not None:
            operator = _verified(tx, received, received.claim, now_ms)
        return calls.Call(
            services=self._services,
            tx=tx,
            now_ms=now_ms,
            path=received.found.path,
            query=identity.query_of(received.signed.raw_query),
            headers=dict(received.signed.headers),
            body=received.body,
            operator=operator,
            stored=received.stored,
        )


_OPERATORS = (router.Access.GREENGRASS, router.Access.IOT, router.Access.STS, router.Access.S3)


def _verified(tx: Connection, received: _Received, claim: identity.Claim, now_ms: int) -> identities.AccessKey:
    """Whose key signed the request. Raises ApiError 403, also if a device's temporary key may not do this."""
    key, session = _holder(tx, received.signed, claim, now_ms)
    identity.verify(claim, received.signed, key.secret, received.body, now_ms=now_ms)
    if session is not None:
        session_permissions.require(session, received.found.route.operation, received.found.path)
    promised = received.signed.header("x-amz-content-sha256")
    unchecked = received.found.route.streams or (promised == _UNSIGNED and claim.service == router.Access.S3.value)
    if promised and not unchecked and promised != hashlib.sha256(received.body).hexdigest():
        message = "the body does not have the signed x-amz-content-sha256"
        raise errors.ApiError(400, "XAmzContentSHA256Mismatch", message)
    return key


def _holder(
    tx: Connection, signed: identity.Request, claim: identity.Claim, now_ms: int
) -> tuple[identities.AccessKey, role_aliases.Session | None]:
    """The key that a claim names; with a session if it is a device's temporary one."""
    if claim.key_id.startswith(role_aliases.PREFIX):
        held = role_aliases.secret_of(tx, claim.key_id, identity.session_token(signed), now_ms)
        if held is None:
            message = f"the temporary key {claim.key_id} has expired, or its session token or certificate is not good"
            raise errors.ApiError(403, "ExpiredTokenException", message)
        secret, session = held
        return identities.AccessKey(claim.key_id, secret, session.thing, session.role), session
    key = identities.access_key(tx, claim.key_id)
    if key is None:
        message = f"there is no active access key {claim.key_id} here"
        raise errors.ApiError(403, "UnrecognizedClientException", message)
    return key, None


def _signed(request: requests.Request) -> identity.Request:
    scope = request.scope
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return identity.Request(
        scope["method"],
        raw_path.partition(b"?")[0].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        identity.headers_of(scope["headers"]),
    )


async def _body(request: requests.Request) -> bytes:
    """The whole body. Raises ApiError 413 before more than LIMIT_BODY_BYTES are held."""
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > LIMIT_BODY_BYTES:
            message = f"cannot take a body of over {LIMIT_BODY_BYTES} bytes"
            raise errors.ApiError(413, "RequestEntityTooLargeException", message)
    return bytes(body)


def _response(answer: calls.Answer, request_id: str) -> responses.Response:
    headers = {"x-amzn-requestid": request_id, **answer.headers}
    if isinstance(answer.body, Iterator):
        return responses.StreamingResponse(answer.body, answer.status, headers)
    return responses.Response(answer.body, answer.status, headers)
