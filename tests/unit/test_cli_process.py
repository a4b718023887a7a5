"""The command line as a shell has it: processes, exit codes, completion, JSON of every command."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import geopandas
import pytest
import shapely
import typer
from typer.testing import CliRunner

from rasteret_dask.cli.app import app
from rasteret_dask.testing.catalog import write_demo_catalog

slow = partial(pytest.param, marks=pytest.mark.slow)
COMMAND = [sys.executable, "-c", "from rasteret_dask.cli import main; main()"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with scenes, and a collection of them built by the command line."""
    root = tmp_path_factory.mktemp("home")
    write_demo_catalog(root / "scenes", size=64, dates=("2023-07-03",), blocksize=128)
    points = geopandas.GeoSeries([shapely.Point(12.0, 47.2)], crs="EPSG:4326")
    points.to_file(root / "p.geojson", driver="GeoJSON")
    return root


@pytest.fixture(scope="module")
def process(home):
    """Run the command in a process of its own."""
    own = {"RASTERET_DASK_WORKSPACE": "workspace", "RASTERET_DASK_CATALOG": "own.yaml"}
    (home / "own.yaml").write_text("datasets: {}\n")

    def go(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=home,
            env=os.environ | own | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return go


def sets(home: Path) -> list[str]:
    values = [
        f"collection.build.static_catalog={home}/scenes",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        "collection.subset=null",
        "cube.bbox=null",
        "outputs=[{png: ndvi.png}]",
    ]
    return [part for one in values for part in ("--set", one)]


@pytest.fixture
def inside(home, monkeypatch):
    """Run the command in this process, which is quicker."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", "workspace")
    monkeypatch.setenv("RASTERET_DASK_CATALOG", "own.yaml")
    (home / "own.yaml").write_text("datasets: {}\n")

    def go(*arguments: str) -> SimpleNamespace:
        done = CliRunner().invoke(app, list(arguments))
        return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)

    return go


# Some twenty processes, each of which imports everything: minutes on a busy machine.
PATIENT = (pytest.mark.slow, pytest.mark.timeout(1800))


@pytest.mark.parametrize("how", ["inside", pytest.param("process", marks=PATIENT)])
def test_a_session_of_commands_in_json(home, how, request):
    """What each command says is one line of JSON, and nothing else is on stdout."""
    process = request.getfixturevalue(how)
    text = "datasets: {me/mine: {title: Mine, static_catalog: c.json, bands: {red: {}}}}"
    (home / "new.yaml").write_text(text)
    shutil.rmtree(home / "workspace", ignore_errors=True)
    shutil.rmtree(home / "plain", ignore_errors=True)
    build = ["build", "earthsearch/sentinel-2-l2a", "--name", "here", "--static-catalog", "scenes"]
    session = {
        "dry": [*build, "--dry-run"],
        "build": build,
        "info": ["info", "here"],
        "list": ["collections", "list"],
        "datasets": ["datasets", "list"],
        "explain": ["explain", "ndvi_median", *sets(home)],
        "run": ["run", "ndvi_median", *sets(home)],
        "report": ["report", "ndvi.png.run.json"],
        "sample": ["sample", "here", "p.geojson", "s.parquet", "--band", "B04"],
        "export": ["export", "here", "plain"],
        "append": ["append", "here"],
        "validate": ["validate", "ndvi_median"],
        "register": ["datasets", "register", "new.yaml"],
        "own": ["datasets", "info", "me/mine"],
        "unregister": ["datasets", "unregister", "me/mine"],
        "profiles": ["cluster", "list"],
        "check": ["cluster", "check", "threads"],
        "delete": ["collections", "delete", "here", "--yes"],
    }
    said = {}
    for name, arguments in session.items():
        done = process(*arguments, "--json")
        assert done.returncode == 0, (name, done.stderr)
        (line,) = done.stdout.splitlines()
        said[name] = json.loads(line)
    assert (said["dry"]["items"], said["dry"]["files"]) == (2, 10)
    assert said["build"]["headers"] == said["dry"]["requests"] == 10
    assert said["explain"]["headers"] == 10
    assert said["run"]["requests"] == said["explain"]["requests"], "the headers are there"
    assert said["report"] == {"report": "ndvi.png.run.html"}
    assert said["sample"] == {"output": "s.parquet", "rows": 2}
    assert said["export"]["items"] == 2
    assert said["append"]["added"] == 0
    assert said["validate"]["result"] == "an image"
    assert "threads" in said["profiles"]["profiles"]
    assert said["register"]["registered"] == ["me/mine"]
    assert said["own"]["title"] == "Mine"
    assert said["unregister"]["unregistered"] == "me/mine"
    assert not (home / "workspace" / "here").exists()


def commands() -> list[click.Command]:
    """Every command with its groups' names."""
    found = []

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            for name, one in command.commands.items():
                walk(one, (*path, name))
        else:
            found.append(pytest.param(command, id=" ".join(path)))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_says_what_it_is_and_speaks_json(command):
    options = {flag for parameter in command.params for flag in parameter.opts}
    assert command.help
    assert "--json" in options or command.name == "schema", "which is JSON by itself"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "no-such"], 1, "error: no collection"),
        slow(["run", "no-such"], 2, "pipelines that ship"),
        slow(["validate", "ndvi_median", "--set", "cube.bands=[B04]"], 2, "B08"),
        slow(["run", "ndvi_median", "--set", "collection={load: gone}"], 1, "gone"),
        slow(["no-such"], 2, "No such command"),
    ],
)
def test_exit_codes(process, arguments, code, words):
    done = process(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rasteret-dask run ndvi_m", "ndvi_median"),
        slow("rasteret-dask coll", "collections"),
        slow("rasteret-dask run ndvi_median --cluster l", "local"),
        slow("rasteret-dask datasets info earthsearch/sentinel-2-l", "earthsearch/sentinel-2-l2a"),
    ],
)
def test_the_shell_completes(home, words, offered):
    parts = words.split()
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    done = subprocess.run(
        [Path(sys.executable).with_name("rasteret-dask")],
        env=os.environ | asked | {"_RASTERET_DASK_COMPLETE": "complete_bash"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.slow
def test_progress_is_bars_in_a_terminal_and_lines_in_a_file(home, process):
    plain = process("explain", "ndvi_median", *sets(home))
    assert "] collection" in plain.stderr
    assert "\x1b" not in plain.stderr
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [*COMMAND, "explain", "ndvi_median", *sets(home)],
        cwd=home,
        env=os.environ | {"RASTERET_DASK_WORKSPACE": "workspace", "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal says that nobody writes to it any more
            break
        if not piece:
            break
        seen += piece
    out, _ = shown.communicate()
    os.close(ours)
    assert shown.returncode == 0, seen
    assert b"\x1b[" in seen
    assert b"collection" in seen
    assert b"requests" in out
    assert b"\x1b" not in out
