"""What tests of repairs share: a catalogue of tiles, a bad day, and files to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import rasteret_dask as rd
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.testing.server import Fault, RangeServer

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")
QUICK = StorageOptions(retry=RetryPolicy(attempts=2, base=0.001, cap=0.002, stall=1.0))
MASK = {"band": "SCL", "keep": [4, 5, 6, 7], "dilate": 60.0}
GONE = [
    Fault("status", match="*/B04.tif", status=404, rate=0.1, seed=8),
    Fault("corrupt", match="*/SCL.tif", rate=0.1, seed=1),
]
ONE_ZONE = {"proj_epsg": 32632}
FEW = [
    Fault("status", match="*20230703*/B0?.tif", status=404, rate=0.1, seed=8),
    Fault("corrupt", match="*20230708*/SCL.tif", rate=0.1, seed=3),
]


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
