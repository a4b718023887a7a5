"""What a cube's pixels are: files made by GDAL, expectations made by rasterio and NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from handmade import Scene, collect
from pyproj import Transformer
from rasterio.features import geometry_mask

from rasteret_dask import errors
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000.0, 5_200_000.0
RNG = np.random.default_rng(7)


def at(col: float = 0.0, row: float = 0.0, res: float = 10.0) -> Affine:
    return Affine(res, 0, LEFT + 10 * col, 0, -res, TOP - 10 * row)


def scene(path: Path, name: str, array: Any, *, day: int = 1, **how: Any) -> Scene:
    declared = how.pop("declared", {})
    columns = how.pop("columns", {})
    file = make_cog(
        path / f"{name}.tif", np.asarray(array), **{"blocksize": 64, "overviews": 0, **how}
    )
    return Scene(name, {"v": file}, f"2023-07-{day:02d}T10:00:00", declared, columns)


def values(*scenes: Scene, **how: Any) -> np.ndarray:
    how.setdefault("bands", ["v"])
    return np.asarray(collect(*scenes).get_xarray(**how).v.values)


def noise(
    shape: tuple[int, int], dtype: str = "uint16", low: int = 1, high: int = 250
) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


# --- one file ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
@pytest.mark.parametrize("chunks", ["auto", "tile", {"time": 1, "y": 50, "x": 77}])
def test_a_file_is_read_as_rasterio_reads_it(tmp_path: Path, dtype: str, chunks: Any) -> None:
    high = 120 if dtype == "int8" else 250
    s = scene(tmp_path, "a", noise((150, 201), dtype, 0, high), transform=at())
    with rasterio.open(s.files["v"]) as file:
        expected = file.read(1)
    found = collect(s).get_xarray(bands=["v"], chunks=chunks)
    assert found.v.dtype == dtype
    assert np.array_equal(found.v.values[0], expected)
    assert found.rio.transform() == at()
    assert found.rio.crs == "EPSG:32633"


def test_x_and_y_are_centres_and_y_descends_for_south_up_files_too(tmp_path: Path) -> None:
    image = noise((90, 70))
    up = scene(
        tmp_path, "up", image[::-1], transform=Affine(10, 0, LEFT, 0, 10, TOP - 900), driver="GTiff"
    )
    down = scene(tmp_path, "down", image, transform=at(), day=2)
    found = collect(up, down).get_xarray(bands=["v"])
    assert np.array_equal(found.v.values, [image, image])
    assert (found.y.values[0], found.x.values[0]) == (TOP - 5, LEFT + 5)
    assert (np.diff(found.y) == -10).all()


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_each_band_of_a_file_with_several(tmp_path: Path, interleave: str) -> None:
    stack = np.stack([noise((100, 130)) for _ in range(3)])
    path = make_cog(
        tmp_path / "rgb.tif",
        stack,
        driver="GTiff",
        blocksize=64,
        overviews=0,
        interleave=interleave,
    )
    s = Scene("a", {"r": (path, 0), "g": (path, 1), "b": (path, 2)})
    found = collect(s).get_xarray(bands=["b", "r", "g"], chunks={"y": 40})
    assert list(found.data_vars) == ["b", "r", "g"]
    for k, name in enumerate("rgb"):
        assert np.array_equal(found[name].values[0], stack[k])


@pytest.mark.parametrize("nodata", [0, 7, None])
def test_sparse_tiles_are_nodata_or_zero(tmp_path: Path, nodata: Any) -> None:
    image = np.full((256, 256), nodata or 0, np.uint16)
    image[64:128, 64:128] = 33
    s = scene(tmp_path, "a", image, nodata=nodata, sparse=True, driver="GTiff")
    with rasterio.open(s.files["v"]) as file:
        expected = file.read(1)
    assert np.array_equal(values(s)[0], expected)
    if nodata is not None:
        assert np.isnan(values(s, masked=True)).sum() == 256 * 256 - 64 * 64


def test_strips(tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    image = noise((101, 130))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=130,
        height=101,
        count=1,
        dtype="uint16",
        crs="EPSG:32633",
        transform=at(),
        blockysize=16,
        compress="deflate",
    ) as file:
        file.write(image, 1)
    found = collect(Scene("a", {"v": path})).get_xarray(bands=["v"], chunks={"y": 33, "x": 50})
    assert np.array_equal(found.v.values[0], image)
    assert np.array_equal(found.v[0, 95:, 120:].values, image[95:, 120:])


# --- nodata and types ----------------------------------------------------------------------------
def test_masked_is_float_with_nan(tmp_path: Path) -> None:
    image = noise((70, 70), low=0, high=5)
    found = collect(scene(tmp_path, "a", image, nodata=0)).get_xarray(bands=["v"], masked=True)
    assert found.v.dtype == np.float32
    expected = np.where(image == 0, np.nan, image.astype(np.float32))
    assert np.array_equal(found.v.values[0], expected, equal_nan=True)
    assert "_FillValue" not in found.v.attrs
    assert np.isnan(found.v.encoding["_FillValue"])


def test_unmasked_keeps_type_and_says_its_nodata(tmp_path: Path) -> None:
    found = collect(scene(tmp_path, "a", noise((70, 70)), nodata=9)).get_xarray(bands=["v"])
    assert found.v.dtype == np.uint16
    assert found.v.attrs["_FillValue"] == 9
    assert found.v.rio.nodata == 9


def test_gaps_without_any_nodata_raise(tmp_path: Path) -> None:
    a = scene(tmp_path, "a", noise((70, 70)), transform=at())
    b = scene(tmp_path, "b", noise((70, 70)), transform=at(40, 0), day=2)
    with pytest.raises(errors.NodataError, match="no item covers") as caught:
        values(a, b)
    assert caught.value.band == "v"
    filled = values(a, b, fill_value=999)
    assert (filled[0, :, 70:] == 999).all()
    assert np.array_equal(filled[0, :, :70], rasterio.open(a.files["v"]).read(1))
    assert np.isnan(values(a, b, masked=True)[1, :, :40]).all()
    # Where there is no gap, no nodata is needed.
    both = (LEFT + 410, TOP - 600, LEFT + 690, TOP - 10)
    crop = values(a, b, geometries=both, geometry_crs="EPSG:32633")
    assert np.array_equal(crop[1], rasterio.open(b.files["v"]).read(1)[1:60, 1:29])


def test_sources_of_different_nodata_are_converted_to_the_firsts(tmp_path: Path) -> None:
    one, two = noise((64, 64), low=10), noise((64, 64), low=10)
    one[:20], two[:, :20] = 255, 7
    scenes = (scene(tmp_path, "a", one, nodata=255), scene(tmp_path, "b", two, nodata=7, day=2))
    found = collect(*scenes).get_xarray(bands=["v"])
    assert found.v.attrs["_FillValue"] == 255
    assert np.array_equal(found.v.values[0], one)
    assert np.array_equal(found.v.values[1], np.where(two == 7, 255, two))
    masked = values(*scenes, masked=True)
    assert np.array_equal(np.isnan(masked), [one == 255, two == 7])


def test_a_valid_pixel_never_passes_for_nodata(tmp_path: Path) -> None:
    one, two = noise((64, 64), low=10), noise((64, 64), low=10)
    two[50, 60] = 0  # as good as any other: its nodata is 7
    scenes = (scene(tmp_path, "a", one, nodata=0), scene(tmp_path, "b", two, nodata=7, day=2))
    cube = collect(*scenes).get_xarray(bands=["v"])
    assert np.array_equal(cube.v[1, :50].values, two[:50])
    with pytest.raises(errors.NodataError, match="valid pixel holds 0") as caught:
        cube.v[1].values
    assert (caught.value.item, caught.value.band) == ("b", "v")
    assert np.array_equal(values(*scenes, masked=True)[1], two)
    assert np.array_equal(values(*scenes, fill_value=9999)[1], two)


@pytest.mark.parametrize("chunks", ["auto", {"y": 10, "x": 10}])
def test_nan_is_nodata_in_floats_however_it_is_cut(tmp_path: Path, chunks: Any) -> None:
    one = RNG.random((64, 64)).astype(np.float32)
    two = RNG.random((64, 64)).astype(np.float32)
    one[5:9, 5:9] = np.nan
    one[20, 20] = -9999
    two[8, 8] = np.nan
    for nodata, fill in ((None, np.nan), (np.nan, np.nan), (-9999.0, -9999.0)):
        a = scene(tmp_path, "a", one, nodata=nodata)
        b = scene(tmp_path, "b", two, nodata=nodata, transform=at(0, 0))
        valid = ~np.isnan(one) & (True if nodata != -9999 else one != -9999)
        expected = np.where(valid, one, two)
        expected[8, 8] = fill
        assert np.array_equal(values(a, b, chunks=chunks)[0], expected, equal_nan=True)
        alone = np.where(valid, one, fill)
        assert np.array_equal(values(a, chunks=chunks)[0], alone, equal_nan=True)


@pytest.mark.parametrize(("dtype", "why"), [("uint8", "do not fit"), ("int8", "do not fit")])
def test_a_value_that_does_not_fit_raises(tmp_path: Path, dtype: str, why: str) -> None:
    image = noise((64, 64))
    image[3, 4] = 300
    with pytest.raises(errors.ArgumentError, match=why) as caught:
        values(scene(tmp_path, "a", image), dtype=dtype)
    assert (caught.value.item, caught.value.band) == ("a", "v")


def test_mixed_types_become_the_one_that_holds_both(tmp_path: Path) -> None:
    a = scene(tmp_path, "a", noise((64, 64), "uint16", 0, 65535))
    b = scene(tmp_path, "b", noise((64, 64), "int16", -30000, 30000), day=2)
    found = values(a, b)
    assert found.dtype == np.int32
    for k, s in enumerate((a, b)):
        assert np.array_equal(found[k], rasterio.open(s.files["v"]).read(1))


def test_a_nodata_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    s = scene(tmp_path, "a", noise((64, 64)), nodata=65535)
    with pytest.raises(errors.NodataError, match="65535 does not fit uint8"):
        values(s, dtype="uint8")
    with pytest.raises(errors.NodataError, match="NaN"):
        values(s, dtype="int32", masked=True)


def test_missing_bands(tmp_path: Path) -> None:
    a, b = (
        scene(tmp_path, "a", noise((64, 64)), nodata=0),
        scene(tmp_path, "b", noise((64, 64)), day=2),
    )
    b = Scene("b", {"w": b.files["v"]}, b.time)
    with pytest.raises(errors.MissingBandError, match="1 of 2 items"):
        values(a, b)
    found = values(a, b, missing="nodata")
    assert (found[1] == 0).all()
    assert np.array_equal(found[0], rasterio.open(a.files["v"]).read(1))


# --- scale ---------------------------------------------------------------------------------------
def test_scale_and_offset_of_the_file(tmp_path: Path) -> None:
    image = noise((64, 64), low=0)
    s = scene(tmp_path, "a", image, nodata=0, scales=[0.5], offsets=[-3.0])
    found = collect(s).get_xarray(bands=["v"], scale=True)
    assert found.v.dtype == np.float32
    expected = np.where(image == 0, np.nan, image * np.float32(0.5) - 3)
    assert np.array_equal(found.v.values[0], expected, equal_nan=True)
    assert not {"scale_factor", "add_offset"} & (set(found.v.attrs) | set(found.v.encoding))
    assert np.array_equal(values(s)[0], image)


S2 = [
    # collection, applied, baseline, declared → offset in DN
    ("sentinel-2-l2a", True, "05.09", (1e-4, -0.1), 0),
    ("sentinel-2-l2a", False, "05.09", (1e-4, -0.1), -1000),
    ("sentinel-2-l2a", False, "03.01", (1e-4, 0.0), 0),
    ("sentinel-2-l2a", None, "04.00", None, -1000),
    ("sentinel-2-l2a", None, "02.12", None, 0),
    ("sentinel-2-c1-l2a", None, "05.00", (1e-4, -0.1), -1000),
]


@pytest.mark.parametrize(("collection", "applied", "baseline", "declared", "dn"), S2)
def test_the_sentinel2_rules_reach_the_pixels(
    tmp_path: Path, collection: str, applied: Any, baseline: str, declared: Any, dn: int
) -> None:
    image = noise((64, 64), low=0, high=12_000)
    image[0, :5] = (0, 1000, 1, 999, 12_345)
    path = make_cog(tmp_path / "b.tif", image, nodata=0, blocksize=64, overviews=0)
    said = {"scale": declared[0], "offset": declared[1], "nodata": 0} if declared else {"nodata": 0}
    columns = {
        "collection": collection,
        "s2:processing_baseline": baseline,
        "earthsearch:boa_offset_applied": applied,
    }
    c = collect(Scene("a", {"red": path, "scl": path}, declared={"red": said}, columns=columns))
    hole = image == 0
    scaled = c.get_xarray(bands=["red"], scale=True)
    expected = np.where(hole, np.nan, (image.astype(float) + dn) * 1e-4)
    np.testing.assert_allclose(scaled.red.values[0], expected, atol=2e-7, rtol=0)
    assert np.array_equal(np.isnan(scaled.red.values[0]), hole)
    assert scaled.s2_offset.values.tolist() == [dn]
    whole = c.get_xarray(bands=["red"], harmonize="sentinel-2")
    assert whole.red.dtype == np.int16
    assert whole.red.attrs["_FillValue"] == -32768
    assert np.array_equal(whole.red.values[0], np.where(hole, -32768, image.astype(int) + dn))
    # DN 1000 becomes a reflectance of 0, which is not nodata; and the class band keeps its numbers.
    classes = c.get_xarray(bands=["scl"], harmonize="sentinel-2")
    assert np.array_equal(classes.scl.values[0], image)


def test_harmonised_values_that_do_not_fit_raise_and_nodata_need_not(tmp_path: Path) -> None:
    image = noise((64, 64), low=1000, high=9000)
    image[0, 0] = 65535
    columns = {"collection": "sentinel-2-l2a", "s2:processing_baseline": "05.00"}
    for nodata in (65535, 0):
        path = make_cog(tmp_path / f"{nodata}.tif", image, nodata=nodata, blocksize=64)
        c = collect(Scene("a", {"red": path}, columns=columns))
        cube = c.get_xarray(bands=["red"], harmonize="sentinel-2")
        if nodata == 0:
            with pytest.raises(errors.ArgumentError, match="float32"):
                cube.compute()
        else:
            expected = np.where(image == 65535, -32768, image.astype(int) - 1000)
            assert np.array_equal(cube.red.values[0], expected)


# --- several files -------------------------------------------------------------------------------
def first_valid(
    shape: tuple[int, int], parts: list[tuple[np.ndarray, int, int]], nodata: int
) -> np.ndarray:
    out = np.full(shape, nodata, parts[0][0].dtype)
    for image, row, col in reversed(parts):
        box = out[row : row + image.shape[0], col : col + image.shape[1]]
        box[...] = np.where(image != nodata, image, box)
    return out


@pytest.mark.parametrize(
    "chunks", ["auto", "tile", {"y": 33, "x": 47}, {"y": 1000, "x": 20}, {"y": 7}]
)
def test_the_first_valid_pixel_in_order_of_time_and_id(tmp_path: Path, chunks: Any) -> None:
    parts = [
        (noise((100, 90), low=0, high=3), 0, 0),
        (noise((80, 120), low=0, high=3), 37, 41),
        (noise((100, 60), low=0, high=3), 10, 60),
    ]
    names = ["b", "a", "c"]
    scenes = [
        scene(tmp_path, n, p[0], nodata=0, transform=at(p[2], p[1])) for n, p in zip(names, parts)
    ]
    found = values(*scenes, chunks=chunks)
    order = [parts[1], parts[0], parts[2]]
    assert np.array_equal(found[0], first_valid((117, 161), order, 0))


def test_half_a_pixel_off_is_not_glued_as_if_aligned(tmp_path: Path) -> None:
    one, two = noise((64, 64)), noise((64, 64))
    a = scene(tmp_path, "a", one, nodata=0, transform=at())
    b = scene(tmp_path, "b", two, nodata=0, transform=at(60.5, 0.25))
    found = collect(a, b).get_xarray(bands=["v"])
    x = (found.x.values - (LEFT + 605)) / 10
    y = (TOP - 2.5 - found.y.values) / 10
    cols, rows = np.floor(np.round(x, 6)).astype(int), np.floor(np.round(y, 6)).astype(int)
    expected = np.zeros(found.v.shape[1:], np.uint16)
    ok = np.ix_((rows >= 0) & (rows < 64), (cols >= 0) & (cols < 64))
    expected[ok] = two[np.ix_(rows[(rows >= 0) & (rows < 64)], cols[(cols >= 0) & (cols < 64)])]
    expected[:64, :64] = one
    assert np.array_equal(found.v.values[0], expected)
    # Column 124 of the grid has its centre at 64.0 of b: a tie, which falls off its right edge.
    assert found.sizes["x"] == 125
    assert (found.v.values[0, :, 124] == 0).all()


def test_bands_of_different_resolution_come_onto_one_grid(tmp_path: Path) -> None:
    fine, coarse = noise((120, 160)), noise((40, 54))
    files = {
        "fine": make_cog(tmp_path / "f.tif", fine, transform=at(), nodata=0, overviews=0),
        "coarse": make_cog(
            tmp_path / "c.tif", coarse, transform=at(res=30.0), nodata=0, blocksize=32
        ),
    }
    c = collect(Scene("a", files))
    found = c.get_xarray(bands=["fine", "coarse"])
    assert np.array_equal(found.fine.values[0], fine)
    assert np.array_equal(found.coarse.values[0], np.kron(coarse, np.ones((3, 3), int))[:120, :160])
    down = c.get_xarray(bands=["fine", "coarse"], resolution=30, anchor=(LEFT, TOP))
    assert np.array_equal(down.coarse.values[0], coarse)
    assert np.array_equal(down.fine.values[0][:, :53], fine[1::3, 1:159:3])


MOSAICS: dict[str, Any] = {
    "first": lambda s: first_of(s),
    "last": lambda s: first_of(s[::-1]),
    "min": lambda s: np.nanmin(s, axis=0),
    "max": lambda s: np.nanmax(s, axis=0),
    "mean": lambda s: np.nanmean(s, axis=0),
    "median": lambda s: np.nanmedian(s, axis=0),
    "count": lambda s: (~np.isnan(s)).sum(axis=0),
    "own": lambda s: np.nanmax(s, axis=0) - np.nanmin(s, axis=0),
}


def first_of(stack: np.ndarray) -> np.ndarray:
    out = np.full(stack.shape[1:], np.nan)
    for layer in stack:
        out = np.where(np.isnan(out), layer, out)
    return out


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.filterwarnings("ignore:Mean of empty")
@pytest.mark.parametrize("chunks", ["auto", {"y": 33, "x": 37}])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", list(MOSAICS))
def test_every_mosaic_is_numpys(tmp_path: Path, name: str, dtype: str, chunks: Any) -> None:
    places = [(0, 0), (37, 41), (10, 60)]
    parts = [noise((100, 90), dtype, 0, 6) for _ in places]
    scenes = [
        scene(tmp_path, f"s{k}", p, nodata=0, transform=at(col, row))
        for k, (p, (row, col)) in enumerate(zip(parts, places))
    ]
    stack = np.full((3, 137, 150), np.nan)
    for k, (p, (row, col)) in enumerate(zip(parts, places)):
        stack[k, row : row + 100, col : col + 90] = np.where(p == 0, np.nan, p)
    how = MOSAICS["own"] if name == "own" else name
    found = values(*scenes, mosaic=how, masked=name != "count", chunks=chunks)[0]
    expected = MOSAICS[name](stack)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


@pytest.mark.parametrize("chunks", ["auto", {"x": 20}])
def test_a_function_of_ones_own_sees_single_sources_too(tmp_path: Path, chunks: Any) -> None:
    a = scene(tmp_path, "a", RNG.random((64, 64)).astype("f4"), transform=at())
    b = scene(tmp_path, "b", RNG.random((64, 64)).astype("f4"), transform=at(40))
    found = values(a, b, mosaic=lambda s: (~np.isnan(s)).sum(axis=0), masked=True, chunks=chunks)
    assert np.array_equal(np.unique(found[0], axis=0), [[1] * 40 + [2] * 24 + [1] * 40])


class Percentile:
    """A function that says no more of itself than its kind."""

    def __init__(self, q: float) -> None:
        self.q = q

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        return np.asarray(np.nanpercentile(stack, self.q, axis=0))

    def __repr__(self) -> str:
        return "Percentile"


def percentile(q: float) -> Any:
    """A function that says where in memory it is."""
    return lambda stack: np.nanpercentile(stack, q, axis=0)


@pytest.mark.parametrize("make", [Percentile, percentile])
def test_a_cube_is_named_by_what_its_function_does(tmp_path: Path, make: Any) -> None:
    """Equal ones share what they read; others that look alike are not taken for them."""
    days = [scene(tmp_path, f"s{k}", np.full((64, 64), k, "f4"), day=k) for k in (1, 2, 3)]
    how: dict[str, Any] = {"groupby": "1MS", "masked": True}
    low, high, again = (collect(*days).get_xarray(**how, mosaic=make(q)).v for q in (0, 100, 0))
    assert low.data.name == again.data.name
    assert low.data.name != high.data.name
    found = dask.compute(low, high)
    assert [np.unique(one.values).tolist() for one in found] == [[1], [3]]


# --- masks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rule", [{"keep": [4, 5]}, {"drop": [0, 3, 8]}, {"bits": {0: 1, "1-2": [0, 2]}}]
)
@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("chunks", ["auto", {"y": 31, "x": 45}])
def test_masks_come_before_the_mosaic(tmp_path: Path, rule: Any, ratio: int, chunks: Any) -> None:
    parts, scenes = [], []
    for name, col in (("a", 0), ("b", 30)):
        image, classes = (
            noise((80, 100)),
            RNG.integers(0, 9, (80 // ratio, 100 // ratio)).astype(np.uint8),
        )
        full = np.kron(classes, np.ones((ratio, ratio), np.uint8))
        if "keep" in rule:
            kept = np.isin(full, rule["keep"])
        elif "drop" in rule:
            kept = ~np.isin(full, rule["drop"])
        else:
            kept = ((full & 1) == 1) & np.isin((full >> 1) & 3, [0, 2])
        parts.append((np.where(kept, image, 0), 0, col))
        files = {
            "v": make_cog(
                tmp_path / f"{name}.tif", image, transform=at(col), nodata=0, blocksize=64
            ),
            "m": make_cog(
                tmp_path / f"{name}m.tif",
                classes,
                transform=at(col, res=10.0 * ratio),
                blocksize=16,
            ),
        }
        scenes.append(Scene(name, files))
    found = values(*scenes, mask={"band": "m", **rule}, chunks=chunks)
    assert np.array_equal(found[0], first_valid((80, 130), parts, 0))
    masked = values(*scenes, mask={"band": "m", **rule}, masked=True, chunks=chunks)
    assert np.array_equal(np.isnan(masked[0]), found[0] == 0)


def test_masked_pixels_need_a_nodata(tmp_path: Path) -> None:
    path = make_cog(tmp_path / "a.tif", noise((64, 64)))
    c = collect(Scene("a", {"v": path, "m": path}))
    with pytest.raises(errors.NodataError, match="masked pixels"):
        c.get_xarray(bands=["v"], mask={"band": "m", "keep": [3]})


def test_what_the_mask_does_not_cover_is_not_kept(tmp_path: Path) -> None:
    image, classes = noise((80, 80)), np.full((40, 80), 4, np.uint8)
    files = {
        "v": make_cog(tmp_path / "v.tif", image, nodata=0),
        "m": make_cog(tmp_path / "m.tif", classes, transform=at(20, 10)),
    }
    found = values(Scene("a", {"v": files["v"], "m": files["m"]}), mask={"band": "m", "keep": 4})
    expected = np.zeros_like(image)
    expected[10:50, 20:] = image[10:50, 20:]
    assert np.array_equal(found[0], expected)


# --- areas ---------------------------------------------------------------------------------------
HOLED = shapely.MultiPolygon(
    [
        shapely.Polygon(
            [(LEFT + 123, TOP - 77), (LEFT + 1511, TOP - 201), (LEFT + 907, TOP - 1407)],
            [[(LEFT + 650, TOP - 300), (LEFT + 1003, TOP - 333), (LEFT + 777, TOP - 700)]],
        ),
        shapely.Polygon(
            [(LEFT + 1301, TOP - 1102), (LEFT + 1508, TOP - 1007), (LEFT + 1453, TOP - 1333)]
        ),
    ]
)


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("chunks", ["auto", "tile", {"y": 41, "x": 37}])
def test_geometries_crop_and_mask_as_rasterio(
    tmp_path: Path, all_touched: bool, chunks: Any
) -> None:
    image = noise((180, 190))
    s = scene(tmp_path, "a", image, nodata=0, transform=at())
    found = collect(s).get_xarray(
        HOLED, ["v"], geometry_crs="EPSG:32633", all_touched=all_touched, chunks=chunks
    )
    left, bottom, right, top = HOLED.bounds
    c0, c1 = int((left - LEFT) // 10), int(-((LEFT - right) // 10))
    r0, r1 = int((TOP - top) // 10), int(-((bottom - TOP) // 10))
    out = geometry_mask([HOLED], image.shape, at(), all_touched=all_touched)
    expected = np.where(out, 0, image)[r0:r1, c0:c1]
    assert np.array_equal(found.v.values[0], expected)


def test_a_bbox_only_crops(tmp_path: Path) -> None:
    image = noise((180, 190))
    c = collect(scene(tmp_path, "a", image, transform=at()))
    found = c.get_xarray(
        (LEFT + 101, TOP - 505, LEFT + 309.9, TOP - 90), ["v"], geometry_crs="EPSG:32633"
    )
    assert np.array_equal(found.v.values[0], image[9:51, 10:31])


# --- turned, twofold, antimeridian ---------------------------------------------------------------
def test_rotated_files_are_warped_when_the_grid_is_given(tmp_path: Path) -> None:
    image = noise((120, 120))
    turned = Affine(8.0, 3.0, LEFT, 3.5, -7.0, TOP)
    s = scene(tmp_path, "a", image, nodata=0, transform=turned, driver="GTiff")
    with pytest.raises(errors.GridError, match="rotated"):
        values(s)
    for chunks in ("auto", {"y": 40, "x": 30}):
        found = collect(s).get_xarray(bands=["v"], resolution=10, chunks=chunks)
        x, y = np.meshgrid(found.x.values, found.y.values)
        u, v = ~turned * (x, y)
        cols, rows = np.floor(np.round(u, 6)).astype(int), np.floor(np.round(v, 6)).astype(int)
        ok = (cols >= 0) & (cols < 120) & (rows >= 0) & (rows < 120)
        expected = np.where(ok, image[np.clip(rows, 0, 119), np.clip(cols, 0, 119)], 0)
        assert np.array_equal(found.v.values[0], expected)


@pytest.mark.parametrize("left", [-180.0, 0.0])
def test_a_world_map_in_a_cube_over_the_antimeridian(tmp_path: Path, left: float) -> None:
    image = noise((180, 360))
    s = scene(
        tmp_path,
        "a",
        image,
        nodata=0,
        transform=Affine(1, 0, left, 0, -1, 90),
        crs="EPSG:4326",
        columns={"bbox": {"xmin": -180.0, "ymin": -90.0, "xmax": 180.0, "ymax": 90.0}},
    )
    found = collect(s).get_xarray(bands=["v"], bbox=(170, -20, -170, -10), chunks={"x": 7})
    assert found.x.values.tolist() == (np.arange(170, 190) + 0.5).tolist()
    cols = ((np.arange(170, 190) - left) % 360).astype(int)
    assert np.array_equal(found.v.values[0], image[100:110][:, cols])


@pytest.mark.parametrize("chunks", ["auto", {"y": 50, "x": 64}])
def test_a_polar_cube_of_a_world_map_has_no_seam(tmp_path: Path, chunks: Any) -> None:
    image = noise((400, 1440))
    s = scene(
        tmp_path,
        "a",
        image,
        nodata=0,
        transform=Affine(0.25, 0, -180, 0, -0.1, 90),
        crs="EPSG:4326",
    )
    found = collect(s).get_xarray(
        (-1_500_000, -1_500_000, 1_500_000, 1_500_000),
        ["v"],
        geometry_crs="EPSG:3413",
        crs="EPSG:3413",
        resolution=20_000,
        chunks=chunks,
    )
    x, y = np.meshgrid(found.x.values, found.y.values)
    lon, lat = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True).transform(x, y)
    cols = np.floor(np.round((lon + 180) / 0.25, 6)).astype(int)
    rows = np.floor(np.round((90 - lat) / 0.1, 6)).astype(int)
    ok = (rows >= 0) & (rows < 400) & (cols >= 0) & (cols < 1440)
    expected = np.where(ok, image[np.clip(rows, 0, 399), np.clip(cols, 0, 1439)], 0)
    assert ok.mean() > 0.9
    assert np.array_equal(found.v.values[0], expected)
