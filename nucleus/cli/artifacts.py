"""The artifact files of a recipe, found in an author's folder: as they are, as an archive of a folder, or our IPC client."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nucleus.cli import exits
from nucleus.core import errors, recipe, recipe_artifact

OURS = {"marram_ipc.py": "nucleus.ipc.client", "marram_signing.py": "nucleus.core.signing"}  # copied beside an artifact
WHEELS = "wheels.zip"
# GDK's place-holders; what stands behind them in a URI may lie in a folder there, so that platforms have files of one name.
PLACE_HOLDERS = "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/"
_IGNORED = {"__pycache__", ".git"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can say


def read_recipe(path: Path) -> recipe.Recipe:
    """Reads an author's recipe. Raises Failure naming file, key and line."""
    try:
        return recipe.read(path.read_bytes(), str(path))
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None


def names(read: recipe.Recipe) -> tuple[str, ...]:
    """The file names of a recipe's artifacts, with folders behind the place-holders, each once, in the manifests' order."""
    found = (name_of(artifact.uri) for manifest in read.manifests for artifact in manifest.artifacts)
    return tuple(dict.fromkeys(found))


def name_of(uri: str, place: str = PLACE_HOLDERS) -> str:
    """Where the file of an artifact lies in an author's folder: the URI behind `place`, or else its last segment."""
    file = recipe_artifact.file_name(uri)
    inner = uri.removeprefix(place)
    plain = inner != uri and not {"", ".", ".."} & set(inner.split("/"))
    return inner if plain else file


def collect(
    read: recipe.Recipe, folders: Sequence[Path], staging: Path, leave_out: Sequence[str] = ()
) -> dict[str, Path]:
    """Finds the file of each artifact in the first folder that has it; what is made on the way goes to `staging`.

    Raises Failure that names every missing file at once.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in (one for one in names(read) if one not in leave_out):
        path = _find(name, folders, staging) or _find(Path(name).name, folders, staging)
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    if missing:
        where = ", ".join(str(folder) for folder in folders)
        raise exits.Failure(f"cannot find artifacts of {read.name} {read.version} in {where}: {', '.join(missing)}")
    return found


def stage(read: recipe.Recipe, source: Path, files: dict[str, Path], staging: Path) -> tuple[Path, Path]:
    """Lays recipe and artifacts out as local deployments want them; returns recipe and artifact folder."""
    recipes, artifacts = staging / "recipes", staging / "artifacts"
    target = artifacts / read.name / read.version
    recipes.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, recipes / f"{read.name}-{read.version}{source.suffix}")
    plain = [Path(name).name for name in files]
    if len(set(plain)) != len(plain):
        raise exits.Failure(f"cannot deploy {source} from here: its platforms have different files of one name")
    for name, path in files.items():
        shutil.copyfile(path, target / Path(name).name)
    return recipes, artifacts


def archive(folder: Path, target: Path) -> None:
    """Zips a folder so that the same content gives the same bytes: sorted, without times, modes reduced to x or not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if not path.is_file() or _IGNORED & set(inner.parts):
                continue
            entry = zipfile.ZipInfo(inner.as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            made.writestr(entry, path.read_bytes())


def _find(name: str, folders: Sequence[Path], staging: Path) -> Path | None:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
        inner = folder / Path(name).stem
        if name.endswith(".zip") and inner.is_dir():
            archive(inner, staging / name)
            return staging / name
    if name in OURS:
        return _module(OURS[name])
    made = staging / name  # put there beforehand, as wheels.zip is
    return made if made.is_file() else None


def _module(name: str) -> Path:
    """The file of one of our modules that stand alone, found without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is part of this distribution"
    assert spec.origin is not None, f"{name} is a file"
    return Path(spec.origin)
