"""Chips as files: no file written over another, no value taken for nothing, no place by another's
column."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  (the accessor .rio)
import shapely
import xarray as xr

from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.chips import cut, write_chips
from rasteret_dask.pipeline.work import Chips


def cube(bands: dict[str, np.ndarray], times: list[str] | None = None, **nodata) -> xr.Dataset:
    rows, columns = next(iter(bands.values())).shape[-2:]
    coords = {
        "y": 5_200_000 - 10 * (np.arange(rows) + 0.5),
        "x": 500_000 + 10 * (np.arange(columns) + 0.5),
    }
    dims = ("y", "x") if times is None else ("time", "y", "x")
    if times is not None:
        coords["time"] = np.array(times, "datetime64[ns]")
    attrs = {name: {"_FillValue": bands[name].dtype.type(v)} for name, v in nodata.items()}
    arrays = {name: (dims, values, attrs.get(name, {})) for name, values in bands.items()}
    return xr.Dataset(arrays, coords).rio.write_crs(32633).chunk()


@pytest.mark.parametrize(
    "times",
    [
        ["2023-08-01T10:00:00.1", "2023-08-01T10:00:00.6"],
        ["2023-08-01T10:00:00", "2023-08-01T10:00:00"],
        ["2023-08-01T10:00:00.000000001", "2023-08-01T10:00:00.000000002"],
    ],
)
def test_steps_of_one_second_are_files_of_their_own(tmp_path: Path, times: list[str]) -> None:
    images = np.stack([np.full((8, 8), 1, "u2"), np.full((8, 8), 2, "u2")])
    said = write_chips(cut(Chips(size=8), cube({"B04": images}, times), None), str(tmp_path / "c"))
    listed = geopandas.read_parquet(tmp_path / "c" / "chips.parquet")
    assert (
        said["files"] == len(list((tmp_path / "c").glob("*.tif"))) == listed["file"].nunique() == 2
    )
    found = []
    for name in listed.sort_values("time", kind="stable")["file"]:
        with rasterio.open(tmp_path / "c" / name) as image:
            found.append(int(image.read(1).max()))
    assert found == [1, 2]


def test_names_of_days_stay_as_they_were(tmp_path: Path) -> None:
    images = np.ones((2, 8, 8), "u2")
    days = cube({"B04": images}, ["2023-08-01T10:00", "2023-08-02T10:00"])
    write_chips(cut(Chips(size=8), days, None), str(tmp_path / "c"))
    assert {p.name for p in (tmp_path / "c").glob("*.tif")} == {
        "000000-000000_20230801.tif",
        "000000-000000_20230802.tif",
    }


def test_a_file_means_nothing_by_a_value_that_no_band_has(tmp_path: Path) -> None:
    mask, red = np.zeros((8, 8), "u1"), np.full((8, 8), 255, "i2")
    mask[0], red[1] = 255, -9999
    both = cube({"Fmask": mask, "red": red}, Fmask=255, red=-9999)
    write_chips(cut(Chips(size=8), both, None), str(tmp_path / "c"))
    [path] = (tmp_path / "c").glob("*.tif")
    with rasterio.open(path) as image:
        found = image.read(masked=True)
    assert np.array_equal(found.mask, [mask == 255, red == -9999])
    assert np.array_equal(found[1].compressed(), red[red != -9999])


def test_a_value_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    one, two = np.full((8, 8), 7, "u2"), np.full((8, 8), 5, "u2")
    two[3, 3] = 9
    either = cube({"a": one, "b": two}, a=9, b=5)
    with pytest.raises(PipelineError, match="b has pixels of 9"):
        write_chips(cut(Chips(size=8), either, None), str(tmp_path / "c"))
    two[3, 3] = 8
    write_chips(cut(Chips(size=8), cube({"a": one, "b": two}, a=9, b=5), None), str(tmp_path / "d"))
    [path] = (tmp_path / "d").glob("*.tif")
    with rasterio.open(path) as image:
        found = image.read(masked=True)
    assert not found[0].mask.any()
    assert np.array_equal(found[1].mask, two == 5)


# --- columns of a vector file --------------------------------------------------------------------
def made(step: dict, output: str) -> config.Pipeline:
    cube = {"bands": ["B04"], "crs": "EPSG:32633"}
    document = {"version": 1, "collection": {"load": "c"}, "cube": cube, "steps": [step]}
    return config.from_mapping({**document, "outputs": [{output: "o"}]})


@pytest.mark.parametrize("name", ["row", "col", "time", "file", "valid", "geometry", "id"])
def test_columns_of_the_list_cannot_be_taken_along(name: str) -> None:
    chips = {"size": 64, "around": "plots.gpkg", "id": "plot", "keep": ["crop", name]}
    with pytest.raises(ConfigError, match=f"'{name}'") as caught:
        check(made({"chips": chips}, "chips"))
    assert caught.value.path == "steps[0].chips.keep"
    check(made({"chips": {**chips, "keep": ["crop", "plot"]}}, "chips"))


@pytest.mark.parametrize(
    ("kind", "columns", "key"),
    [
        ("sample", {"keep": ["B04"]}, "keep"),
        ("sample", {"keep": ["time"]}, "keep"),
        ("sample", {"keep": ["id"]}, "keep"),
        ("sample", {"id": "time"}, "id"),
        ("zonal", {"keep": ["B04_mean"]}, "keep"),
        ("zonal", {"id": "geometry"}, "id"),
    ],
)
def test_columns_of_a_table_cannot_be_taken_along(kind: str, columns: dict, key: str) -> None:
    where = {"sample": "points", "zonal": "polygons"}[kind]
    with pytest.raises(ConfigError, match="of its own") as caught:
        check(made({kind: {where: "f.gpkg", **columns}}, "parquet"))
    assert caught.value.path == f"steps[0].{kind}.{key}"
    assert ("say id: id" in str(caught.value)) == (columns == {"keep": ["id"]})


def test_columns_with_names_of_their_own_can(tmp_path: Path) -> None:
    check(made({"sample": {"points": "f", "id": "id", "keep": ["id", "label"]}}, "parquet"))
    check(made({"zonal": {"polygons": "f", "keep": ["B04"]}}, "parquet"))
    grid = cube({"B04": np.zeros((90, 90), "u2")})
    middle = [shapely.Point(500_455, 5_199_545)]
    plots = geopandas.GeoDataFrame({"plot": ["p"], "crop": ["rye"]}, geometry=middle, crs=32633)
    step = Chips(size=8, around="f", id="plot", keep=("crop", "plot"))
    expected = pd.DataFrame({"id": ["p"], "row": [41], "col": [41], "crop": ["rye"]})
    pd.testing.assert_frame_equal(cut(step, grid, plots).places, expected)
