"""Tiles that a file leaves out: what rasterio reads there, whatever is called nodata."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import tifffile
from affine import Affine
from dask.base import tokenize
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, NodataError
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.tiff.held import Told

AT = Affine(10, 0, 500_000.0, 0, -10.0, 5_200_000.0)
BOX = (500_000.0, 5_198_720.0, 501_280.0, 5_200_000.0)
UNFIT = [-9999, -9999.0, 300, 0.5, float("nan"), float("inf")]


def cog(path: Path, array: Any, **how: Any) -> Path:
    options = {"driver": "GTiff", "transform": AT, "blocksize": 64, "overviews": 0, **how}
    return make_cog(path, array, **options)


def one(file: Path, **declared: Any) -> rd.Collection:
    return collect(Scene("a", {"v": file}, declared={"v": declared} if declared else {}))


def quarter(path: Path, dtype: str, nodata: Any, value: int = 3) -> Path:
    """An image of 128 × 128 pixels of which three tiles are nodata, and not there."""
    image = np.full((128, 128), nodata or 0, dtype)
    image[:64, :64] = value
    file = cog(path, image, nodata=nodata, sparse=True)
    with tifffile.TiffFile(file) as found:
        assert np.count_nonzero(found.pages[0].tags[325].value) == 1
    return file


def leave_out(file: Path, page: int, tile: int) -> None:
    """Take one tile out of a file's tables."""
    with tifffile.TiffFile(file, mode="r+b") as found:
        for code in (324, 325):
            tag = found.pages[page].tags[code]
            tag.overwrite([0 if k == tile else v for k, v in enumerate(tag.value)])


# --- masks in files ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 255), ("int16", -9999), ("float32", float("nan"))]
)
@pytest.mark.parametrize("recording", [False, True])
def test_a_mask_hides_what_its_sparse_tiles_cover(
    tmp_path: Path, dtype: str, nodata: Any, recording: bool
) -> None:
    """Whatever the image calls nodata: that is no number of its mask."""
    values = np.full((64, 128), 7, dtype)
    file = cog(tmp_path / "a.tif", values, nodata=nodata, mask=np.ones(values.shape, bool))
    leave_out(file, page=1, tile=1)
    with rasterio.open(file) as image:
        hidden = image.read(1, masked=True).mask
    assert np.array_equal(hidden, np.broadcast_to(np.arange(128) >= 64, hidden.shape))
    collection = one(file)
    how: dict[str, Any] = {"on_error": "record", "ledger": str(tmp_path)} if recording else {}
    cube = collection.get_xarray(masked=True, **how)
    assert np.array_equal(cube.v.values[0], np.where(hidden, np.nan, 7), equal_nan=True)
    window = collection.get_numpy(BOX, geometry_crs=32633)[0]
    assert np.array_equal(window[:64], np.where(hidden, nodata, values), equal_nan=True)
    spots = np.array([(500_005, 5_199_995), (501_005, 5_199_995)])
    rows = collection.sample_points(spots, geometry_crs=32633)
    assert np.array_equal(rows["value"], [7, nodata], equal_nan=True)


# --- nodata values that no pixel can have --------------------------------------------------------
def holds_in_every_read(collection: rd.Collection, nodata: Any, expected: np.ndarray) -> None:
    """A cube, in another process as well, and windows are these pixels, all of them valid."""
    cube = collection.get_xarray(masked=True, nodata=nodata)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cube)).v.values[0], expected)
    np.testing.assert_array_equal(collection.get_numpy(nodata=nodata)[0], expected)


@pytest.mark.parametrize("nodata", UNFIT, ids=str)
def test_sparse_tiles_are_valid_zeros_where_the_type_cannot_hold_what_is_called_nodata(
    tmp_path: Path, nodata: Any
) -> None:
    file = quarter(tmp_path / "a.tif", "uint8", 0)
    with rasterio.open(file) as image:
        expected = image.read(1)
    collection = one(file, scale=0.5, offset=-3.0)
    holds_in_every_read(collection, nodata, expected)
    spots = np.array([(500_005, 5_199_995), (501_005, 5_199_995)])
    how: dict[str, Any] = {"geometry_crs": 32633, "nodata": nodata}
    assert collection.sample_points(spots, **how)["value"].to_pylist() == [3, 0]
    assert collection.sample_points(spots, **how, scale=True)["value"].to_pylist() == [-1.5, -3]


@pytest.mark.parametrize("nodata", UNFIT, ids=str)
def test_weighed_pixels_keep_clear_of_no_value_that_they_cannot_have(
    tmp_path: Path, nodata: Any
) -> None:
    values = np.tile(np.array([10, 20], np.uint8), (64, 32))
    found = one(cog(tmp_path / "a.tif", values))
    cube = found.get_xarray(masked=True, nodata=nodata, resampling="average", resolution=20)
    assert np.unique(cube.v.values).tolist() == [15]


def test_one_nodata_value_for_bands_of_two_types(tmp_path: Path) -> None:
    narrow = quarter(tmp_path / "n.tif", "uint8", 0)
    wide = quarter(tmp_path / "w.tif", "int16", -9999)
    cube = collect(Scene("a", {"n": narrow, "w": wide})).get_xarray(masked=True, nodata=-9999)
    for name, file in (("n", narrow), ("w", wide)):
        with rasterio.open(file) as image:
            expected = image.read(1).astype(float)
        expected[expected == -9999] = np.nan
        np.testing.assert_array_equal(cube[name].values[0], expected)


@pytest.mark.parametrize("nodata", UNFIT, ids=str)
def test_sparse_tiles_hold_the_files_own_value_which_then_is_valid(
    tmp_path: Path, nodata: Any
) -> None:
    file = quarter(tmp_path / "a.tif", "uint8", 255)
    with rasterio.open(file) as image:
        expected = image.read(1)
    assert set(np.unique(expected)) == {3, 255}
    collection = one(file)
    holds_in_every_read(collection, nodata, expected)
    spots = np.array([(500_005, 5_199_995), (501_005, 5_199_995)])
    found = collection.sample_points(spots, geometry_crs=32633, nodata=nodata)
    assert found["value"].to_pylist() == [3, 255]


def test_what_a_mask_hides_is_nan_when_scaled_though_no_pixel_can_be_nodata(tmp_path: Path) -> None:
    shown = np.arange(128) < 64
    values = np.full((64, 128), 7, np.uint8)
    file = cog(tmp_path / "a.tif", values, mask=np.broadcast_to(shown, values.shape))
    spots = np.array([(500_005, 5_199_995), (501_005, 5_199_995)])
    how: dict[str, Any] = {"geometry_crs": 32633, "nodata": -9999, "max_distance_pixels": 1}
    found = one(file, scale=0.5, offset=0.0)
    rows = found.sample_points(spots, **how, return_neighbourhood="always", scale=True)
    assert np.array_equal(rows["value"], [3.5, np.nan], equal_nan=True)
    assert np.isnan(rows["neighbourhood_values"].to_pylist()[1]).all()
    cube = found.get_xarray(masked=True, scale=True, nodata=-9999)
    assert np.array_equal(cube.v.values[0, 0], np.where(shown, 3.5, np.nan), equal_nan=True)


def test_a_tile_that_fails_is_a_hole_though_no_pixel_can_be_nodata(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(1, 200, (128, 128)).astype(np.uint8)
    file = cog(tmp_path / "a.tif", values)
    with tifffile.TiffFile(file) as found:
        start = found.pages[0].tags[324].value[3]
    data = bytearray(file.read_bytes())
    data[start : start + 40] = bytes(40)
    file.write_bytes(data)
    cube = one(file).get_xarray(
        masked=True, nodata=-9999, on_error="record", ledger=str(tmp_path / "ledger")
    )
    expected = values.astype(float)
    expected[64:, 64:] = np.nan
    np.testing.assert_array_equal(cube.v.values[0], expected)
    assert len(read_ledger(str(tmp_path / "ledger"), cube.attrs["rasteret_run"])) == 1


@pytest.mark.parametrize("value", [-1, 256, 2.5, float("nan")])
def test_windows_refuse_a_value_for_nothing_that_the_type_cannot_hold(
    tmp_path: Path, value: Any
) -> None:
    shown = np.broadcast_to(np.arange(128) < 64, (128, 128))
    masked = one(cog(tmp_path / "a.tif", np.full((128, 128), 7, np.uint8), mask=shown))
    plain = one(cog(tmp_path / "b.tif", np.full((128, 128), 7, np.uint8)))
    triangle = shapely.Polygon([(500_000, 5_200_000), (501_000, 5_200_000), (500_000, 5_199_000)])
    for collection, where in ((masked, BOX), (plain, triangle)):
        for how in ({"fill_value": value}, {"nodata": value}):
            with pytest.raises(NodataError, match="uint8 cannot hold"):
                collection.get_numpy(where, geometry_crs=32633, **how)


def test_each_file_keeps_its_own_beside_a_file_of_floats(tmp_path: Path) -> None:
    scenes = []
    for k, own in enumerate((0, 255)):
        file = quarter(tmp_path / f"{own}.tif", "uint8", own)
        scenes.append(Scene(f"i{k}", {"v": file}, f"2023-07-0{k + 1}T10:00:00"))
    wide = cog(tmp_path / "f.tif", np.ones((128, 128), np.float32))
    scenes.append(Scene("i2", {"v": wide}, "2023-07-03T10:00:00"))
    cube = collect(*scenes).get_xarray(masked=True, nodata=-9999)
    for k, own in enumerate((0, 255)):
        with rasterio.open(tmp_path / f"{own}.tif") as image:
            assert np.array_equal(cube.v.values[k], image.read(1))


def test_numbers_that_differ_in_the_files_own_are_two() -> None:
    one, two = Told(-9999, 0), Told(-9999, 255)
    assert one != two
    assert one == Told(-9999, 0)
    assert [one == -9999, one != -9999, one == 0] == [True, False, False]
    assert len({one, two, Told(-9999, 0)}) == 2
    assert tokenize(one) != tokenize(two)
    assert pickle.loads(pickle.dumps(two)) == two


def test_what_is_called_nodata_may_be_an_array_of_one(tmp_path: Path) -> None:
    found = one(quarter(tmp_path / "a.tif", "uint8", 0))
    expected = found.get_xarray(masked=True, nodata=3).v.values
    again = found.get_xarray(masked=True, nodata=np.asarray(3)).v.values
    assert np.array_equal(again, expected, equal_nan=True)
    triangle = shapely.Polygon([(500_000, 5_200_000), (501_000, 5_200_000), (500_000, 5_199_000)])
    window = found.get_numpy(triangle, geometry_crs=32633, fill_value=np.asarray(7))[0]
    assert window[-1, -1] == 7
    with pytest.raises(ArgumentError, match="fill_value= must be a number"):
        found.get_numpy(triangle, geometry_crs=32633, fill_value="7")
