"""Stores with holes, mended: the same files as on a calm day, and nothing read again but what was missing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
from holed import FEW, GONE, MASK, ONE_ZONE, QUICK, files, holey, values

import rasteret_dask as rd
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.errors import ArgumentError, PipelineError
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import Fault, RangeServer
from rasteret_dask.testing.stores import s3
from rasteret_dask.write.zarr import write_zarr


@pytest.mark.parametrize("writer", ["write_zarr", pytest.param("to_zarr", marks=pytest.mark.slow)])
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


def any_cube(rng: random.Random) -> tuple[dict[str, Any], Any]:
    """Arguments of a cube, and what is done with it."""
    how: dict[str, Any] = {
        "bands": rng.choice([["B04"], ["B04", "B08"]]),
        "groupby": rng.choice(["solar_day", "id"]),
        "masked": True,
        "resolution": rng.choice([None, 20, 35]),
        "crs": rng.choice([None, None, "EPSG:3857", "EPSG:32633"]),
        "resampling": rng.choice(["nearest", "bilinear", "cubic", "average", "mode", "max", "med"]),
        "mosaic": rng.choice(["first", "last", "mean", "max", "median"]),
    }
    if rng.random() < 0.7:
        how["mask"] = MASK | {"dilate": rng.choice([0.0, 20.0, 150.0])}
    if how["mosaic"] in ("first", "last"):
        how["mosaic_mask"] = rng.choice(["band", "all"])
    reduced = rng.random() < 0.5
    sides = [rng.choice([96, 128, 200]) for _ in range(2)]
    how["chunks"] = {"time": -1 if reduced else rng.choice([1, 2]), "y": sides[0], "x": sides[1]}
    return how, median if reduced else rng.choice([None, smooth])


def smooth(cube: xr.Dataset) -> xr.Dataset:
    return cube.rolling(y=3, center=True).mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_cube(server: RangeServer, workspace: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    how, compute = any_cube(rng)
    match = rng.choice(["*/B04.tif", "*/B0?.tif", "*/SCL.tif", "*.tif"])
    kind = rng.choice(["status", "corrupt"])
    faults = [Fault(kind, match=match, status=404, rate=0.1, seed=rng.randrange(1000))]
    _, calm, bad = holey(server, workspace, faults, **how)
    made = compute or (lambda cube: cube)
    write_zarr(made(bad), tmp_path / "out.zarr")
    server.configure(faults=[])
    write_zarr(made(calm), tmp_path / "calm.zarr")
    rd.repair(bad.attrs["rasteret_record"], tmp_path / "out.zarr", compute=compute)
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
