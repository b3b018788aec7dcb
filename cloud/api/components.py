"""Component versions: create from a recipe, describe, list, delete, hand out artifacts."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any
from urllib import parse

import msgspec
import yaml
from msgspec import Meta, Struct
from sqlalchemy import RowMapping

from cloud.api import calls, downloads, errors, ingestion, tags
from cloud.store import components, tokens
from cloud.store import tags as tag_store
from nucleus.core import errors as nucleus_errors
from nucleus.core import recipe, version

LIMIT_BYTES = 16_000  # of a recipe, as AWS has it
_NAME = re.compile(r"[a-zA-Z0-9\-_.]{1,128}")
_CREATE = "CreateComponentVersion"


class Creation(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of CreateComponentVersion; `inline_recipe` is base64."""

    inline_recipe: str | None = None
    lambda_function: dict[str, Any] | None = None
    tags: dict[tags.Key, tags.Value] = {}
    client_token: Annotated[str, Meta(pattern="^[a-zA-Z0-9-]{1,64}$")] = ""


def create(call: calls.Call) -> dict[str, Any]:
    """CreateComponentVersion. Synchronous: what it answers is DEPLOYABLE, its artifacts are ours."""
    request = call.read(Creation)
    if request.client_token and (given := tokens.answer(call.tx, _CREATE, request.client_token, call.now_ms)):
        return given
    parsed = _parse(request)
    held = components.get(call.tx, parsed.name, parsed.version)
    if held is not None:
        message = (
            f"cannot create component {parsed.name} version {parsed.version}: it already exists with state: "
            f"[{held['state']}]; versions never change, publish the next one"
        )
        raise errors.conflict(message, held["arn"], "component")
    arn = call.services.arn("greengrass", f"components:{parsed.name}:versions:{parsed.version}")
    taken = ingestion.ingest(call, parsed)
    row = {
        "name": parsed.name,
        "version": parsed.version,
        "arn": arn,
        "author_recipe": _text(recipe.describe(taken.author)),
        "device_recipe": _text(recipe.describe(taken.device)),
        "description": parsed.description,
        "publisher": parsed.publisher,
        "platforms": _text([_platform(one) for one in parsed.manifests]),
        "state": components.DEPLOYABLE,
        "message": "NONE",
        "errors": "{}",
        "created_ms": call.now_ms,
    }
    components.add(call.tx, row, taken.artifacts)
    tags.attach(call, arn, request.tags)
    answer = _summary(row)
    if request.client_token:
        tokens.remember(call.tx, _CREATE, request.client_token, answer, call.now_ms)
    return answer


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeComponent."""
    row = _row(call)
    more = {"publisher": row["publisher"], "description": row["description"], "platforms": _platforms(row)}
    return _summary(row) | more | {"tags": tag_store.read(call.tx, row["arn"])}


def get(call: calls.Call) -> dict[str, Any]:
    """GetComponent: the recipe with the author's URIs and the digests of the registry."""
    row = _row(call)
    wanted = call.first("recipeOutputFormat", "JSON")
    if wanted not in ("JSON", "YAML"):
        message = f"cannot give the recipe as {wanted}: recipeOutputFormat is JSON or YAML"
        raise errors.validation(message, [("recipeOutputFormat", "JSON or YAML")])
    text = row["author_recipe"]
    if wanted == "YAML":
        text = yaml.safe_dump(msgspec.json.decode(text), sort_keys=False, allow_unicode=True)
    encoded = base64.b64encode(text.encode()).decode()
    return {"recipeOutputFormat": wanted, "recipe": encoded, "tags": tag_store.read(call.tx, row["arn"])}


def listed(call: calls.Call) -> dict[str, Any]:
    """ListComponents. There is no public scope yet: it is empty."""
    if call.first("scope", "PRIVATE") == "PUBLIC":
        return {"components": []}
    limit = call.size()
    names, more = calls.page(components.names(call.tx, call.after(), limit + 1), limit, str)
    return {"components": [_latest(call, name) for name in names], **more}


def versions(call: calls.Call) -> dict[str, Any]:
    """ListComponentVersions, greatest first. A component nobody published has none: 200 (GDK asks before publishing)."""
    name, _ = split_arn(call, call.path["arn"])
    rows, more = calls.slice_page(call, components.versions(call.tx, name))
    found = [{"componentName": name, "componentVersion": row["version"], "arn": row["arn"]} for row in rows]
    return {"componentVersions": found, **more}


def delete(call: calls.Call) -> None:
    """DeleteComponent: devices keep what they have; later deployments that name the version are refused."""
    row = _row(call)
    components.delete(call.tx, row["name"], row["version"])
    tag_store.clear(call.tx, row["arn"])


def artifact(call: calls.Call) -> dict[str, Any]:
    """GetComponentVersionArtifact: a presigned URL on the device server, for operators and for devices."""
    row = _row(call)
    artifact_id, _, file = parse.unquote(call.path["artifactName"]).partition("/")
    found = components.artifact(call.tx, row["name"], row["version"], artifact_id.rstrip("="), file)
    if found is None:
        message = f"component {row['name']} version {row['version']} has no artifact {artifact_id}/{file}"
        raise errors.not_found(message, row["arn"], "artifact")
    return {"preSignedUrl": downloads.presign(call.services, found["artifact_id"], file, call.now_ms)}


def split_arn(call: calls.Call, arn: str) -> tuple[str, str]:
    """Name and version ("" without one) of a component ARN. Raises ValidationException for any other."""
    prefix = call.services.arn("greengrass", "components:")
    name, _, number = arn.removeprefix(prefix).partition(":versions:")
    if not arn.startswith(prefix) or not _NAME.fullmatch(name):
        message = f"cannot read {arn!r}: a component's ARN here is {prefix}NAME or {prefix}NAME:versions:VERSION"
        raise errors.validation(message, [("arn", "not a component of this account and region")])
    return name, number


def _row(call: calls.Call) -> RowMapping:
    """The component version of the path."""
    name, number = split_arn(call, call.path["arn"])
    if not number:
        raise errors.validation(f"cannot take {call.path['arn']}: it names no version", [("arn", "names no version")])
    row = components.get(call.tx, name, number)
    if row is None:
        raise errors.not_found(f"cannot find component {name} version {number}", call.path["arn"], "component")
    return row


def _parse(request: Creation) -> recipe.Recipe:
    if request.lambda_function is not None or request.inline_recipe is None:
        message = "cannot create a component without inlineRecipe; Lambda functions are not supported: write a recipe"
        raise errors.validation(message, [("inlineRecipe", "is required")])
    try:
        data = base64.b64decode(request.inline_recipe, validate=True)
    except ValueError:
        raise errors.validation(
            "cannot decode inlineRecipe: it is not base64", [("inlineRecipe", "not base64")]
        ) from None
    if len(data) > LIMIT_BYTES:
        message = (
            f"cannot take a recipe of {len(data)} bytes: at most {LIMIT_BYTES}; move what is long into an artifact"
        )
        raise errors.validation(message, [("inlineRecipe", f"over {LIMIT_BYTES} bytes")])
    try:
        parsed = recipe.read(data, "inlineRecipe")
        version.Version.parse(parsed.version)
    except nucleus_errors.NucleusError as error:
        raise errors.validation(error.detail, [("inlineRecipe", error.detail)]) from None
    if not _NAME.fullmatch(parsed.name):
        message = f"cannot take ComponentName {parsed.name!r}: 1 to 128 letters, digits and - _ . are allowed"
        raise errors.validation(message, [("ComponentName", "1 to 128 of a-z A-Z 0-9 - _ .")])
    if len(parsed.version) > 64:
        raise errors.validation(f"cannot take ComponentVersion {parsed.version}: over 64 characters")
    return parsed


def _summary(row: Any) -> dict[str, Any]:
    status = {"componentState": row["state"], "message": row["message"], "errors": msgspec.json.decode(row["errors"])}
    return {
        "arn": row["arn"],
        "componentName": row["name"],
        "componentVersion": row["version"],
        "creationTimestamp": calls.seconds(row["created_ms"]),
        "status": status | {"vendorGuidance": "ACTIVE", "vendorGuidanceMessage": "NONE"},
    }


def _latest(call: calls.Call, name: str) -> dict[str, Any]:
    row = components.versions(call.tx, name)[0]
    latest = {
        "arn": row["arn"],
        "componentVersion": row["version"],
        "creationTimestamp": calls.seconds(row["created_ms"]),
        "description": row["description"],
        "publisher": row["publisher"],
        "platforms": _platforms(row),
    }
    return {
        "arn": call.services.arn("greengrass", f"components:{name}"),
        "componentName": name,
        "latestVersion": latest,
    }


def _platforms(row: RowMapping) -> Any:
    return msgspec.json.decode(row["platforms"])


def _platform(manifest: recipe.Manifest) -> dict[str, Any]:
    return {"name": manifest.name, "attributes": {key: claim or "*" for key, claim in manifest.platform.items()}}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
