"""Device verbs against a running nucleus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.cli import exits
from tests.cli import device, marram

WAIT = "exec sleep 1000"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A nucleus with com.a 1.0.0, which needs com.b 1.0.0."""
    recipes = tmp_path_factory.mktemp("recipes")
    needs = {"com.b": {"VersionRequirement": "^1.0.0", "DependencyType": "HARD"}}
    defaults = {"DefaultConfiguration": {"rate": 1, "deep": {"x": [1]}}}
    device.recipe(recipes, "com.a", "1.0.0", WAIT, ComponentDependencies=needs, ComponentConfiguration=defaults)
    device.recipe(recipes, "com.b", "1.0.0", WAIT)
    with device.running() as made:
        assert device.deploy(made, "-m", "com.a=1.0.0", "-r", recipes) == "SUCCEEDED"
        yield made


def test_plan_when_a_dependency_would_change_then_order_and_reasons_are_told_and_nothing_is_touched(
    root: Path, tmp_path: Path
) -> None:
    recipes = device.recipe(tmp_path / "r", "com.b", "1.1.0", WAIT)
    update = '{"com.a": {"MERGE": {"rate": 5}}}'
    before = sorted(path.name for path in (root / "packages").rglob("*"))

    shown = marram.run("deployment", "plan", "-m", "com.b=1.1.0", "-c", update, "-r", recipes, "--root", root)

    assert shown.code == 0, shown.err
    steps = [line.split(". ", 1)[1] for line in shown.out.splitlines() if ". " in line and line.startswith("  ")]
    assert steps == [
        "stop com.a 1.0.0: it cannot run without com.b",
        "stop com.b 1.0.0: version 1.0.0 becomes 1.1.0",
        "start com.b 1.1.0: version 1.0.0 becomes 1.1.0",
        "start com.a 1.0.0: it starts again behind com.b",
    ]
    assert "  com.a: rate" in shown.out.splitlines()
    assert sorted(path.name for path in (root / "packages").rglob("*")) == before
    assert marram.run("config", "get", "-n", "com.a", "-k", "/rate", "--root", root).json == {"rate": 1}


def test_plan_when_machines_read_it_then_it_has_every_part(root: Path, tmp_path: Path) -> None:
    artifact = {"URI": "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/model.bin"}
    manifests = [{"Lifecycle": {"Run": WAIT}, "Artifacts": [artifact]}]
    recipes = device.recipe(tmp_path / "r", "com.c", "1.0.0", WAIT, Manifests=manifests)
    (tmp_path / "a" / "com.c" / "1.0.0").mkdir(parents=True)
    (tmp_path / "a" / "com.c" / "1.0.0" / "model.bin").write_bytes(b"x")
    ask = ("deployment", "plan", "-m", "com.c=1.0.0", "--remove", "com.a", "-r", recipes, "-o", "json", "--root", root)

    without = marram.run(*ask).json["item"]
    given = marram.run(*ask, "-a", tmp_path / "a").json["item"]

    assert without["downloads"][0]["source"].startswith("nowhere")
    assert without["downloads"][0]["sizeBytes"] is None
    assert given["downloads"][0]["source"] == "artifact folder"
    assert given["downloads"][0]["sizeBytes"] == 1
    assert given["warnings"] == []
    assert [one["component"] for one in given["starts"]] == ["com.c"]
    assert [one["component"] for one in given["removals"]] == ["com.a", "com.b"]
    assert given["requirers"]["com.c"] == [{"name": "LOCAL_DEPLOYMENT", "range": "=1.0.0", "kind": "ROOT"}]


def test_plan_when_state_passes_its_limit_then_it_says_that_a_rollback_would_not_restore_it(
    root: Path, tmp_path: Path
) -> None:
    settings = {"DefaultConfiguration": {"marram": {"rollbackState": {"paths": ["rows"], "maxBytes": 1}}}}
    recipes = device.recipe(tmp_path / "r", "com.b", "1.2.0", WAIT, ComponentConfiguration=settings)
    (root / "work" / "com.b").mkdir(parents=True, exist_ok=True)
    (root / "work" / "com.b" / "rows").write_text("two")

    shown = marram.run("deployment", "plan", "-m", "com.b=1.2.0", "-r", recipes, "--root", root)

    wanted = "Warning: a rollback would not restore the state of com.b 1.0.0: its files hold more than maxBytes 1"
    assert wanted in shown.out.splitlines()


def test_plan_when_it_cannot_be_resolved_then_the_reason_is_the_deployments(root: Path) -> None:
    shown = marram.run("deployment", "plan", "-m", "com.b=9.0.0", "--root", root)

    assert shown.code == exits.ERROR
    assert "com.b version constraints" in shown.err


def test_explain_when_a_component_is_a_dependency_then_its_requirer_and_range_are_told(root: Path) -> None:
    shown = marram.run("deployment", "explain", "-n", "com.b", "--root", root)

    assert "asked for by com.a 1.0.0 (^1.0.0, HARD)" in shown.out
    assert "by deployment:" in shown.out


def test_explain_when_the_component_is_unknown_then_it_fails(root: Path) -> None:
    assert marram.run("deployment", "explain", "-n", "ghost", "--root", root).code == exits.ERROR


def test_config_get_when_origins_are_asked_then_each_value_has_its_writer(root: Path) -> None:
    shown = marram.run("config", "get", "-n", "com.a", "--origins", "-o", "json", "--root", root)

    found = {one["key"]: (one["value"], one["origin"]) for one in shown.json["items"]}
    assert found == {"/rate": (1, "default"), "/deep/x": ([1], "default")}


def test_config_get_when_the_key_is_unknown_then_it_fails(root: Path) -> None:
    assert marram.run("config", "get", "-n", "com.a", "-k", "/none", "--root", root).code == exits.ERROR
    assert marram.run("config", "get", "-n", "com.a", "-k", "/none", "--origins", "--root", root).code == exits.ERROR


def test_cancel_when_the_deployment_is_unknown_then_it_says_so(root: Path) -> None:
    missing = "00000000-0000-0000-0000-000000000000"

    shown = marram.run("deployment", "cancel", "-i", missing, "--root", root)

    assert (shown.code, missing in shown.err) == (exits.ERROR, True)


def test_cancel_when_the_deployment_runs_then_it_ends_cancelled_and_is_taken_back(root: Path, tmp_path: Path) -> None:
    slow = {"Lifecycle": {"Startup": {"Script": "exec sleep 1000", "Timeout": 900}}}
    recipes = device.recipe(tmp_path / "r", "com.slow", "1.0.0", "", Manifests=[slow])
    made = marram.run("deployment", "create", "-m", "com.slow=1.0.0", "-r", recipes, "--root", root, "-o", "json")
    deployment_id = made.json["deploymentId"]
    listed = ("component", "list", "--root", root, "-o", "json")

    def state() -> str:
        return str(
            {one["componentName"]: one["state"] for one in marram.run(*listed).json["items"]}.get("com.slow", "")
        )

    def status() -> str:
        shown = marram.run("deployment", "status", "-i", deployment_id, "--root", root, "-o", "json")
        return str(shown.json["item"]["status"])

    marram.until(lambda: state() == "STARTING", state)
    cancelled = marram.run("deployment", "cancel", "-i", deployment_id, "--root", root)
    marram.until(lambda: status() == "CANCELED", status)
    again = marram.run("deployment", "cancel", "--deploymentId", deployment_id, "--root", root)

    assert cancelled.code == exits.OK
    assert state() == ""
    assert (again.code, "CANCELED" in again.err) == (exits.ERROR, True)


def test_components_when_restarted_and_stopped_then_each_answer_is_told(root: Path) -> None:
    restarted = marram.run("component", "restart", "--names", "com.a,com.b", "--root", root)

    assert restarted.out == "com.a: SUCCEEDED\ncom.b: SUCCEEDED\n"
    assert marram.run("component", "stop", "-n", "ghost", "--root", root).code == exits.ERROR


def test_doctor_when_the_nucleus_runs_then_it_says_so_and_changes_nothing(root: Path) -> None:
    before = sorted((root / "config").iterdir())

    shown = marram.run("doctor", "--root", root, "-o", "json")

    found = {one["code"]: one for one in shown.json["items"]}
    assert found["NUCLEUS"]["level"] == "ok"
    assert shown.code == max({"ok": 0, "warning": 1, "error": 2}[one["level"]] for one in shown.json["items"])
    assert all(one["fix"] for one in shown.json["items"] if one["level"] != "ok")
    assert sorted((root / "config").iterdir()) == before


def test_doctor_when_there_is_no_root_then_the_exit_code_is_2_and_the_fix_is_told(tmp_path: Path) -> None:
    shown = marram.run("doctor", "--root", tmp_path / "none")

    assert shown.code == 2
    assert "fix: " in shown.out


def test_ipc_explain_when_no_policy_allows_it_then_denied_with_what_would(root: Path) -> None:
    shown = marram.run("ipc", "explain", "com.a", "PublishToTopic", "a/b", "--root", root)
    told = marram.run("ipc", "explain", "com.a", "GetConfiguration", "-o", "json", "--root", root).json["item"]

    assert shown.out.startswith("Denied: Principal com.a is not authorized")
    assert '"resources": ["a/b"]' in shown.out
    assert (told["allowed"], told["service"]) == (True, "")
    assert marram.run("ipc", "explain", "ghost", "PublishToTopic", "a", "--root", root).code == exits.ERROR
