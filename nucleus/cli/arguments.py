"""Arguments that several verbs take: NAME=VERSION, and configuration updates as JSON or from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click


def versions(pairs: Iterable[str]) -> dict[str, str]:
    """Reads NAME=VERSION arguments. Raises BadParameter."""
    wanted: dict[str, str] = {}
    for pair in pairs:
        name, equals, version = pair.partition("=")
        if not (name and equals and version):
            raise click.BadParameter(f"{pair!r} is not NAME=VERSION")
        if wanted.setdefault(name, version) != version:
            raise click.BadParameter(f"{name} is given twice, as {wanted[name]} and {version}")
    return wanted


def updates(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Reads configuration updates, each JSON or the path of a JSON or YAML file; later ones win by component.

    The form is the field's, `{"<component>": {"MERGE": {...}, "RESET": ["/a"]}}`, in either case.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        document = _document(text)
        if not isinstance(document, Mapping):
            raise click.BadParameter("a configuration update is an object: component to MERGE and RESET")
        for component, update in document.items():
            found[str(component)] = _update(str(component), update)
    return found


def _document(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise click.BadParameter(f"the configuration update is no JSON: {error}") from None
    import yaml  # only for files, and slow to import

    path = Path(text)
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise click.BadParameter(f"cannot read the configuration update {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise click.BadParameter(f"cannot read the configuration update {path}: {error}") from None


def _update(component: str, update: Any) -> dict[str, Any]:
    if not isinstance(update, Mapping):
        raise click.BadParameter(f"the configuration update of {component} is no object of MERGE and RESET")
    known = {str(key).upper(): value for key, value in update.items()}
    if not known.keys() <= {"MERGE", "RESET"}:
        strange = ", ".join(sorted(known.keys() - {"MERGE", "RESET"}))
        raise click.BadParameter(f"the configuration update of {component} has {strange}; it takes MERGE and RESET")
    if not isinstance(known.get("MERGE", {}), Mapping):
        raise click.BadParameter(f"MERGE of {component} is no object")
    reset = known.get("RESET", [])
    if not isinstance(reset, list) or not all(isinstance(one, str) for one in reset):
        raise click.BadParameter(f"RESET of {component} is no list of JSON pointers")
    return known
