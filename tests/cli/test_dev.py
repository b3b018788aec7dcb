from __future__ import annotations

import getpass
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.cli import dev, exits
from tests.cli import marram

RECIPE = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: {name}
ComponentVersion: "1.0.0"
Manifests:
  - Lifecycle:
      Run: exec sh {{artifacts:path}}/run.sh
    Artifacts:
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/run.sh
"""
SCRIPT = "echo $$ {word} >> said\nwhile true; do sleep 0.1; done\n"


@pytest.fixture
def device() -> Iterator[Path]:
    """The root folder of a running nucleus that has no cloud."""
    with tempfile.TemporaryDirectory(prefix="md") as folder:
        root = Path(folder)
        (root / "config.yaml").write_text(
            "system: {thingName: bench}\n"
            f"services: {{aws.greengrass.Nucleus: {{configuration: {{runWithDefault: {{posixUser: {getpass.getuser()}}}}}}}}}\n"
        )
        ready = (root / "ipc.socket").exists
        with marram.running(root / "log", ready, "nucleus", "run", "--root", root):
            yield root


def _project(folder: Path, name: str) -> dev.Project:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE.format(name=name))
    (folder / "run.sh").write_text(SCRIPT.format(word="first"))
    return dev.Project(folder / "recipe.yaml", (folder,))


def test_turn_when_a_file_was_saved_then_only_its_component_is_another_process(device: Path, tmp_path: Path) -> None:
    told: list[str] = []
    loops = {
        name: dev.Loop(_project(tmp_path / name, name), device, tmp_path / f"s-{name}", told.append) for name in "ab"
    }
    for loop in loops.values():
        loop.turn("started")

    (tmp_path / "a" / "run.sh").write_text(SCRIPT.format(word="second"))
    loops["a"].turn("run.sh")

    said = {name: (device / "work" / name / "said").read_text().splitlines() for name in "ab"}
    marram.until(lambda: len((device / "work" / "a" / "said").read_text().splitlines()) == 2, lambda: str(told))
    said = {
        name: [line.split() for line in (device / "work" / name / "said").read_text().splitlines()] for name in "ab"
    }
    assert [word for _, word in said["a"]] == ["first", "second"]
    assert said["a"][0][0] != said["a"][1][0]
    assert [word for _, word in said["b"]] == ["first"]
    assert all("1.0.0 is RUNNING after" in line for line in told)


def test_turn_when_the_recipe_is_broken_then_the_mistake_is_told_and_the_next_save_works(
    device: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    project = _project(tmp_path / "c", "c")
    loop = dev.Loop(project, device, tmp_path / "staging", told.append)

    project.recipe_file.write_text("nonsense")
    loop.turn("recipe.yaml")
    project.recipe_file.write_text(RECIPE.format(name="c"))
    loop.turn("recipe.yaml")

    assert "cannot read recipe" in told[0]
    assert "c 1.0.0 is RUNNING" in told[1]


def test_turn_when_the_nucleus_does_not_run_then_the_next_step_is_told(tmp_path: Path) -> None:
    told: list[str] = []

    dev.Loop(_project(tmp_path / "c", "c"), tmp_path / "none", tmp_path / "staging", told.append).turn("started")

    assert "marram nucleus run" in told[0]


def test_device_verbs_when_a_nucleus_runs_then_they_tell_what_it_has(device: Path, tmp_path: Path) -> None:
    project = _project(tmp_path / "c", "c")
    (tmp_path / "artifacts" / "c" / "1.0.0").mkdir(parents=True)
    (tmp_path / "artifacts" / "c" / "1.0.0" / "run.sh").write_text(SCRIPT.format(word="hello"))

    folders = ("--recipeDir", project.recipe_file.parent, "--artifactDir", tmp_path / "artifacts")
    made = marram.run("deployment", "create", "-m", "c=1.0.0", *folders, "--root", device, "-o", "json")
    deployment_id = made.json["deploymentId"]

    def status() -> str:
        shown = marram.run("deployment", "status", "-i", deployment_id, "--root", device, "-o", "json")
        return str(shown.json["item"]["status"])

    marram.until(lambda: status() == "SUCCEEDED", status)
    listed = marram.run("component", "list", "--root", device, "-o", "json").json["items"]
    assert [(one["componentName"], one["state"]) for one in listed] == [
        ("aws.greengrass.Nucleus", "FINISHED"),
        ("c", "RUNNING"),
    ]
    assert marram.run("component", "details", "-n", "c", "--root", device).code == exits.OK
    assert marram.run("component", "details", "-n", "ghost", "--root", device).code == exits.ERROR
    assert marram.run("component", "restart", "-n", "c", "--root", device).out == "c: SUCCEEDED\n"
    assert deployment_id in marram.run("deployment", "list", "--root", device).out
    assert "deployment.ended" in marram.run("logs", "nucleus", "--root", device).out


def test_watch_when_an_editor_saves_by_renaming_then_the_file_is_named_once(tmp_path: Path) -> None:
    heard: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    watcher = threading.Thread(target=dev.watch, args=({tmp_path}, heard.put, stop))
    watcher.start()
    try:
        _save_until_heard(tmp_path, heard)
        for text in ("a", "b"):
            (tmp_path / "run.sh.new").write_text(text)
            (tmp_path / "run.sh.new").rename(tmp_path / "run.sh")
        assert heard.get(timeout=20) == "run.sh"
        (tmp_path / "run.sh~").write_text("a backup nobody wants to know of")
        (tmp_path / "last.sh").write_text("x")
        assert heard.get(timeout=20) == "last.sh"
    finally:
        stop.set()
        watcher.join()
    assert heard.empty()


def _save_until_heard(folder: Path, heard: queue.Queue[str]) -> None:
    """The observer starts in its own time: saves until it hears, then lets the burst end."""
    for number in range(100):
        (folder / "first.sh").write_text(str(number))
        try:
            heard.get(timeout=0.5)
            return
        except queue.Empty:
            continue
    raise AssertionError("no save was heard")


@pytest.mark.parametrize("count", [0, 2])
def test_recipe_when_it_is_not_the_only_one_then_the_option_is_told(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.yaml").write_text(RECIPE.format(name="a"))

    with pytest.raises(exits.Failure, match="--recipe"):
        dev.find_recipe(tmp_path)
