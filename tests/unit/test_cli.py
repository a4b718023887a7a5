"""The command line: exit codes, short errors, JSON; the commands themselves are tested where they work."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from rasteret_dask import catalog, resources
from rasteret_dask.cli import console
from rasteret_dask.cli.app import app
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.account import RunAccount

ACCOUNT = RunAccount("p", 1200, 5, 1234, 5_600_000, 2, 99, 1.25, ("a.zarr", "b.tif"))


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], "pipelines that ship: ndvi_median"),
        (["run", "no/where.yaml"], "no such file"),
        (["run", "ndvi_median", "--set", "cube.bands[1]=[x]"], "path='cube.bands[1]'"),
        (["run", "ndvi_median", "--set", "cubes.x=1"], "did you mean 'cube'"),
        (["run", "ndvi_median", "--set", "steps[0].expression.ndvi=B8"], "bands come from"),
        (["run", "ndvi_median", "--set", "nonsense"], "no '='"),
        (["run", "ndvi_median", "--cluster", "moon"], "configs/clusters that ship: address"),
        (["run", "ndvi_median", "--set", "cube.geometries=gone.geojson"], "path='cube.geometries'"),
        (["build", "--name", "x"], "exactly one of dataset, stac_api, static_catalog"),
        (["build", "a/b", "--name", "x", "--bbox", "1,2,3"], "path='--bbox'"),
        (["build", "earthsearch/nope", "--name", "x"], "no dataset"),
        (["datasets", "info", "earthsearch/sentinel-2"], "did you mean"),
    ],
)
def test_misuse_is_exit_code_2_and_a_short_message(call, arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_failure_is_exit_code_1(call):
    result = call("info", "no-such-collection")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no collection")


def test_debug_lets_the_error_through(call):
    assert isinstance(call("run", "nothing", "--debug").exception, ConfigError)


def test_no_arguments_and_unknown_options(call):
    assert "run" in call().output
    assert call("run", "ndvi_median", "--sett", "a=1").exit_code == 2


def test_datasets(call):
    listed = json.loads(call("datasets", "list", "--json").stdout)
    assert set(listed) == set(catalog.default())
    shown = call("datasets", "info", "earthsearch/sentinel-2-l2a").stdout
    assert re.search(r"B08 +asset nir", shown)
    one = json.loads(call("datasets", "info", "earthsearch/sentinel-2-l2a", "--json").stdout)
    assert one["harmonize"] == "sentinel-2"


def test_an_account_for_people_and_for_programs(capsys):
    console.show_account(ACCOUNT, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["items", "1,200"]
    assert "requests  1,234, 2 of them again" in lines
    assert [line.split()[-1] for line in lines[-2:]] == ["a.zarr", "b.tif"]
    console.show_account(ACCOUNT, as_json=True)
    assert json.loads(capsys.readouterr().out)["outputs"] == ["a.zarr", "b.tif"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")]
)
def test_human_sizes(size, text):
    assert console.human(int(size)) == text


def test_plain_progress_is_lines(capsys):
    with console.progress_shown() as progress:
        assert isinstance(progress, console.PlainProgress)
        progress.stage("collection")
        progress.update(1, 5)
        progress.stage("compute")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in lines] == ["collection", "compute"]


def test_bars_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress_shown() as progress:
        assert isinstance(progress, console.BarProgress)
        progress.stage("collection")
        progress.update(3, 5)
        progress.stage("compute")
        progress.update(7, 9)
    assert "compute" in capsys.readouterr().err


def test_resources():
    assert resources.find("ndvi_median", "pipelines").name == "ndvi_median.yaml"
    assert resources.find("ndvi_median.yaml", "pipelines").is_file()
    assert "local" in resources.names("configs/clusters")
    with pytest.raises(ConfigError, match="lacks"):
        resources.folder("no-such-folder")
