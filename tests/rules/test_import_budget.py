"""What starting costs: the daemon and `marram --help` load nothing they do not need (design.md 6).

The test runs where rich, structlog and all the rest are installed beside Marram: that is the harder case.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.rules import source

# Costs in design.md 4.6; `unittest` comes in through careless helpers.
FORBIDDEN_IN_DAEMON = frozenset(
    {
        "boto3",
        "botocore",
        "rich",
        "numpy",
        "onnxruntime",
        "cryptography",
        "pydantic",
        "structlog",
        "unittest",
        "click",
        "jsonschema",
        "sqlalchemy",
    }
)
HEAVY_FOR_HELP = frozenset(
    {
        "awscrt",
        "awsiot",
        "boto3",
        "botocore",
        "cryptography",
        "jsonschema",
        "msgspec",
        "rich",
        "sqlalchemy",
        "starlette",
        "structlog",
        "uvicorn",
        "watchdog",
        "yaml",
        "nucleus.app",
        "cloud.app",
        "asyncio",
    }
)


def _loaded(code: str) -> frozenset[str]:
    """The names of all modules that a fresh interpreter has loaded after running the code."""
    tail = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], cwd=source.ROOT, capture_output=True, text=True, check=True
    )
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def test_daemon_when_imported_then_it_stays_within_its_budget() -> None:
    assert not FORBIDDEN_IN_DAEMON & _loaded("import nucleus.app")


def test_help_when_printed_then_no_verb_is_imported() -> None:
    loaded = _loaded("from nucleus.cli import __main__ as marram\nassert marram.run(['--help']) == 0")

    assert not HEAVY_FOR_HELP & loaded
    assert {name for name in loaded if name.startswith("cloud.")} == {"cloud.cli", "cloud.cli.verbs"}


@pytest.mark.parametrize(
    "verb", [("nucleus", "run"), ("logs",), ("logs", "get"), ("doctor",), ("config", "get"), ("deployment", "plan")]
)
def test_device_verbs_when_asked_for_help_then_they_need_no_cloud_package(verb: tuple[str, ...]) -> None:
    loaded = _loaded(f"from nucleus.cli import __main__ as marram\nassert marram.run({[*verb, '--help']!r}) == 0")

    assert not {"boto3", "botocore", "rich", "awscrt", "jsonschema", "watchdog"} & loaded
