"""`marram component publish|versions`: the author's way into the registry, by S3 and CreateComponentVersion."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from urllib import parse

import click

from cloud.cli import session as sessions
from cloud.cli import wheels
from nucleus.cli import artifacts, exits, lint, output
from nucleus.core import recipe


@click.command()
@click.argument("recipe_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="RECIPE")
@click.option(
    "--artifacts",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the artifact files, default: the recipe's; repeatable, the first that has a file wins.",
)
@click.option("--bucket", default="", help="Bucket for them, created if missing; default: one of the account.")
@click.option("--with-wheels", is_flag=True, help="Make wheels.zip from requirements.txt in the artifact folder.")
@sessions.option
@output.option
def publish(
    recipe_file: Path, folders: tuple[Path, ...], bucket: str, with_wheels: bool, root: Path | None, output_: str
) -> None:
    """Uploads the artifacts of RECIPE and registers the component version."""
    session = sessions.open_session(root)
    bucket = bucket or f"marram-artifacts-{session.region}-{session.account}"
    source = recipe_file.read_bytes()
    _check(source, recipe_file)
    read = artifacts.read_recipe(recipe_file)
    ours = f"s3://{bucket}/{read.name}/{read.version}/"
    text = source.decode().replace(artifacts.PLACE_HOLDERS, ours)
    folders = folders or (recipe_file.parent,)
    with tempfile.TemporaryDirectory(prefix="marram-") as staging:
        if with_wheels:
            wheels.make(folders, Path(staging) / artifacts.WHEELS)
        files = artifacts.collect(read, folders, Path(staging))
        size = _upload(session, recipe.read(text.encode(), str(recipe_file)), files, ours)
    made = session.client("greengrassv2").create_component_version(inlineRecipe=text.encode())
    if output_ == "json":
        item = {"arn": made["arn"], "artifacts": sorted(files), "sizeBytes": size}
        output.record("componentVersion", item, output_)
        return
    click.echo(f"Published {read.name} {read.version}: {len(files)} artifacts, {size:,} bytes.")


@click.command()
@click.argument("name")
@sessions.option
@output.option
def versions(name: str, root: Path | None, output_: str) -> None:
    """Lists the published versions of component NAME, newest first."""
    session = sessions.open_session(root)
    arn = f"arn:aws:greengrass:{session.region}:{session.account}:components:{name}"
    pages = session.client("greengrassv2").get_paginator("list_component_versions").paginate(arn=arn)
    found = [one for page in pages for one in page["componentVersions"]]
    columns = {"COMPONENT": "componentName", "VERSION": "componentVersion", "ARN": "arn"}
    output.show("componentVersions", found, columns, output_)


def _check(source: bytes, file: Path) -> None:
    mistakes = lint.lint(source, str(file))
    if mistakes:
        told = "\n".join(f"  {one}" for one in mistakes)
        raise exits.Failure(f"cannot publish {file}: the recipe has mistakes\n{told}")


def _upload(session: sessions.Session, read: recipe.Recipe, files: dict[str, Path], ours: str) -> int:
    """Puts the file of every s3:// artifact where its URI says; returns the number of bytes."""
    s3, known, size = session.client("s3"), set(), 0
    uris = {artifact.uri for manifest in read.manifests for artifact in manifest.artifacts}
    for uri in sorted(uris):
        place = parse.urlsplit(uri)
        if place.scheme.lower() != "s3":
            continue
        if place.netloc not in known:
            _ensure_bucket(s3, place.netloc, session.region)
            known.add(place.netloc)
        data = files[artifacts.name_of(uri, ours)].read_bytes()
        s3.put_object(Bucket=place.netloc, Key=place.path.lstrip("/"), Body=data)
        size += len(data)
    return size


def _ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    # AWS's own rule: us-east-1 is the one region that must not be named.
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.head_bucket(Bucket=bucket)
    except s3.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=bucket, **where)
