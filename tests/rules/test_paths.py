"""Every path and every place of another document that a docstring, a comment or a page names exists (style: comments rot).

The specifications (`spec/…`, `design.md`, `style.md`) lie beside the repository, in `../shared`; where they are not at
hand only their names are checked.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules import source

SHARED = source.ROOT.parent / "shared"
SPECIFICATIONS = ("broker", "cli-and-console", "cloud", "field-faults", "ipc", "ml", "nucleus")

_FOLDERS = "nucleus|cloud|components|recipes|tests|tools|core|wire|host|store|uplink|actors|ipc|cli|api|mqtt|objects"
_PATH = re.compile(rf"(?<![\w/<>{{}}.$:#-])(?:{_FOLDERS})/[\w./-]*\w")
_SECTION = re.compile(r"\b(spec/[\w-]+|design|style)\.md(?: (\d+(?:\.\d+)?))?")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PAGES = ("components/README.md", "README.md", "nucleus/ARCHITECTURE.md", "cloud/ARCHITECTURE.md", "CHANGELOG.md")


def _prose(module: source.Module) -> Iterator[tuple[int, str]]:
    """Docstrings and comments."""
    yield from source.docstrings(module)
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _exists(path: str, beside: Path) -> bool:
    """A path is given from the repository, from a package (`core/plan.py`) or from the file's own folder."""
    bases = (source.ROOT, source.ROOT / "nucleus", source.ROOT / "cloud", beside)
    return any((base / f"{path}{suffix}").exists() for base in bases for suffix in ("", ".py"))


def _unknown_sections(text: str) -> Iterator[str]:
    for document, section in _SECTION.findall(text):
        if document.startswith("spec/") and document.removeprefix("spec/") not in SPECIFICATIONS:
            yield f"{document}.md"
        elif section and SHARED.is_dir() and section not in _sections(SHARED / f"{document}.md"):
            yield f"{document}.md {section}"


def _sections(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (\d+(?:\.\d+)?)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {heading.rstrip(".") for heading in headings}


def test_paths_in_docstrings_and_comments_when_followed_then_they_exist() -> None:
    wrong = [
        f"{module.path}:{line}: {path}"
        for module in source.modules()
        for line, text in _prose(module)
        for path in _PATH.findall(text)
        if not _exists(path, (source.ROOT / module.path).parent)
    ]

    assert not wrong, "\n".join(wrong)


def test_sections_in_docstrings_and_comments_when_followed_then_they_exist() -> None:
    wrong = [
        f"{module.path}:{line}: {section}"
        for module in source.modules()
        for line, text in _prose(module)
        for section in _unknown_sections(text)
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", _PAGES)
def test_pages_when_they_link_or_name_paths_then_these_exist(page: str) -> None:
    # What a reader types into a shell names files of his own.
    text = _FENCE.sub("", (source.ROOT / page).read_text(encoding="utf-8"))
    beside = (source.ROOT / page).parent

    links = [link for link in _LINK.findall(text) if not (beside / link).exists()]
    paths = [path for path in _PATH.findall(text) if not _exists(path, beside)]

    assert not links
    assert not paths


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see core/plan.py", ["core/plan.py"]),
        ("`nucleus/cli/exits.py`.", ["nucleus/cli/exits.py"]),
        ("<root>/config/x and $aws/things/core/x", []),
        ("https://example.com/cloud/x", []),
    ],
)
def test_path_pattern_when_text_names_files_then_it_finds_ours(text: str, found: list[str]) -> None:
    assert _PATH.findall(text) == found
