"""Tiles that fail under ``on_error="record"``: every hole is a row of the ledger, every other pixel is right."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.model import Ledger, RetryPolicy, StorageOptions
from rasteret_dask.read.ledger import new_run, read_ledger, write_part
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import Fault, RangeServer

QUICK = StorageOptions(retry=RetryPolicy(attempts=2, base=0.001, cap=0.002, stall=1.0))
MASK = {"band": "scl", "keep": [4, 5, 6, 7], "dilate": 60.0}
CUBES: dict[str, dict[str, Any]] = {
    "as the files are": {"groupby": "id", "fill_value": 0},
    "masked": {"groupby": "solar_day", "masked": True, "scale": True, "mask": MASK},
    "warped": {
        "groupby": "solar_day",
        "masked": True,
        "crs": "EPSG:3857",
        "resampling": "bilinear",
    },
    "shrunk": {
        "groupby": "solar_day",
        "masked": True,
        "resolution": 30,
        "resampling": "cubic",
        "overviews": "off",
    },
    "shrunk and warped": {
        "groupby": "solar_day",
        "masked": True,
        "crs": "EPSG:3857",
        "resolution": 40,
        "resampling": "average",
        "overviews": "off",
        "mask": MASK,
    },
    "stretched": {"groupby": "id", "masked": True, "resolution": 7, "mask": MASK},
}
ODD = {"time": 2, "y": 100, "x": 170}
FAULTS = {
    "undecodable": [Fault("corrupt", match="*/B04.tif", rate=0.3, seed=5)],
    "gone": [Fault("status", match="*/B04.tif", status=404, rate=0.3, seed=6)],
    "busy for ever": [Fault("status", match="*/B04.tif", status=503, rate=0.6, seed=7)],
    "mask undecodable": [Fault("corrupt", match="*/SCL.tif", rate=0.5, seed=9)],
    "mask gone": [Fault("status", match="*/SCL.tif", status=404, rate=0.4, seed=8)],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=384, blocksize=128)
    with RangeServer(folder) as found:
        yield found


@pytest.fixture(scope="module")
def collection(running: RangeServer, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    return rd.build_from_stac(
        static_catalog=f"{running.url}/catalog.json",
        name="demo",
        bands=["red", "scl"],
        workspace_dir=tmp_path_factory.mktemp("workspace"),
    )


@pytest.fixture
def server(running: RangeServer, collection: rd.Collection) -> Iterator[RangeServer]:
    running.configure(faults=[])
    yield running
    running.configure(faults=[])


def boxes(run: Any, cube: xr.Dataset) -> np.ndarray:
    inside = np.zeros(cube.red.shape, dtype=bool)
    for row in run.to_pylist():
        inside[row["step"], row["row0"] : row["row1"], row["col0"] : row["col1"]] = True
    return inside


SIMPLE = ("as the files are", "masked", "warped")
CASES = [
    (kind, fault, ODD)
    for kind in SIMPLE
    for fault in FAULTS
    if "mask" not in fault or kind == "masked"
]
CASES += [
    ("shrunk", "gone", ODD),
    ("shrunk and warped", "gone", ODD),
    ("shrunk and warped", "mask gone", ODD),
    ("stretched", "mask gone", ODD),
]


@pytest.mark.parametrize(
    ("kind", "fault", "chunks"),
    [
        *CASES,
        ("as the files are", "gone", "auto"),
        ("masked", "mask gone", "auto"),
    ],
)
def test_every_hole_has_its_row(
    server: RangeServer,
    collection: rd.Collection,
    tmp_path: Path,
    kind: str,
    fault: str,
    chunks: Any,
) -> None:
    how = {"bands": ["red"], "chunks": chunks, "storage": QUICK, **CUBES[kind]}
    calm = collection.get_xarray(**how).compute()
    server.configure(faults=FAULTS[fault])
    with pytest.raises(errors.RasteretError):
        collection.get_xarray(**how).compute()
    server.configure(faults=FAULTS[fault])
    cube = collection.get_xarray(**how, on_error="record", ledger=str(tmp_path / "ledger"))
    found = cube.compute()
    rows = read_ledger(str(tmp_path / "ledger"), cube.attrs["rasteret_run"])
    assert len(rows)
    assert set(rows["source_band"].to_pylist()) == {"scl" if "mask" in fault else "red"}
    gap = found.red.isnull().values if kind != "as the files are" else (found.red == 0).values
    a, b = found.red.values, calm.red.values
    differs = ~((a == b) | ((a != a) & (b != b)))
    inside = boxes(rows, cube)
    assert differs.any()
    assert not (differs & ~inside).any(), "a pixel is wrong and the ledger does not say so"
    if kind == "as the files are":  # elsewhere the next item of the step fills the hole
        assert not (differs & ~gap).any(), "a pixel is neither right nor nodata"
    server.configure(faults=[])
    again = collection.get_xarray(**how, on_error="record", ledger=str(tmp_path / "ledger"))
    assert again.attrs["rasteret_run"] != cube.attrs["rasteret_run"]
    assert again.red.data.name != cube.red.data.name
    assert np.array_equal(again.compute().red.values, b, equal_nan=b.dtype.kind == "f")
    assert not len(read_ledger(str(tmp_path / "ledger"), again.attrs["rasteret_run"]))


def test_on_a_cluster_the_rows_are_there_before_the_pixels(
    server: RangeServer, collection: rd.Collection, tmp_path: Path
) -> None:
    server.configure(faults=[Fault("status", match="*/B04.tif", status=404)])
    cube = collection.get_xarray(
        bands=["red"], groupby="id", fill_value=0, on_error="record", ledger=str(tmp_path)
    )
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        first = cube.red[0].compute()
        rows = read_ledger(str(tmp_path), cube.attrs["rasteret_run"])
    assert not first.values.any()
    assert set(rows["step"].to_pylist()) == {0}
    assert set(rows["error"].to_pylist()) == {"NotFoundError"}
    assert rows["url"][0].as_py().endswith("B04.tif")
    assert len(rows) == 9
    assert pickle.dumps(cube.__dask_graph__())


def test_a_ledger_that_cannot_be_written_fails_the_read(
    server: RangeServer, collection: rd.Collection, tmp_path: Path
) -> None:
    server.configure(faults=[Fault("status", match="*/B04.tif", status=404)])
    how = {"bands": ["red"], "groupby": "id", "fill_value": 0, "on_error": "record"}
    cube = collection.get_xarray(**how, ledger=str(tmp_path / "ledger"))
    shutil.rmtree(tmp_path / "ledger")
    (tmp_path / "ledger").write_text("no directory")
    with pytest.raises(errors.CollectionError, match="ledger cannot be written"):
        cube.compute()
    # One that is there from the start is refused before anything is read.
    with pytest.raises(errors.CollectionError, match="ledger cannot be written"):
        collection.get_xarray(**how, ledger=str(tmp_path / "ledger"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on_error": "record"}, "go together"),
        ({"ledger": "x"}, "go together"),
        ({"on_error": "ignore"}, "must be 'raise' or 'record'"),
        ({"on_error": "record", "ledger": "x", "early_exit": True}, "exclude each other"),
        ({"on_error": "record", "ledger": "s3://b/x?sig=SECRET"}, "without user and query"),
    ],
)
def test_what_means_nothing(collection: rd.Collection, given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ArgumentError, match=words) as caught:
        collection.get_xarray(bands=["red"], fill_value=0, **given)
    assert "SECRET" not in str(caught.value)


def test_parts_are_never_overwritten_and_rows_told_once(tmp_path: Path) -> None:
    run = new_run(str(tmp_path))
    row = {"band": "red", "error": "X", "step": 0, "row0": 0, "row1": 1, "col0": 0, "col1": 1}
    for _ in range(3):  # a task that Dask runs again
        write_part(run, [row, {**row, "step": 1}])
    assert len(list((tmp_path / run.run).glob("*.parquet"))) == 3
    assert read_ledger(run.url, run.run)["step"].to_pylist() == [0, 1]
    assert len(read_ledger(run.url, "another")) == 0
    assert new_run(str(tmp_path)) != run
    assert isinstance(pickle.loads(pickle.dumps(run)), Ledger)
