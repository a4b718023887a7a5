"""What xarray's engine refuses, and what it takes as `get_xarray` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.catalog import write_demo_catalog


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("engine")
    scenes = write_demo_catalog(where / "scenes", size=64, dates=("2023-07-03",), blocksize=128)
    rd.build("earthsearch/sentinel-2-l2a", name="c", static_catalog=scenes, workspace_dir=where)
    return where / "c"


@pytest.mark.parametrize(
    "how", [{"on_error": "record"}, {"ledger": "l"}, {"options": {"on_error": "record"}}]
)
def test_recorded_holes_are_refused_because_keys_would_not_tell_them(
    place: Path, how: dict[str, Any]
) -> None:
    with pytest.raises(ArgumentError, match="cannot record"):
        xr.open_dataset(place, engine="rasteret_dask", bands=["B04"], chunks={}, **how)
    xr.open_dataset(
        place, engine="rasteret_dask", bands=["B04"], on_error="raise", groupby="solar_day"
    )


def test_one_band_may_be_a_text(place: Path) -> None:
    how: dict[str, Any] = {"crs": "EPSG:32633", "groupby": "solar_day"}
    one = xr.open_dataset(place, engine="rasteret_dask", bands="B04", **how)
    assert list(one.data_vars) == ["B04"]
    expected = rd.load(place).get_xarray(bands="B04", **how)
    assert np.array_equal(one.B04.values, expected.B04.values)
