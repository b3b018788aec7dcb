"""Lint knows the configuration key `marram`."""

from __future__ import annotations

import pytest

from nucleus.cli import lint

RECIPE = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: com.example.Agent
ComponentVersion: "1.0.0"
ComponentConfiguration:
  DefaultConfiguration:
    marram: {MARRAM}
Manifests:
  - Lifecycle:
      PHASE:
        Script: "true"
"""


def messages(marram: str, phase: str = "Startup") -> list[str]:
    text = RECIPE.replace("{MARRAM}", marram).replace("PHASE", phase)
    return [f"{one.line} {one.code} {one.message}" for one in lint.lint(text.encode(), "r.yaml")]


@pytest.mark.parametrize("marram", ["{}", "{update: {overlap: true}}", "{update: {overlap: false}, other: 1}"])
def test_marram_when_good_then_no_mistake(marram: str) -> None:
    assert messages(marram) == []


@pytest.mark.parametrize(
    ("marram", "phase", "told"),
    [
        ("{update: {overlap: 3}}", "Startup", "marram.update.overlap must be true or false, not 3"),
        ("{update: {overlapp: true}}", "Startup", "unknown key; known: overlap"),
        ("{healthCheck: {}}", "Run", "marram.healthCheck must have exactly one of exec, http, tcp, heartbeat"),
        ("{update: {overlap: true}}", "Run", "needs Startup instead of Run"),
        ("{update: {overlap: true}, healthCheck: {heartbeat: true}}", "Startup", "needs no heartbeat"),
        ("{update: {overlap: true}, rollbackState: {paths: [data]}}", "Startup", "needs no rollbackState"),
    ],
    ids=["value", "key", "check", "run", "heartbeat", "state"],
)
def test_marram_when_it_cannot_be_had_then_the_line_and_the_reason(marram: str, phase: str, told: str) -> None:
    (found,) = messages(marram, phase)

    assert found.startswith("6 COMPONENT_CONFIGURATION_NOT_VALID ")
    assert told in found
