"""Errors as the AWS clients know them: one exception, rendered in the dialect of the service that was called.

JSON: header `x-amzn-ErrorType` and a body with `message` and the exception's own fields (spec/cloud.md 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax import saxutils

import msgspec

# The same refusals under the names of the older XML services.
_XML_NAMES = {
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "MissingAuthenticationTokenException": "AccessDenied",
    "RequestExpiredException": "RequestTimeTooSkewed",
    "ExpiredTokenException": "ExpiredToken",
    "AccessDeniedException": "AccessDenied",
    "InternalServerException": "InternalError",
}
S3 = "s3"
STS = "sts"


class ApiError(Exception):
    """`code` is the exception's name on the wire, `fields` its further members; `message` is written for people."""

    def __init__(self, status: int, code: str, message: str, **fields: object) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields


def validation(
    message: str, fields: Sequence[tuple[str, str]] = (), reason: str = "FIELD_VALIDATION_FAILED"
) -> ApiError:
    """The Greengrass ValidationException; `fields` are (name, what is wrong with it)."""
    listed = [{"name": name, "message": text} for name, text in fields]
    return ApiError(400, "ValidationException", message, reason=reason, fields=listed)


def not_found(message: str, resource_id: str, resource_type: str) -> ApiError:
    return ApiError(404, "ResourceNotFoundException", message, resourceId=resource_id, resourceType=resource_type)


def conflict(message: str, resource_id: str, resource_type: str) -> ApiError:
    return ApiError(409, "ConflictException", message, resourceId=resource_id, resourceType=resource_type)


def denied(message: str) -> ApiError:
    return ApiError(403, "AccessDeniedException", message)


def invalid_request(message: str) -> ApiError:
    """The `iot` service's word for a request it cannot take."""
    return ApiError(400, "InvalidRequestException", message)


def already_exists(message: str, resource_id: str, resource_arn: str) -> ApiError:
    """The `iot` service's word for a name that is taken."""
    return ApiError(409, "ResourceAlreadyExistsException", message, resourceId=resource_id, resourceArn=resource_arn)


def render(error: ApiError, service: str, request_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error for the service (its SigV4 scope) that was called."""
    headers = {"x-amzn-requestid": request_id}
    name = _XML_NAMES.get(error.code, error.code)
    text = f"<Code>{saxutils.escape(name)}</Code><Message>{saxutils.escape(error.message)}</Message>"
    if service == S3:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}<RequestId>{request_id}</RequestId></Error>'
        return headers | {"content-type": "application/xml", "x-amz-request-id": request_id}, body.encode()
    if service == STS:
        kind = "<Type>Sender</Type>"
        body = f"<ErrorResponse><Error>{kind}{text}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        return headers | {"content-type": "text/xml"}, body.encode()
    headers |= {"content-type": "application/json", "x-amzn-ErrorType": error.code}
    return headers, msgspec.json.encode({"message": error.message, **error.fields})
