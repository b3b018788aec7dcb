"""The S3-shaped object store: buckets and objects by path, for authors' uploads (spec/cloud.md 1.7, 1.8)."""

from __future__ import annotations

import datetime
import re
from email import utils
from xml.sax import saxutils

from sqlalchemy import RowMapping

from cloud.api import calls, errors, ranges
from cloud.store import objects_index

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LOCATION = re.compile(r"<LocationConstraint[^>]*>\s*([a-z0-9-]*)\s*</LocationConstraint>")


def create_bucket(call: calls.Call) -> calls.Answer:
    """CreateBucket. One's own bucket again is no error, as in us-east-1."""
    name = call.path["bucket"]
    if not _BUCKET.fullmatch(name):
        raise errors.ApiError(400, "InvalidBucketName", f"cannot create bucket {name!r}: 3 to 63 of a-z 0-9 . -")
    wanted = _LOCATION.search(call.body.decode(errors="replace"))
    if wanted and wanted[1] not in ("", call.services.region):
        message = f"cannot create bucket {name} in {wanted[1]}: this service is region {call.services.region}"
        raise errors.ApiError(400, "IllegalLocationConstraintException", message)
    if objects_index.bucket(call.tx, name) is None:
        objects_index.create_bucket(call.tx, name, call.now_ms)
    return calls.Answer(200, {"location": f"/{name}"})


def head_bucket(call: calls.Call) -> calls.Answer:
    """HeadBucket."""
    _bucket(call)
    return calls.Answer(200, {"x-amz-bucket-region": call.services.region})


def location(call: calls.Call) -> calls.Answer:
    """GetBucketLocation; us-east-1 is spelled as nothing."""
    _bucket(call)
    region = "" if call.services.region == "us-east-1" else call.services.region
    return xml(f'<LocationConstraint xmlns="{NAMESPACE}">{region}</LocationConstraint>')


def buckets(call: calls.Call) -> calls.Answer:
    """ListBuckets."""
    owner = f"<Owner><ID>{call.services.account}</ID></Owner>"
    listed = "".join(
        f"<Bucket><Name>{row['name']}</Name><CreationDate>{_iso(row['created_ms'])}</CreationDate></Bucket>"
        for row in objects_index.buckets(call.tx)
    )
    return xml(
        f'<ListAllMyBucketsResult xmlns="{NAMESPACE}">{owner}<Buckets>{listed}</Buckets></ListAllMyBucketsResult>'
    )


def listed(call: calls.Call) -> calls.Answer:
    """ListObjectsV2, with prefix and delimiter."""
    bucket, limit = _bucket(call)["name"], call.size("max-keys", 1000, 1000)
    prefix, delimiter = call.first("prefix"), call.first("delimiter")
    after = call.after("continuation-token") or call.first("start-after")
    entries: list[str] = []
    folders: set[str] = set()
    truncated = False
    while (rows := objects_index.listed(call.tx, bucket, prefix, after, 1000)) and not truncated:
        for row in rows:
            folder = _folder(row["key"], prefix, delimiter)
            if len(entries) + len(folders) >= limit and folder not in folders:
                truncated = True
                break
            after = row["key"]
            if folder:
                folders.add(folder)
            else:
                entries.append(_entry(row))
    members = {"Name": bucket, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": str(limit)}
    members |= {"KeyCount": str(len(entries) + len(folders)), "IsTruncated": str(truncated).lower()}
    if truncated:
        members["NextContinuationToken"] = calls.token(after)
    head = "".join(f"<{name}>{saxutils.escape(value)}</{name}>" for name, value in members.items())
    common = "".join(
        f"<CommonPrefixes><Prefix>{saxutils.escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)
    )
    return xml(f'<ListBucketResult xmlns="{NAMESPACE}">{head}{"".join(entries)}{common}</ListBucketResult>')


def admit(call: calls.Call) -> None:
    """Whether an upload may begin, before its body is read."""
    _bucket(call)
    if len(call.path["key"].encode()) > 1024:
        raise errors.ApiError(400, "KeyTooLongError", "cannot store an object: its key has over 1,024 bytes")
    if "x-amz-copy-source" in call.headers:
        raise errors.ApiError(501, "NotImplemented", "cannot copy objects: upload the bytes instead")


def put(call: calls.Call) -> calls.Answer:
    """PutObject; the body is stored already."""
    bucket = _bucket(call)["name"]
    assert call.stored is not None  # the route says that the body is streamed
    etag, kind = call.stored.md5, call.headers.get("content-type", "binary/octet-stream")[:256]
    objects_index.put(call.tx, bucket, call.path["key"], call.stored, etag=etag, content_type=kind, now_ms=call.now_ms)
    return calls.Answer(200, {"etag": f'"{etag}"'})


def get(call: calls.Call) -> calls.Answer:
    """GetObject, whole or one range."""
    row = _object(call)
    return ranges.answer(call, call.services.objects, row["sha256"], row["size"], _headers(row))


def head(call: calls.Call) -> calls.Answer:
    """HeadObject."""
    row = _object(call)
    return calls.Answer(200, _headers(row) | {"content-length": str(row["size"]), "accept-ranges": "bytes"})


def delete(call: calls.Call) -> calls.Answer:
    """DeleteObject: of the name. Component versions that took the bytes keep them."""
    objects_index.remove(call.tx, _bucket(call)["name"], call.path["key"])
    return calls.Answer(204)


def xml(text: str) -> calls.Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
    return calls.Answer(200, {"content-type": "application/xml"}, body.encode())


def _bucket(call: calls.Call) -> RowMapping:
    name = call.path["bucket"]
    row = objects_index.bucket(call.tx, name)
    if row is None:
        raise errors.ApiError(404, "NoSuchBucket", f"cannot find bucket {name}; create it first")
    return row


def _object(call: calls.Call) -> RowMapping:
    bucket, key = _bucket(call)["name"], call.path["key"]
    row = objects_index.get(call.tx, bucket, key)
    if row is None:
        raise errors.ApiError(404, "NoSuchKey", f"cannot find {key} in bucket {bucket}")
    return row


def _headers(row: RowMapping) -> dict[str, str]:
    modified = utils.formatdate(row["created_ms"] // 1000, usegmt=True)
    return {"content-type": row["content_type"], "etag": f'"{row["etag"]}"', "last-modified": modified}


def _folder(key: str, prefix: str, delimiter: str) -> str:
    """The common prefix a key falls under, "" if it is listed itself."""
    rest, at = key[len(prefix) :], -1
    if delimiter:
        at = rest.find(delimiter)
    return "" if at < 0 else prefix + rest[: at + len(delimiter)]


def _entry(row: RowMapping) -> str:
    key = saxutils.escape(row["key"])
    rest = f"<Size>{row['size']}</Size><StorageClass>STANDARD</StorageClass>"
    etag = f"<ETag>&quot;{row['etag']}&quot;</ETag>"
    return f"<Contents><Key>{key}</Key><LastModified>{_iso(row['created_ms'])}</LastModified>{etag}{rest}</Contents>"


def _iso(ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
