"""`marram dev --watch DIR`: the author's loop. Saving a file redeploys its component locally and restarts only that process."""

from __future__ import annotations

import fnmatch
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
from msgspec import Struct
from watchdog import events, observers

from nucleus.cli import artifacts, daemon, deployment, exits
from nucleus.core import recipe
from nucleus.ipc import client

_QUIET_S = 0.15  # an editor saves in several steps; what comes within this time is one change
_LOOK_S = 0.05
_DEPLOYED_WITHIN_S = 300
_SETTLED_WITHIN_S = 15
_IGNORED = ("*~", "*.swp", "*.swx", ".#*", "4913", "*.pyc", "__pycache__", ".git", "*.tmp")
_RECIPES = ("*.yaml", "*.yml", "*.json")


class Project(Struct, frozen=True):
    """One component under work: its recipe file and the folders its artifacts are in."""

    recipe_file: Path
    folders: tuple[Path, ...]


@click.command()
@click.option(
    "--watch",
    "folder",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the component's files.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The recipe, if it is not the only one in the folder.",
)
@daemon.option
def dev(folder: Path, recipe_file: Path | None, root: Path) -> None:
    """Redeploys a component locally whenever one of its files is saved; versions stay as they are. Ctrl-C ends it."""
    project = Project(recipe_file or find_recipe(folder), (folder,))
    with tempfile.TemporaryDirectory(prefix="marram-dev-") as staging:
        loop = Loop(project, root, Path(staging), click.echo)
        loop.turn("started")
        watch({folder, project.recipe_file.parent}, loop.turn)


class Loop:
    """Brings the saved files onto the device, again and again."""

    def __init__(self, project: Project, root: Path, staging: Path, tell: Callable[[str], object]) -> None:
        self._project = project
        self._root = root
        self._staging = staging
        self._tell = tell
        self._deployed = b""

    def turn(self, cause: str) -> None:
        """One deployment; a mistake of the author is told and waits for the next save."""
        began = time.monotonic()
        try:
            state = self._deploy()
        except exits.Failure as failure:
            self._tell(f"{cause}: {failure}")
        else:
            self._tell(f"{cause}: {state} after {time.monotonic() - began:.2f} s")

    def _deploy(self) -> str:
        project = self._project
        read = artifacts.read_recipe(project.recipe_file)
        found = artifacts.collect(read, project.folders, self._staging / "made")
        recipes, files = artifacts.stage(read, project.recipe_file, found, self._staging)
        source = project.recipe_file.read_bytes()
        with daemon.connect(self._root) as ipc:
            known = {one["componentName"] for one in ipc.call("ListComponents", {})["components"]}
            request = {
                "rootComponentVersionsToAdd": {read.name: read.version},
                "recipeDirectoryPath": str(recipes),
                "artifactsDirectoryPath": str(files),
            }
            _wait_deployed(ipc, ipc.call("CreateLocalDeployment", request)["deploymentId"])
            # With the same recipe the nucleus sees no change of the component: only its files are others.
            if read.name in known and source == self._deployed:
                ipc.call("RestartComponent", {"componentName": read.name})
            self._deployed = source
            return f"{read.name} {read.version} is {_wait_settled(ipc, read)}"


def find_recipe(folder: Path) -> Path:
    """The one recipe in a folder. Raises Failure if there is none or more than one."""
    found = [path for pattern in _RECIPES for path in folder.glob(pattern) if b"ComponentName" in path.read_bytes()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise exits.Failure(f"cannot tell the recipe in {folder}: found {names}; give --recipe FILE")
    return found[0]


def watch(folders: set[Path], changed: Callable[[str], object], stop: threading.Event | None = None) -> None:
    """Calls `changed` with the name of a saved file, once for each burst of changes, until `stop` is set."""
    stop = stop or threading.Event()
    saved: queue.Queue[Path] = queue.Queue(1000)
    observer = observers.Observer()
    for folder in folders:
        observer.schedule(_Saves(saved), str(folder), recursive=True)
    observer.start()
    try:
        while not stop.is_set():
            name = _burst(saved)
            if name:
                changed(name)
    finally:
        observer.stop()
        observer.join()


class _Saves(events.FileSystemEventHandler):  # watchdog calls methods of a subclass
    def __init__(self, saved: queue.Queue[Path]) -> None:
        self._saved = saved

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        path = Path(str(event.dest_path or event.src_path))
        if event.is_directory or event.event_type not in ("modified", "created", "moved", "deleted"):
            return
        if any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in _IGNORED):
            return
        if not self._saved.full():  # a full queue has woken the loop already
            self._saved.put_nowait(path)


def _burst(saved: queue.Queue[Path]) -> str:
    """The name of the last file of a burst that is still there, once it is over; empty if nothing was saved for a while."""
    try:
        seen = [saved.get(timeout=1)]
    except queue.Empty:
        return ""
    while True:
        try:
            seen.append(saved.get(timeout=_QUIET_S))
        except queue.Empty:
            break
    # Editors write beside the file and rename: the other names are gone by now.
    left = [path for path in seen if path.exists()] or seen
    return left[-1].name


def _wait_deployed(ipc: client.Client, deployment_id: str) -> None:
    pause, deadline = threading.Event(), time.monotonic() + _DEPLOYED_WITHIN_S
    while time.monotonic() < deadline:
        found = ipc.call("GetLocalDeploymentStatus", {"deploymentId": deployment_id})["deployment"]
        if found["status"] == "SUCCEEDED":
            return
        if found["status"] in ("FAILED", "CANCELED"):
            details = found.get("deploymentStatusDetails", {})
            cause = details.get("deploymentFailureCause") or details.get("detailedDeploymentStatus") or found["status"]
            raise exits.Failure(f"the deployment failed: {cause}", deployment.code_of(found))
        pause.wait(_LOOK_S)
    raise exits.Failure(f"the deployment has not ended after {_DEPLOYED_WITHIN_S} s", exits.TIMED_OUT)


def _wait_settled(ipc: client.Client, read: recipe.Recipe) -> str:
    """The component's state once it runs or has ended, or whatever it is when that takes long."""
    pause, deadline = threading.Event(), time.monotonic() + _SETTLED_WITHIN_S
    while True:
        found = ipc.call("GetComponentDetails", {"componentName": read.name})["componentDetails"]
        state = str(found["state"])
        if state in ("RUNNING", "FINISHED", "BROKEN") or time.monotonic() > deadline:
            return state
        pause.wait(_LOOK_S)
