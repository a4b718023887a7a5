"""Stores with holes, mended: the same files as on a calm day, and nothing read again but what was missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from test_stores import s3
from typer.testing import CliRunner

import rasteret_dask as rd
from rasteret_dask.cli.app import app
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.errors import ArgumentError, PipelineError, RunInterruptedError
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.pipeline import config, foreach
from rasteret_dask.pipeline.run import run
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import Fault, RangeServer
from rasteret_dask.write.zarr import write_zarr

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")
QUICK = StorageOptions(retry=RetryPolicy(attempts=2, base=0.001, cap=0.002, stall=1.0))
MASK = {"band": "SCL", "keep": [4, 5, 6, 7], "dilate": 60.0}
GONE = [
    Fault("status", match="*/B04.tif", status=404, rate=0.1, seed=8),
    Fault("corrupt", match="*/SCL.tif", rate=0.1, seed=1),
]
ONE_ZONE = {"proj_epsg": 32632}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=384, blocksize=128, dates=DATES)
    with RangeServer(folder) as found:
        yield found


@pytest.fixture
def server(running: RangeServer) -> Iterator[RangeServer]:
    running.configure(faults=[], latency=0.0)
    yield running
    running.configure(faults=[], latency=0.0)


@pytest.fixture
def workspace(server: RangeServer, tmp_path: Path) -> Path:
    rd.build(
        "earthsearch/sentinel-2-l2a",
        static_catalog=f"{server.url}/catalog.json",
        name="demo",
        workspace_dir=tmp_path / "workspace",
    )
    return tmp_path / "workspace"


def holey(
    server: RangeServer, workspace: Path, faults: list[Fault] = GONE, **how: Any
) -> tuple[rd.Collection, xr.Dataset, xr.Dataset]:
    """The collection, a cube of a calm day, and one that is read on a bad one."""
    collection = rd.load(workspace / "demo")
    how = {"storage": QUICK, **how}
    calm = collection.get_xarray(**how)
    server.configure(faults=faults)
    bad = collection.get_xarray(**how, on_error="record", ledger=str(workspace / "ledger"))
    return collection, calm, bad


def files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def values(store: Path) -> dict[str, bytes]:
    """What is in the arrays, without the group's own words (xarray keeps the run's id there)."""
    return {name: data for name, data in files(store).items() if "zarr.json" not in name}


@pytest.mark.parametrize("writer", ["write_zarr", "to_zarr"])
def test_a_plain_cube(server: RangeServer, workspace: Path, tmp_path: Path, writer: str) -> None:
    """Chunks are tiles here, so each tile that failed is one request of the repair, and no other is."""
    how = {"bands": ["B04", "B08"], "groupby": "id", "chunks": "tile", **ONE_ZONE}
    faults = [Fault("status", match="*/B04.tif", status=404, rate=0.2, seed=3)]
    _, calm, bad = holey(server, workspace, faults, fill_value=0, **how)
    for cube, name in ((bad, "out.zarr"), (calm, "calm.zarr")):
        if writer == "write_zarr":
            write_zarr(cube, tmp_path / name)
        else:
            cube.to_zarr(tmp_path / name, zarr_format=3, consolidated=False)
        server.configure(faults=[])
    missing = read_ledger(str(workspace / "ledger"), bad.attrs["rasteret_run"])
    assert 3 < len(missing) < 20
    assert values(tmp_path / "out.zarr") != values(tmp_path / "calm.zarr")
    server.reset()
    done = rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr")
    seen = server.counters()
    assert done.holes == done.computed == done.requests == seen.requests == len(missing)
    assert {path.rpartition("/")[2] for path in seen.paths} == {"B04.tif"}
    assert done.failures == 0
    assert values(tmp_path / "out.zarr") == values(tmp_path / "calm.zarr")
    if writer == "write_zarr":
        assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")
    again = rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr")
    assert (again.holes, again.regions, again.requests) == (0, 0, 0)
    assert server.counters().requests == seen.requests


def test_encoded_stores_are_mended_as_they_are_encoded(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    """Packed integers, another fill value, chunks that are not the cube's: only what lies under the tiles is put."""
    how = {"bands": ["B04"], "groupby": "solar_day", "masked": True, **ONE_ZONE}
    faults = [Fault("corrupt", match="*/B04.tif", rate=0.6, seed=4)]
    _, calm, bad = holey(server, workspace, faults, chunks={"time": 1, "y": -1, "x": -1}, **how)
    packed = {"dtype": "int16", "_FillValue": -1, "scale_factor": 2.0, "chunks": (1, 48, 64)}
    for cube, name in ((bad, "out.zarr"), (calm, "calm.zarr")):
        cube.to_zarr(tmp_path / name, zarr_format=2, encoding={"B04": packed})
        server.configure(faults=[])
    holes = len(read_ledger(str(workspace / "ledger"), bad.attrs["rasteret_run"]))
    out, calm_files = tmp_path / "out.zarr", values(tmp_path / "calm.zarr")
    differing = {n for n, data in values(out).items() if calm_files.get(n) != data}
    assert any(name.startswith("B04/") for name in differing)
    done = rd.repair(bad.attrs["rasteret_record"], out)
    # A tile of 128 pixels lies in four rows of chunks at most, and in two columns of them; the cube's own chunk holds 48.
    assert holes <= done.regions <= 8 * holes < 3 * 48
    assert {n: d for n, d in values(out).items() if n.startswith("B04/") and ".z" not in n} == {
        n: d for n, d in calm_files.items() if n.startswith("B04/") and ".z" not in n
    }


def median(cube: xr.Dataset) -> xr.Dataset:
    return cube.median("time")


@pytest.mark.parametrize("resampling", [pytest.param("nearest", marks=pytest.mark.slow), "cubic"])
def test_a_masked_median(
    server: RangeServer, workspace: Path, tmp_path: Path, resampling: str
) -> None:
    """Over two zones, warped, with a mask that grows."""
    how = {"bands": ["B04"], "groupby": "solar_day", "masked": True, "scale": True, "mask": MASK}
    how |= {"chunks": {"time": -1, "y": 72, "x": 72}, "resampling": resampling}
    faults = [
        Fault("status", match="*20230703*/B04.tif", status=404, rate=0.2, seed=8),
        Fault("corrupt", match="*20230708*/SCL.tif", rate=0.1, seed=3),
    ]
    _, calm, bad = holey(server, workspace, faults, **how)
    written = write_zarr(median(bad), tmp_path / "out.zarr")
    server.configure(faults=[])
    server.reset()
    write_zarr(median(calm), tmp_path / "calm.zarr")
    whole = server.counters().requests
    assert files(tmp_path / "out.zarr") != files(tmp_path / "calm.zarr")
    rows = read_ledger(str(workspace / "ledger"), bad.attrs["rasteret_run"])
    assert {"B04", "SCL"} == set(rows["source_band"].to_pylist())
    with pytest.raises(ArgumentError, match="compute="):
        rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr")
    done = rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr", compute=median)
    assert 0 < done.computed == done.regions < written.regions
    assert 0 < done.requests < whole
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")


def test_what_still_fails_stays_written_down(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    how = {"bands": ["B04"], "groupby": "id", "chunks": "tile", "fill_value": 0, **ONE_ZONE}
    dates = [Fault("status", match=f"*{day}*/B04.tif", status=404) for day in ("0703", "0708")]
    _, calm, bad = holey(server, workspace, dates, **how)
    record, out = bad.attrs["rasteret_record"], tmp_path / "out.zarr"
    write_zarr(bad, out)
    # Half of what was missing is there again.
    server.configure(faults=dates[:1])
    first = rd.repair(record, out)
    assert 0 < first.failures < first.holes
    assert len(read_ledger(first.ledger, first.run)) == first.failures
    assert len(read_ledger(first.ledger, bad.attrs["rasteret_run"])) == first.holes  # it stays
    server.configure(faults=[])
    second = rd.repair(record, out)
    assert (second.holes, second.failures) == (first.failures, 0)
    assert second.requests == first.failures
    write_zarr(calm, tmp_path / "calm.zarr")
    assert files(out) == files(tmp_path / "calm.zarr")
    # Another store of the same cube has its own count.
    server.configure(faults=dates)
    write_zarr(bad, tmp_path / "other.zarr")
    server.configure(faults=[])
    assert rd.repair(record, tmp_path / "other.zarr").holes >= first.holes
    assert files(tmp_path / "other.zarr") == files(out)


def test_the_snapshot_is_pinned_and_so_is_the_choice(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    collection = rd.load(workspace / "demo").subset(cloud_cover_lt=101)
    how = {"bands": ["B04"], "groupby": "solar_day", "masked": True, "storage": QUICK, **ONE_ZONE}
    how |= {"chunks": {"time": -1, "y": 96, "x": 96}}
    calm = collection.get_xarray(**how)
    server.configure(faults=GONE)
    ledger = str(workspace / "ledger")
    bad = collection.get_xarray(**how, on_error="record", ledger=ledger)
    write_zarr(bad, tmp_path / "out.zarr")
    server.configure(faults=[])
    write_zarr(calm, tmp_path / "calm.zarr")
    more = write_demo_catalog(tmp_path / "more", size=384, blocksize=128, dates=("2023-07-06",))
    found = pystac.Catalog.from_file(more).get_items(recursive=True)
    now = rd.load(workspace / "demo").append([i.make_asset_hrefs_absolute() for i in found])
    assert len(now) == 8
    assert now.get_xarray(**how).sizes["time"] == 4
    done = rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr")
    assert done.regions > 0
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")


KILLED = """
import sys
import rasteret_dask as rd
rd.repair(sys.argv[1], sys.argv[2])
"""


def test_a_repair_that_is_killed_goes_on(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    how = {"bands": ["B04"], "groupby": "id", "chunks": "tile", "fill_value": 0, **ONE_ZONE}
    faults = [Fault("status", match="*/B04.tif", status=404)]
    _, calm, bad = holey(server, workspace, faults, **how)
    record, out = bad.attrs["rasteret_record"], tmp_path / "out.zarr"
    regions = write_zarr(bad, out).regions
    server.configure(faults=[], latency=0.2)
    repairing = subprocess.Popen([sys.executable, "-c", KILLED, record, str(out)])
    markers = Path(f"{out}.repair")
    while len(list(markers.glob("*.done"))) < 4:
        assert repairing.poll() is None
        time.sleep(0.01)
    repairing.send_signal(signal.SIGKILL)
    repairing.wait()
    there = len(list(markers.glob("*.done")))
    assert 4 <= there < regions
    server.configure(latency=0.0)
    server.reset()
    done = rd.repair(record, out)
    assert (done.regions, done.computed) == (regions, regions - there)
    assert server.counters().requests == done.requests == regions - there
    assert not markers.exists()
    write_zarr(calm, tmp_path / "calm.zarr")
    assert files(out) == files(tmp_path / "calm.zarr")


@pytest.mark.slow
def test_on_a_cluster(server: RangeServer, workspace: Path, tmp_path: Path) -> None:
    how = {"bands": ["B04"], "groupby": "solar_day", "masked": True, "mask": MASK}
    how |= {"chunks": {"time": -1, "y": 96, "x": 96}}
    with open_profile(Local(kind="local", workers=2, threads=1)):
        _, calm, bad = holey(server, workspace, FEW, **how)
        write_zarr(median(bad), tmp_path / "out.zarr")
        server.configure(faults=[])
        write_zarr(median(calm), tmp_path / "calm.zarr")
        server.reset()
        done = rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr", compute=median)
    assert done.requests == server.counters().requests > 0
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3() as store:
        for name, value in {
            "AWS_ENDPOINT_URL": store.storage.options["endpoint"],
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket"


@pytest.mark.slow
def test_ledger_record_and_store_in_a_bucket(
    server: RangeServer, workspace: Path, bucket: str
) -> None:
    collection = rd.load(workspace / "demo")
    how = {"bands": ["B04"], "groupby": "id", "chunks": "tile", "fill_value": 0, **ONE_ZONE}
    calm = collection.get_xarray(**how, storage=QUICK)
    server.configure(faults=[Fault("status", match="*0703*/B04.tif", status=404)])
    ledger = f"{bucket}/ledger"
    bad = collection.get_xarray(**how, storage=QUICK, on_error="record", ledger=ledger)
    write_zarr(bad, f"{bucket}/out.zarr")
    holes = len(read_ledger(ledger, bad.attrs["rasteret_run"]))
    assert holes == 9
    assert bad.attrs["rasteret_record"].startswith(f"{ledger}/2")
    server.configure(faults=[])
    assert rd.repair(bad.attrs["rasteret_record"], f"{bucket}/out.zarr").computed == holes
    mended = xr.open_zarr(f"{bucket}/out.zarr", mask_and_scale=False)
    assert np.array_equal(mended.B04, calm.B04)
    assert rd.repair(bad.attrs["rasteret_record"], f"{bucket}/out.zarr").holes == 0


# --- pipelines -----------------------------------------------------------------------------------
SLOW = """
import itertools, os

passed = itertools.count()

def gate(block):
    if os.path.exists(os.environ["GATE"]) and next(passed) > 20:
        raise RuntimeError("the gate is shut")
    return block

def gated(ds):
    return ds.map(lambda a: a.copy(data=a.data.map_blocks(gate, dtype=a.dtype, meta=a.data._meta)))
"""


def pipeline(workspace: Path, folder: Path, name: str, **changes: Any) -> config.Pipeline:
    cube = {
        "bands": ["B04", "B08"],
        "groupby": "solar_day",
        "scale": True,
        "mask": MASK,
        "chunks": {"time": -1, "y": 96, "x": 96},
    }
    said = {
        "version": 1,
        "collection": {"load": str(workspace / "demo")},
        "cube": cube | changes.pop("cube", {}),
        "steps": [
            {"expression": {"ndvi": "(B08 - B04) / (B08 + B04)"}},
            {"reduce": {"how": "median", "looks": "looks"}},
        ],
        "outputs": [
            {"cog": str(folder / f"{name}.tif"), "bands": ["ndvi"]},
            {"zarr": str(folder / f"{name}.zarr")},
        ],
        "record": str(folder / f"{name}.json"),
    }
    return config.from_mapping({**said, **changes})


RECORDING = {"on_error": "record"}
FEW = [
    Fault("status", match="*20230703*/B0?.tif", status=404, rate=0.1, seed=8),
    Fault("corrupt", match="*20230708*/SCL.tif", rate=0.1, seed=3),
]


def test_a_pipeline_from_its_record(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    server.configure(faults=FEW)
    account = run(pipeline(workspace, tmp_path, "out", cube=ledger))
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["state"] == "done"
    assert said["failures"] == account.failures > 5
    assert len(read_ledger(said["ledger"]["url"], said["ledger"]["run"])) == account.failures
    server.configure(faults=[])
    server.reset()
    calm = run(pipeline(workspace, tmp_path, "calm"))
    with pytest.raises(PipelineError, match="kept no ledger"):
        rd.repair(tmp_path / "calm.json")
    assert files(tmp_path / "out.zarr") != files(tmp_path / "calm.zarr")
    result = call("repair", str(tmp_path / "out.json"), "--json")
    assert result.exit_code == 0, result.stderr
    done = json.loads(result.stdout)
    assert done["holes"] == account.failures
    assert 0 < done["regions"] < account.regions
    assert 0 < done["requests"] < calm.requests
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")
    with rasterio.open(tmp_path / "out.tif") as one, rasterio.open(tmp_path / "calm.tif") as two:
        assert np.array_equal(one.read(), two.read(), equal_nan=True)
    assert json.loads((tmp_path / "out.json").read_text())["failures"] == 0
    assert json.loads(call("repair", str(tmp_path / "out.json"), "--json").stdout)["requests"] == 0
    # A run that is resumed after its repair has nothing to do.
    assert run(pipeline(workspace, tmp_path, "out", cube=ledger), resume=True).reused


@pytest.mark.slow
def test_holes_that_stay_make_the_exit_code_1(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    server.configure(faults=FEW)
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    run(pipeline(workspace, tmp_path, "out", cube=ledger))
    result = call("repair", str(tmp_path / "out.json"))
    assert result.exit_code == 1
    assert "tiles still fail" in result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["failures"] > 0


def test_a_run_that_goes_on_keeps_the_holes_of_what_was_done(
    server: RangeServer, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gated_step.py").write_text(SLOW)
    (tmp_path / "gate").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    gate = {"custom": {"function": "gated_step:gated", "variables": ["ndvi", "looks"]}}
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    steps = [
        *pipeline(workspace, tmp_path, "x").model_dump(mode="json", exclude_none=True)["steps"],
        {**gate, "custom": {**gate["custom"], "time": False}},
    ]

    def made(name: str, **cube: Any) -> config.Pipeline:
        outputs = [{"zarr": str(tmp_path / f"{name}.zarr")}]
        return pipeline(workspace, tmp_path, name, steps=steps, outputs=outputs, cube=cube)

    server.configure(faults=FEW)
    with pytest.raises(RuntimeError, match="gate"):
        run(made("out", **ledger), allow_custom=True)
    before = json.loads((tmp_path / "out.json").read_text())
    assert before["state"] == "failed"
    with pytest.raises(PipelineError, match="--resume first"):
        rd.repair(tmp_path / "out.json", allow_custom=True)
    (tmp_path / "gate").unlink()
    account = run(made("out", **ledger), allow_custom=True, resume=True)
    after = json.loads((tmp_path / "out.json").read_text())
    assert after["ledger"] == before["ledger"]
    assert account.computed < account.regions
    server.configure(faults=[])
    run(made("calm"), allow_custom=True)
    assert files(tmp_path / "out.zarr") != files(tmp_path / "calm.zarr")
    rd.repair(tmp_path / "out.json", allow_custom=True)
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")


def districts(path: Path, count: int = 2) -> Path:
    squares = [shapely.box(11.99 + n * 0.01, 47.2, 12.0 + n * 0.01, 47.21) for n in range(count)]
    frame = geopandas.GeoDataFrame({"code": list("abc"[:count])}, geometry=squares, crs=4326)
    frame.to_parquet(path)
    return path


def test_units_of_a_table_are_mended_by_their_records(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    table = districts(tmp_path / "districts.parquet")
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger"), "crs": "EPSG:32632"}
    each = {"table": str(table), "id": "code"}

    def made(name: str, cube: dict[str, Any]) -> config.Pipeline:
        outputs = [{"zarr": str(tmp_path / name / "{code}.zarr")}]
        record = str(tmp_path / name / "{code}.json")
        changes = {"foreach": each, "outputs": outputs, "record": record, "cube": cube}
        return pipeline(workspace, tmp_path, name, **changes)

    server.configure(faults=[Fault("status", match="*20230703*/B0?.tif", status=404)])
    told = foreach.run_each(made("out", ledger))
    assert all(u.account is not None and u.account.failures > 0 for u in told.units)
    server.configure(faults=[])
    foreach.run_each(made("calm", {"crs": "EPSG:32632"}))
    records = [unit.record for unit in told.units]
    result = call("repair", *records, "--json")
    assert result.exit_code == 0, result.stderr
    assert all(one["regions"] > 0 for one in json.loads(result.stdout)["repairs"])
    for code in "ab":
        out, calm = (tmp_path / name / f"{code}.zarr" for name in ("out", "calm"))
        assert files(out) == files(calm)


def lose(dataset: xr.Dataset) -> xr.Dataset:
    raise RunInterruptedError("the cluster is gone")


def test_a_lost_cluster_ends_all_units(
    server: RangeServer, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    each = {"table": str(districts(tmp_path / "d.parquet")), "id": "code"}
    custom = {"function": "test_repair:lose", "variables": ["ndvi"], "time": False}
    changes = {"record": str(tmp_path / "{code}.json"), "steps": [{"custom": custom}]}
    outputs = [{"zarr": str(tmp_path / "{code}.zarr")}]
    made = pipeline(workspace, tmp_path, "x", foreach=each, outputs=outputs, **changes)
    with pytest.raises(Exception, match="cluster is gone") as caught:
        foreach.run_each(made, allow_custom=True)
    assert type(caught.value).__name__ == "RunInterruptedError"
    assert json.loads((tmp_path / "a.json").read_text())["state"] == "interrupted"
    assert not (tmp_path / "b.json").exists()


def test_a_run_of_what_is_no_more_is_not_mended(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    field = districts(tmp_path / "field.parquet", 1)
    cube = {**RECORDING, "ledger": str(tmp_path / "ledger"), "geometries": str(field)}
    server.configure(faults=[Fault("status", match="*20230703*/B04.tif", status=404)])
    run(pipeline(workspace, tmp_path, "out", cube=cube))
    flat = [{"cog": str(tmp_path / "flat.tif"), "bands": ["ndvi"]}]
    run(pipeline(workspace, tmp_path, "flat", cube=cube, outputs=flat))
    server.configure(faults=[])
    with pytest.raises(PipelineError, match="Zarr store of all variables"):
        rd.repair(tmp_path / "flat.json")
    with pytest.raises(ArgumentError, match="takes no target"):
        rd.repair(tmp_path / "out.json", tmp_path / "out.zarr")
    before = field.read_bytes()
    districts(field, 2)
    with pytest.raises(ArgumentError, match="another one by now"):
        rd.repair(tmp_path / "out.json")
    field.write_bytes(before)
    shutil.move(workspace / "demo", tmp_path / "away")
    with pytest.raises(ArgumentError, match="no more"):
        rd.repair(tmp_path / "out.json")
    shutil.move(tmp_path / "away", workspace / "demo")
    assert rd.repair(tmp_path / "out.json").regions > 0


# --- refusals ------------------------------------------------------------------------------------
def brightest(items: np.ndarray) -> np.ndarray:
    return np.nanmax(items, axis=0)


def test_what_cannot_be_mended_is_refused_and_nothing_is_touched(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    how = {"bands": ["B04"], "groupby": "solar_day", "masked": True, "chunks": "tile", **ONE_ZONE}
    collection, _, bad = holey(server, workspace, mosaic=brightest, **how)
    record, out = bad.attrs["rasteret_record"], tmp_path / "out.zarr"
    write_zarr(bad, out)
    before = files(out)
    server.configure(faults=[])
    with pytest.raises(ArgumentError, match=r"repair\(…, mosaic=…\)"):
        rd.repair(record, out)
    with pytest.raises(ArgumentError, match="target="):
        rd.repair(record)
    with pytest.raises(ArgumentError, match="no whole Zarr store"):
        rd.repair(record, tmp_path / "elsewhere.zarr", mosaic=brightest)
    with pytest.raises(ArgumentError, match="stay lazy"):
        rd.repair(record, out, compute=lambda ds: ds.compute(), mosaic=brightest)
    with pytest.raises(ArgumentError, match="coordinates differ"):
        rd.repair(record, out, compute=lambda ds: ds.isel(y=slice(10, None)), mosaic=brightest)
    with pytest.raises(PipelineError, match="no record"):
        rd.repair(tmp_path / "nothing.json", out)
    assert files(out) == before
    assert rd.repair(record, out, mosaic=brightest).failures == 0
    # What lies in no workspace is handed over.
    loose = rd.as_collection(collection.subset(**ONE_ZONE).to_table(), storage=QUICK)
    ledger = str(workspace / "ledger")
    server.configure(faults=GONE)
    again = {"bands": ["B04"], "masked": True, "chunks": "tile"}
    cube = loose.get_xarray(**again, on_error="record", ledger=ledger)
    write_zarr(cube, out)
    server.configure(faults=[])
    with pytest.raises(ArgumentError, match="collection="):
        rd.repair(cube.attrs["rasteret_record"], out)
    with pytest.raises(ArgumentError, match="not that of the run"):
        rd.repair(cube.attrs["rasteret_record"], out, collection=collection)
    assert rd.repair(cube.attrs["rasteret_record"], out, collection=loose).regions > 0
    assert os.listdir(workspace / "ledger")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))
