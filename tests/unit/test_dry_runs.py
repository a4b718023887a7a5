"""What commands would do and read, said before they do it: held to what they then read."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

import rasteret_dask as rd
from rasteret_dask import repairs
from rasteret_dask.cli.app import app
from rasteret_dask.pipeline import forecast
from rasteret_dask.storage.counters import snapshot
from rasteret_dask.testing.catalog import write_demo_catalog

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")

pytestmark = pytest.mark.usefixtures("beginnings")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with scenes of two dates and a collection of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    write_demo_catalog(tmp_path / "scenes", size=256, dates=DATES[:2], blocksize=128)
    rd.build("earthsearch/sentinel-2-l2a", name="here", static_catalog="scenes/catalog.json")
    return tmp_path


def say(*arguments: str):
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def grid_of_points(n: int = 12) -> geopandas.GeoDataFrame:
    x, y = np.meshgrid(np.linspace(11.99, 12.02, n), np.linspace(47.19, 47.21, n))
    return geopandas.GeoDataFrame(geometry=shapely.points(x.ravel(), y.ravel()), crs="EPSG:4326")


def test_samples_read_what_was_foretold(here):
    collection, points = rd.load("here"), grid_of_points()
    before = snapshot()
    plan = forecast.of_samples(collection, points, ["B04", "B08"])
    assert snapshot() == before, "nothing is read"
    table = collection.sample_points(points, ["B04", "B08"])
    spent = snapshot() - before
    assert (plan["rows"], plan["points"]) == (table.num_rows, 144)
    assert plan["items"] == len(set(table.column("record_id").to_pylist()))
    assert (plan["requests"], plan["bytes"]) == (spent.requests, spent.bytes)
    assert plan["tiles"] >= plan["requests"] > 0


def test_the_command_samples_nothing(here):
    grid_of_points(2).to_file("p.geojson", driver="GeoJSON")
    before = files(here)
    plan = say("sample", "here", "p.geojson", "s.parquet", "--band", "B04", "--dry-run")
    assert plan["output"] == "s.parquet"
    assert files(here) == before


def test_an_append_reads_the_headers_that_were_foretold(here):
    assert say("append", "here", "--dry-run")["new"] == 0
    write_demo_catalog(here / "scenes", size=256, dates=DATES, blocksize=128)
    before = files(here / "workspace")
    plan = say("append", "here", "--dry-run")
    assert (plan["items"], plan["found"], plan["new"]) == (4, 6, 2)
    with_refresh = say("append", "here", "--refresh", "--dry-run")
    assert with_refresh["looked_at"] == 4 * 5
    assert files(here / "workspace") == before
    now = rd.load("here").append()
    assert now.report.headers == plan["files"] == 10
    assert now.report.requests == plan["requests"]


def test_an_export_is_refused_before_it_begins(here):
    plan = say("export", "here", "plain", "--dry-run")
    assert (plan["items"], plan["target"]) == (4, str(here / "plain"))
    assert not (here / "plain").exists()
    say("export", "here", "plain")
    refused = CliRunner().invoke(app, ["export", "here", "plain", "--dry-run"])
    assert refused.exit_code == 1
    assert "something already" in refused.stderr


@pytest.mark.parametrize("how", ["as it is", "computed"])
def test_a_repair_does_what_was_foretold(here, how):
    def made(cube):
        return cube if how == "as it is" else cube.median("time").chunk({"y": 128, "x": 128})

    lost = next(Path("scenes").glob("*33TTN_20230708*/B08.tif"))
    away = lost.rename(lost.with_suffix(".away"))
    collection = rd.load("here")
    chunks = {"time": 1, "y": 128, "x": 128}
    ways = {"groupby": "solar_day", "masked": True, "chunks": chunks, "crs": "EPSG:32633"}
    cube = collection.get_xarray(bands=["B04", "B08"], on_error="record", ledger="ledger", **ways)
    made(cube).to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    away.rename(lost)
    record = cube.attrs["rasteret_record"]
    compute = None if how == "as it is" else made
    before, there = snapshot(), files(here)
    plan = repairs.forecast(record, "cube.zarr", compute=compute)
    assert snapshot() == before, "nothing is read"
    assert files(here) == there, "nothing is written"
    assert plan.holes > 0
    done = rd.repair(record, "cube.zarr", compute=compute)
    assert done.failures == 0
    assert (plan.holes, plan.regions) == (done.holes, done.regions)
    assert (plan.requests, plan.bytes) == (done.requests, done.bytes)
    if how == "as it is":
        said = say("repair", record, "--target", "cube.zarr", "--dry-run")
        assert (said["holes"], said["regions"], said["requests"]) == (0, 0, 0)
