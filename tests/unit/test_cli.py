"""The command line: exit codes, short errors, JSON; the commands themselves are tested where they work."""

from __future__ import annotations

import base64
import json
import re
import signal
import warnings
from functools import partial
from importlib.metadata import version

import geopandas
import pyarrow.dataset
import pyarrow.parquet
import pytest
import shapely
import typer
from rich.console import Console
from typer.testing import CliRunner

from rasteret_dask import catalog, resources
from rasteret_dask.cli import console
from rasteret_dask.cli.app import app
from rasteret_dask.errors import ConfigError, RunInterruptedError
from rasteret_dask.pipeline import progress
from rasteret_dask.pipeline.account import RunAccount
from rasteret_dask.testing.catalog import write_demo_catalog

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
        (["run", "nothing"], "pipelines that ship: alphaearth_similarity, cloud_free_mosaic"),
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
        (["datasets", "unregister", "earthsearch/sentinel-2-l2a"], "it holds nothing"),
        (["collections", "delete", "../x", "--yes"], "is no name"),
        (["explain", "ndvi_median", "--set", "steps[0].expression.ndvi=B8"], "bands come from"),
        (["validate", "ndvi_median", "--set", "cube.bands=[B04]"], "'B08'"),
        (["cluster", "check", "moon"], "configs/clusters that ship"),
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
    assert call("collections", "delete", "no-such", "--yes").exit_code == 1


def _lose():
    raise RunInterruptedError("lost", hint="do it again, a pipeline with resume")


@pytest.mark.parametrize(
    "event",
    [
        lambda: signal.raise_signal(signal.SIGINT),
        lambda: signal.raise_signal(signal.SIGTERM),
        _lose,
    ],
    ids=["Ctrl-C", "SIGTERM", "a lost cluster"],
)
@pytest.mark.parametrize("resumes", [True, False])
def test_what_can_go_on_is_exit_code_75_and_says_so(capsys, event, resumes):
    """A build has no such option: it finds what is done."""
    before = signal.getsignal(signal.SIGTERM)
    # A shell that runs the tests in the background has told them to ignore Ctrl-C.
    of_shell = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(typer.Exit) as caught, console.reported(debug=False, resumes=resumes):
            event()
    finally:
        signal.signal(signal.SIGINT, of_shell)
    assert caught.value.exit_code == 75
    told = capsys.readouterr().err
    assert "start the same command again" in told
    assert ("--resume" in told) == resumes
    assert signal.getsignal(signal.SIGTERM) is before


def test_validate_and_schema(call):
    assert call("validate", "ndvi_median").stdout == "ndvi-median: fine; an image of ndvi\n"
    assert json.loads(call("schema").stdout)["title"] == "Pipeline"


@pytest.fixture
def small(call, tmp_path):
    """Arguments that run the shipped pipeline on generated scenes."""
    scenes = write_demo_catalog(tmp_path / "scenes", size=64, dates=("2023-07-03",), blocksize=128)
    sets = [
        f"collection.build.static_catalog={scenes}",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        "collection.subset=null",
        "cube.bbox=null",
        "outputs=[{cog: ndvi.tif}]",
    ]
    return ["ndvi_median", *(part for one in sets for part in ("--set", one))]


def test_a_plan_is_what_the_run_then_does(call, small, tmp_path):
    plan = json.loads(call("run", *small, "--dry-run", "--json").stdout)
    assert (plan["items"], plan["headers"], plan["variables"]) == (2, 10, ["ndvi"])
    assert plan["outputs"] == ["ndvi.tif"]
    assert not (tmp_path / "ndvi.tif").exists()
    again = call("explain", *small)
    assert re.search(r"B04 +\d+ requests", again.stdout), again.stdout
    account = json.loads(call("run", *small, "--json").stdout)
    assert account["headers"] == 0
    assert (account["requests"], account["bytes"]) == (plan["requests"], plan["bytes"])
    # A record is a pipeline too.
    (tmp_path / "ndvi.tif").unlink()
    once_more = json.loads(call("run", account["record"], "--json").stdout)
    assert once_more["bytes"] == account["bytes"]
    assert (tmp_path / "ndvi.tif").exists()


def test_a_run_as_one_page(call, small, tmp_path):
    outputs = "outputs=[{png: ndvi.png}, {zarr: ndvi.zarr}]"
    account = json.loads(call("run", *small, "--set", outputs, "--json").stdout)
    plan = json.loads(call("explain", *small, "--json").stdout)
    said = call("report", account["record"])
    assert said.stdout == "ndvi.png.run.html\n", said.stderr
    page = (tmp_path / "ndvi.png.run.html").read_text()
    planned = f"{plan['requests']:,} + {account['headers']:,} headers"
    assert f"<td class='n'>{planned}</td><td class='n'>{account['requests']:,}</td>" in page
    assert account["requests"] == plan["requests"] + account["headers"]
    png = base64.b64encode((tmp_path / "ndvi.png").read_bytes()).decode()
    assert png in page
    assert page.count("<path") == 2
    assert page.count("<circle") == 2
    links = set(re.findall(r"(?:src|href)='([^']{9})", page))
    assert links == {"data:imag"}  # nothing from elsewhere
    # What is gone is missed, not fatal.
    call("collections", "delete", "ndvi-median", "--yes")
    (tmp_path / "ndvi.png").unlink()
    assert call("report", account["record"], "--output", "again.html").exit_code == 0
    again = (tmp_path / "again.html").read_text()
    assert "no plan to compare with" in again
    assert "is not shown" in again
    assert call("report", "nothing.json").exit_code == 1


def test_collections_of_the_workspace(call, small, tmp_path):
    call("run", *small)
    listed = json.loads(call("collections", "list", "--json").stdout)
    assert list(listed) == ["ndvi-median"]
    assert listed["ndvi-median"].startswith("2 items, 2023-07-03")
    assert json.loads(call("collections", "info", "ndvi-median", "--json").stdout)["items"] == 2
    assert call("collections", "delete", "ndvi-median").exit_code == 1  # asked, and nobody answers
    gone = call("collections", "delete", "ndvi-median", "--yes", "--json")
    assert json.loads(gone.stdout) == {"deleted": str(tmp_path / "workspace" / "ndvi-median")}
    assert call("collections", "list").stdout == ""


def test_append(call, small, tmp_path):
    call("run", *small)
    assert json.loads(call("append", "ndvi-median", "--json").stdout)["added"] == 0
    dates = ("2023-07-03", "2023-07-08")
    write_demo_catalog(tmp_path / "scenes", size=64, dates=dates, blocksize=128)
    said = json.loads(call("append", "ndvi-median", "--refresh", "--json").stdout)
    assert (said["added"], said["items"]) == (2, 4)
    assert json.loads(call("info", "ndvi-median", "--json").stdout)["items"] == 4


def test_export_and_sample(call, small, tmp_path):
    call("run", *small)
    call("export", "ndvi-median", "plain", "--partition-by", "year")
    rows = pyarrow.dataset.dataset(tmp_path / "plain", partitioning="hive").to_table()
    assert rows.num_rows == 2
    points = geopandas.GeoSeries([shapely.Point(12.0, 47.2)], crs="EPSG:4326")
    points.to_file(tmp_path / "p.geojson", driver="GeoJSON")
    said = call("sample", "ndvi-median", "p.geojson", "s.parquet", "--band", "B04")
    assert said.stdout == "s.parquet\n", said.stderr
    assert pyarrow.parquet.read_table(tmp_path / "s.parquet").num_rows == 2


def test_a_catalogue_of_ones_own(call, tmp_path, monkeypatch):
    monkeypatch.setenv("RASTERET_DASK_CATALOG", str(tmp_path / "own.yaml"))
    text = "datasets: {me/mine: {title: Mine, static_catalog: c.json, bands: {red: {}}}}"
    (tmp_path / "new.yaml").write_text(text)
    assert call("datasets", "register", "new.yaml").stdout == "me/mine\n"
    assert "me/mine" in json.loads(call("datasets", "list", "--json").stdout)
    assert call("datasets", "unregister", "me/mine").exit_code == 0
    assert "me/mine" not in call("datasets", "list").stdout


def test_cluster_check(call, tmp_path):
    assert "local" in call("cluster", "list").stdout.split()
    assert json.loads(call("cluster", "check", "threads", "--json").stdout)["kind"] == "threads"
    (tmp_path / "c.yaml").write_text("{kind: local, workers: 2, threads: 1, processes: false}")
    found = json.loads(call("cluster", "check", "c.yaml", "--json").stdout)
    assert (found["workers"], found["threads"], found["differing"]) == (2, 2, [])


def test_the_version(call):
    assert call("--version").stdout.strip() == version("rasteret-dask")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(call):
    plain, told = call("run", "nothing"), call("run", "nothing", "--debug")
    assert plain.exit_code == told.exit_code == 2
    assert "Traceback" in told.stderr
    assert "Traceback" not in plain.stderr
    assert told.stderr.endswith(plain.stderr)


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
    with progress.progress_shown() as shown:
        assert isinstance(shown, progress.PlainProgress)
        shown.stage("collection")
        shown.update(1, 5)
        shown.stage("compute")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in lines] == ["collection", "compute"]


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_bars_where_it_can_draw_them(monkeypatch, widgets):
    monkeypatch.setattr(progress, "Console", partial(Console, force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", {"ipywidgets": widgets or None}.get)
    kind = progress.BarProgress if widgets else progress.PlainProgress
    with warnings.catch_warnings(), progress.progress_shown() as shown:
        warnings.simplefilter("ignore", UserWarning)  # rich misses ipywidgets indeed
        assert isinstance(shown, kind)


def test_bars_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.progress_shown() as shown:
        assert isinstance(shown, progress.BarProgress)
        shown.stage("collection")
        shown.update(3, 5)
        shown.stage("compute")
        shown.update(7, 9)
    assert "compute" in capsys.readouterr().err


def test_resources():
    assert resources.find("ndvi_median", "pipelines").name == "ndvi_median.yaml"
    assert resources.find("ndvi_median.yaml", "pipelines").is_file()
    assert "local" in resources.names("configs/clusters")
    with pytest.raises(ConfigError, match="lacks"):
        resources.folder("no-such-folder")


MISSPELT = """\
version: 1
collection: {load: nothing}
cube:
  bandz: [B04, B08]
steps:
  - expresion: {ndvi: "(B8 - B04) / (B08 + B04)"}
  - reduce: {how: medain, dim: time}
outputs:
  - cog: ndvi.tif
"""


def test_what_is_misspelt_is_said_with_its_line_and_what_was_meant(call, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(MISSPELT)
    said = call("validate", "p.yaml")
    assert said.exit_code == 2
    assert said.stderr.startswith("error: p.yaml:4: unknown key (did you mean 'bands'?)")
    assert "steps[0] (line 6)" in said.stderr
    assert "did you mean 'expression'?" in said.stderr
    assert "steps[1].reduce.how (line 7)" in said.stderr
    assert "did you mean 'median'?" in said.stderr
    file.write_text(MISSPELT.replace("bandz", "bands").replace("expresion", "expression"))
    assert call("validate", "p.yaml").stderr.startswith("error: p.yaml:7: must be")
    # What makes no sense together, and what --set says, which stands on no line.
    sound = MISSPELT.replace("bandz", "bands").replace("expresion", "expression")
    file.write_text(sound.replace("medain", "median"))
    for command in ("validate", "run", "explain"):
        assert call(command, "p.yaml").stderr.startswith("error: p.yaml:6: 'B8'")
    over = call("validate", "p.yaml", "--set", "steps[0].expression.ndvi=B9")
    assert over.stderr.startswith("error: 'B9'")
    assert "did you mean 'ndvi_median'?" in call("run", "ndvi_medain").stderr
