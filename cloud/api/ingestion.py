"""Taking a recipe's artifacts into the registry (design.md 4.6, row 7).

The author's recipe keeps its URIs and gains digests; the devices' recipe names `greengrass:<id>/<file>` instead.
"""

from __future__ import annotations

import base64

import msgspec
from msgspec import Struct

from cloud.api import calls, errors
from cloud.store import components, objects_index
from nucleus.core import errors as nucleus_errors
from nucleus.core import recipe

ALGORITHM = "SHA-256"


class Ingested(Struct, frozen=True):
    author: recipe.Recipe
    device: recipe.Recipe
    artifacts: tuple[components.Artifact, ...]


def ingest(call: calls.Call, parsed: recipe.Recipe) -> Ingested:
    """Raises ValidationException naming component, version and URI of an artifact that cannot be taken."""
    author, device, taken = [], [], []
    for manifest in parsed.manifests:
        pairs = [(one, _take(call, parsed, one)) for one in manifest.artifacts]
        named = tuple(_digested(one, stored, one.uri) for one, stored in pairs)
        ours = tuple(_digested(one, stored, f"greengrass:{stored.id}/{stored.file}") for one, stored in pairs)
        author.append(msgspec.structs.replace(manifest, artifacts=named))
        device.append(msgspec.structs.replace(manifest, artifacts=ours))
        taken += [stored for _, stored in pairs]
    return Ingested(
        msgspec.structs.replace(parsed, manifests=tuple(author)),
        msgspec.structs.replace(parsed, manifests=tuple(device)),
        tuple(taken),
    )


def artifact_id(sha256: str) -> str:
    """The artifact id of a SHA-256 in hexadecimal: base64url without padding."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


def _digested(artifact: recipe.Artifact, stored: components.Artifact, uri: str) -> recipe.Artifact:
    return msgspec.structs.replace(artifact, uri=uri, digest=stored.digest, algorithm=ALGORITHM)


def _take(call: calls.Call, parsed: recipe.Recipe, artifact: recipe.Artifact) -> components.Artifact:
    uri = artifact.uri
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "docker":
        raise _refused(parsed, uri, "docker: artifacts are not supported yet; run the container from a script instead")
    bucket, _, key = rest.removeprefix("//").partition("/")
    if scheme.lower() != "s3" or not rest.startswith("//") or not bucket or not key:
        raise _refused(parsed, uri, "it must be s3://BUCKET/KEY; upload the file to this service's S3 endpoint first")
    row = objects_index.get(call.tx, bucket, key)
    if row is None:
        bucket_known = objects_index.bucket(call.tx, bucket) is not None
        what = "the bucket has no such key" if bucket_known else f"there is no bucket {bucket}"
        raise _refused(parsed, uri, f"{what}; upload it first, e.g. `aws s3 cp FILE {uri}`")
    digest = base64.b64encode(bytes.fromhex(row["sha256"])).decode()
    if artifact.digest and artifact.digest != digest:
        raise _refused(
            parsed, uri, f"its SHA-256 is {digest}, the recipe says {artifact.digest}; upload the right file"
        )
    try:
        file = recipe.file_name(artifact)
    except nucleus_errors.NucleusError as error:
        raise _refused(parsed, uri, error.detail) from None
    return components.Artifact(artifact_id(row["sha256"]), file, row["size"], digest)


def _refused(parsed: recipe.Recipe, uri: str, why: str) -> errors.ApiError:
    message = f"cannot create component {parsed.name} version {parsed.version}: cannot take artifact {uri}: {why}"
    return errors.validation(message, [("inlineRecipe", message)])
