"""What cubes say of themselves: what stands for nothing, properties of any type, and tables made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, NodataError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.write.zarr import write_zarr

AT = Affine(10, 0, 500_000.0, 0, -10, 5_200_000.0)


def scene(folder: Path, name: str, values: np.ndarray, **columns: Any) -> Scene:
    path = make_cog(
        folder / f"{name}.tif", values, transform=AT, blocksize=64, overviews=0, nodata=0
    )
    return Scene(name, {"v": path}, f"2023-07-0{int(name[-1]) + 1}T10:00:00", columns=columns)


@pytest.fixture
def two(tmp_path: Path) -> rd.Collection:
    full = np.ones((64, 64), "u2")
    gap = full.copy()
    gap[:10] = 0
    return collect(scene(tmp_path, "a0", full), scene(tmp_path, "a1", gap))


def test_a_masked_count_is_written_like_any_band(two: rd.Collection, tmp_path: Path) -> None:
    counted = two.get_xarray(masked=True, groupby="1MS", mosaic="count")
    assert counted.v.rio.nodata is None
    counted.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    write_zarr(counted, tmp_path / "b.zarr")
    for name in ("a.zarr", "b.zarr"):
        found = xr.open_zarr(tmp_path / name, consolidated=False).v.values[0]
        assert (found[:10] == 1).all()
        assert (found[10:] == 2).all()


def decoded(folder: Path, **how: Any) -> np.ndarray:
    values = np.full((64, 64), 127, "i1")
    values[:10] = -128
    path = make_cog(folder / "d.tif", values, transform=AT, blocksize=64, overviews=0, nodata=-128)
    told = rd.BandInfo("v", "v", nodata=-128, decode="alphaearth")
    found = replace(collect(Scene("d", {"v": path})), infos=(told,))
    return found.get_xarray(decode=True, **how).v.values[0]


def test_decoded_gaps_of_a_masked_cube_are_nan(tmp_path: Path) -> None:
    assert np.isnan(decoded(tmp_path, masked=True, fill_value=-9)[:10]).all()
    assert (decoded(tmp_path, fill_value=-9)[:10] == -9).all()
    with pytest.raises(NodataError, match="does not fit int16"):
        decoded(tmp_path, dtype="int16")


def test_a_property_may_be_a_list(tmp_path: Path) -> None:
    values = np.ones((64, 64), "u2")
    said = ['{"instruments": ["msi", "x"]}', '{"instruments": ["msi"]}']
    made = collect(
        *(scene(tmp_path, f"a{k}", values, properties=text) for k, text in enumerate(said))
    )
    assert made.get_xarray(properties=["instruments"]).instruments.values.tolist() == [
        "msi, x",
        "msi",
    ]


def test_a_table_of_a_cube_has_each_pixel_once_without_the_bounds_of_time(
    two: rd.Collection,
) -> None:
    cube = two.get_xarray()
    frame = cube.drop_vars("time_bnds").to_dataframe()
    assert len(frame) == 2 * 64 * 64
    assert frame["v"].sum() == cube.v.values.sum()


def test_geometries_and_a_box_are_refused_with_a_resolution_too(two: rd.Collection) -> None:
    box = (15.0, 46.9, 15.001, 46.901)
    for how in ({}, {"resolution": 20}):
        with pytest.raises(ArgumentError, match="not both"):
            two.get_numpy([box], bbox=box, **how)


@pytest.mark.parametrize("column", ["geometry", "geom", "wkt"])
def test_a_dask_frame_of_texts_is_sampled_as_the_frame_is(two: rd.Collection, column: str) -> None:
    frame = pd.DataFrame({column: ["POINT (15.001 46.95)", "POINT (15.002 46.951)"], "k": [1, 2]})
    how: dict[str, Any] = {"geometry_crs": 4326}
    if column == "wkt":
        how["geometry_column"] = column
    expected = two.sample_points(frame, ["v"], **how).to_pandas()
    lazy = two.sample_points(dd.from_pandas(frame, npartitions=1), ["v"], **how).compute()
    assert len(expected) == 4
    pd.testing.assert_frame_equal(
        lazy.reset_index(drop=True)[list(expected.columns)], expected, check_dtype=False
    )
