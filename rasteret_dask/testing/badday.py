"""A bad day at the server, work to do on it, and what tells whether the result is that of a calm day."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import xarray as xr

from rasteret_dask.api import build_from_stac
from rasteret_dask.collection import Collection
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.testing.server import Fault

FAULTS: Final = (
    Fault("status", match="*.tif", rate=0.20, retry_after=0.05),
    Fault("stall", match="*.tif", rate=0.05, seed=1),
    Fault("truncate", match="*.tif", rate=0.02, seed=2),
    Fault("reset", match="*.tif", rate=0.02, seed=3),
)
"""A fifth of the answers is 503, one in twenty stalls, one in fifty is cut off, one in fifty is dropped."""

RETRY: Final[dict[str, Any]] = {"attempts": 12, "base": 0.01, "cap": 0.5, "stall": 0.5}
PATIENT: Final = StorageOptions(retry=RetryPolicy(**RETRY))

BANDS: Final = ("red", "nir", "scl")
CUBE: Final[dict[str, Any]] = {
    "bands": ["red", "nir"],
    "groupby": "solar_day",
    "masked": True,
    "scale": True,
    "mask": {"band": "scl", "keep": [4, 5, 6, 7], "dilate": 60.0},
    "chunks": {"time": 1, "y": 128, "x": 128},
}


def build(url: str, workspace: Path, storage: StorageOptions = PATIENT) -> Collection:
    """Build the catalogue of :mod:`rasteret_dask.testing.catalog` that a server at `url` serves."""
    return build_from_stac(
        static_catalog=f"{url}/catalog.json",
        name="demo",
        bands=list(BANDS),
        workspace_dir=workspace,
        storage=storage,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A result.

    Parameters
    ----------
    digest : str
        SHA-256 of its bytes.
    count : int
        Rows with all headers, or pixels that are not nothing.
    """

    digest: str
    count: int


def files_of(workspace: Path) -> Found:
    """What readers see of the collections in a workspace."""
    total, count = hashlib.sha256(), 0
    for path in sorted(workspace.rglob("data/**/*.parquet")):
        total.update(path.relative_to(workspace).as_posix().encode() + path.read_bytes())
        table = pq.read_table(path, partitioning=None)
        bands = [table.column(name) for name in table.column_names if name.endswith("_metadata")]
        count += len(table) - max((band.null_count for band in bands), default=0)
    return Found(total.hexdigest(), count)


def values_of(cube: xr.Dataset) -> Found:
    """The values of a cube, coordinates included."""
    total, count = hashlib.sha256(), 0
    for name in sorted(map(str, cube.variables)):
        values = cube[name].values
        total.update(name.encode() + values.tobytes())
        if name in cube.data_vars and values.dtype.kind == "f":
            count += int(np.isfinite(values).sum())
    return Found(total.hexdigest(), count)
