"""Cubes that are asked for oddly: right, or refused before anything is read, by an error of ours that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from handmade import Scene, collect
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, RasteretError
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
RNG = np.random.default_rng(77)
IMAGE = RNG.integers(1, 200, (80, 80)).astype(np.uint16)
BOX = GeoBox((40, 40), AT, "EPSG:32633")


def cog(path: Path, name: str, array: np.ndarray, **how: Any) -> Path:
    options = {"transform": AT, "nodata": 0, "blocksize": 32, "overviews": 0, **how}
    return make_cog(path / f"{name}.tif", array, **options)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    path = tmp_path_factory.mktemp("odd")
    return collect(Scene("a", {"v": cog(path, "v", IMAGE)}))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"resolution": 0}, "size of a pixel"),
    ({"resolution": float("nan")}, "size of a pixel"),
    ({"resolution": 1e-6}, "pixels"),
    ({"geobox": BOX, "anchor": (3, 3)}, "given grid"),
    ({"geobox": BOX, "resolution": 20}, "given grid"),
    ({"geobox": BOX, "bbox": (15.0, 46.9, 15.01, 46.95)}, "fixes the extent"),
    ({"geobox": BOX, "geometries": (15.0, 46.9, 15.01, 46.95)}, "fixes the extent"),
    ({"geobox": GeoBox((9, 9), AT * Affine.rotation(30), "EPSG:32633")}, "rotated"),
    ({"geobox": GeoBox((9, 9), Affine(10, 0, 0, 0, 10, 0), "EPSG:32633")}, "south-up"),
    ({"crs": "EPSG:4978", "resolution": 10}, "no map"),
    ({"crs": "EPSG:5773", "resolution": 10}, "no map"),
    ({"crs": "EPSG:99999999"}, "not a coordinate reference system"),
    ({"groupby": None}, "groupby"),
    ({"groupby": "0D"}, "period"),
    ({"groupby": "-1D"}, "groupby"),
    ({"groupby": []}, "groupby"),
    ({"groupby": ["time", "nosuch"]}, "nosuch"),
    ({"groupby": lambda table: [1, 2, 3]}, "3 keys for 1"),
    ({"dtype": "banana"}, "banana"),
    ({"dtype": "bool"}, "numbers"),
    ({"dtype": "int16", "masked": True}, "NaN"),
    ({"fill_value": 70_000}, "does not fit"),
    ({"nodata": -5}, "does not fit"),
    ({"geometries": []}, "no geometry"),
    ({"geometries": shapely.Polygon()}, "empty"),
    ({"bbox": (float("nan"), 46, 16, 47)}, "no box"),
    ({"bbox": (0, 0, 1, 1)}, "none of the collection"),
    ({"mask": {"band": "v", "keep": []}}, "nothing"),
    ({"mask": {"band": "v", "keep": [1], "drop": [2]}}, "exactly one"),
    ({"nosuch": 3}, "nosuch"),
]


@pytest.mark.parametrize(("how", "words"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_means_nothing_is_refused(
    collection: rd.Collection, how: dict[str, Any], words: str
) -> None:
    with pytest.raises(RasteretError, match=words):
        collection.get_xarray(**how)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> tuple[rd.Collection, np.ndarray]:
    image = (RNG.random((80, 80)) + 1j * RNG.random((80, 80))).astype(np.complex64)
    path = tmp_path_factory.mktemp("waves") / "w.tif"
    make_cog(path, image, transform=AT, driver="GTiff", blocksize=32, overviews=0)
    return collect(Scene("a", {"w": path})), image


def test_complex_numbers_are_read_and_weighed(waves: tuple[rd.Collection, np.ndarray]) -> None:
    collection, image = waves
    assert np.array_equal(collection.get_xarray().w.values[0], image)
    assert np.array_equal(collection.get_xarray(dtype="complex128").w.values[0], image)
    coarse = collection.get_xarray(resolution=20, resampling="average").w.values[0]
    blocks = image.reshape(40, 2, 40, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, blocks, rtol=1e-5)


def test_a_function_as_a_mosaic_gets_complex_numbers_whole(tmp_path: Path) -> None:
    images = [(RNG.random((32, 32)) + 1j * RNG.random((32, 32))).astype(np.complex64) for _ in "ab"]
    scenes = []
    for name, image in zip("ab", images):
        file = tmp_path / f"{name}.tif"
        make_cog(file, image, transform=AT, driver="GTiff", blocksize=32, overviews=0)
        scenes.append(Scene(name, {"w": file}))
    cube = collect(*scenes).get_xarray(
        groupby="1D", masked=True, mosaic=lambda stack: np.nanmean(stack, axis=0)
    )
    np.testing.assert_allclose(cube.w.values[0], np.mean(images, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    "how",
    [
        {"dtype": "float32"},
        {"mosaic": "max"},
        {"mosaic": "median"},
        *({"resampling": m, "resolution": 20} for m in ("min", "max", "mode", "q1", "med", "q3")),
    ],
    ids=str,
)
def test_complex_numbers_have_no_order_and_no_real_type(
    waves: tuple[rd.Collection, np.ndarray], how: dict[str, Any]
) -> None:
    with pytest.raises(ArgumentError, match="complex"):
        waves[0].get_xarray(**how)


# --- grids ---------------------------------------------------------------------------------------
def test_like_takes_any_part_of_a_cube(collection: rd.Collection) -> None:
    coarse = collection.get_xarray(resolution=(20, 40)).load()
    for part in (
        coarse,
        coarse.isel(x=slice(3, 9), y=slice(2, 5)),
        coarse.isel(x=slice(3, 4), y=slice(2, 3)),
    ):
        for like in (part, part.v):
            assert np.array_equal(collection.get_xarray(like=like).v.values, part.v.values)


def test_geometries_mask_a_given_grid(collection: rd.Collection) -> None:
    whole = collection.get_xarray(geobox=BOX)
    with pytest.raises(ArgumentError, match="fixes the extent"):
        collection.get_xarray(like=whole, bbox=(15.0, 46.9, 15.01, 46.95))
    left = shapely.box(500_000, 5_199_600, 500_100, 5_200_000)
    cube = collection.get_xarray(left, geometry_crs="EPSG:32633", geobox=BOX)
    expected = np.where(np.arange(40) < 10, IMAGE[:40, :40], 0)
    assert np.array_equal(cube.v.values[0], expected)


def test_cubes_of_one_pixel(collection: rd.Collection, tmp_path: Path) -> None:
    inside = (500_005.0, 5_199_795.0, 500_006.0, 5_199_796.0)
    cube = collection.get_xarray(geometries=inside, geometry_crs="EPSG:32633", chunks={})
    assert cube.v.values.tolist() == [[[IMAGE[20, 0]]]]
    nothing = collection.get_xarray(bbox=(15.001, 46.95, 15.001, 46.95))
    assert nothing.v.shape == (1, 1, 1)
    file = cog(tmp_path, "one", np.array([[7]], np.uint16), driver="GTiff")
    assert collect(Scene("s", {"v": file})).get_xarray(masked=True).v.values.tolist() == [[[7.0]]]


# --- items that are not alike --------------------------------------------------------------------
def test_nan_beside_another_nodata(tmp_path: Path) -> None:
    image = RNG.random((80, 80)).astype(np.float32)
    image[3:9] = np.nan
    other = np.full((80, 80), 5, np.float32)
    other[0:6] = -9999
    made = [
        Scene("a", {"v": cog(tmp_path, "a", image, nodata=np.nan)}, "2023-07-03T10:00:00"),
        Scene("b", {"v": cog(tmp_path, "b", other, nodata=-9999)}, "2023-07-03T10:00:01"),
    ]
    below = np.where(other == -9999, np.nan, other)
    expected = np.where(np.isnan(image), below, image)
    for masked in (True, False):
        cube = collect(*made).get_xarray(groupby="solar_day", masked=masked)
        assert np.array_equal(cube.v.values[0], expected, equal_nan=True)
    reverse = collect(*made).get_xarray(groupby="solar_day", mosaic="last", masked=True)
    expected = np.where(np.isnan(below), image, below)
    assert np.array_equal(reverse.v.values[0], expected, equal_nan=True)


def test_types_and_nodata_of_two_kinds_become_one(tmp_path: Path) -> None:
    signed = RNG.integers(-500, 500, (80, 80)).astype(np.int16)
    signed[5] = -32768
    small = RNG.integers(0, 256, (80, 80)).astype(np.uint8)
    files = {
        "s": cog(tmp_path, "s", signed, nodata=-32768),
        "u": cog(tmp_path, "u", small, nodata=255),
    }
    made = [
        Scene(n, {"v": f}, f"2023-07-0{k}T10:00:00") for k, (n, f) in enumerate(files.items(), 1)
    ]
    cube = collect(*made).get_xarray()
    assert cube.v.dtype == np.int16
    assert np.array_equal(cube.v.values[0], signed)
    assert np.array_equal(cube.v.values[1], np.where(small == 255, -32768, small.astype(int)))
    int8 = RNG.integers(-128, 128, (80, 80)).astype(np.int8)
    alone = collect(Scene("i", {"v": cog(tmp_path, "i", int8, nodata=-128)}))
    assert np.array_equal(alone.get_xarray().v.values[0], int8)
    masked = alone.get_xarray(masked=True).v.values[0]
    assert np.array_equal(masked, np.where(int8 == -128, np.nan, int8), equal_nan=True)


def test_items_of_one_moment_go_by_their_ids(tmp_path: Path) -> None:
    made = [
        Scene(name, {"v": cog(tmp_path, name, np.full((80, 80), k, np.uint16))})
        for k, name in enumerate("zab", 1)
    ]
    collection = collect(*made)
    assert np.unique(collection.get_xarray().v.values).tolist() == [2]
    assert np.unique(collection.get_xarray(mosaic="last").v.values).tolist() == [1]
    each = collection.get_xarray(groupby="id")
    assert [int(v.max()) for v in each.v.values] == [2, 3, 1]
    assert each.sizes["time"] == 3
    by_hand = collection.get_xarray(
        groupby=lambda table: [i in "az" for i in table["id"].to_pylist()]
    )
    assert sorted(int(v.max()) for v in by_hand.v.values) == [2, 3]


def test_a_list_of_keys_may_name_days_and_columns(tmp_path: Path) -> None:
    made = [
        Scene(
            f"{day}{platform}",
            {"v": cog(tmp_path, f"{day}{platform}", np.full((32, 32), k + 1, np.uint16))},
            f"2023-07-0{day}T10:00:0{k}",
            columns={"platform": platform},
        )
        for k, (day, platform) in enumerate([(1, "A"), (1, "B"), (2, "A"), (2, "A")])
        if not (day == 2 and k == 3)
    ]
    cube = collect(*made).get_xarray(groupby=["solar_day", "platform"])
    assert [int(v.max()) for v in cube.v.values] == [1, 2, 3]


def test_a_file_around_the_pole_in_lonlat_over_the_antimeridian(tmp_path: Path) -> None:
    image = RNG.integers(1, 5000, (120, 120)).astype(np.uint16)
    at = Affine(1000, 0, -60_000, 0, -1000, 60_000)
    collection = collect(
        Scene("p", {"v": cog(tmp_path, "p", image, transform=at, crs="EPSG:3413")})
    )
    cube = collection.get_xarray(
        crs="EPSG:4326",
        resolution=(0.25, 0.02),
        bbox=(100, 89.55, -100, 89.7),
        fill_value=0,
        chunks={"y": 5, "x": 300},
    )
    assert (float(cube.x[0]), float(cube.x[-1])) == (100.125, 259.875)
    there = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
    x, y = there.transform(*np.meshgrid(cube.x.values, cube.y.values))
    u, v = (x + 60_000) / 1000, (60_000 - y) / 1000
    expected = image[np.floor(v).astype(int), np.floor(u).astype(int)]
    unsure = (abs(u - np.round(u)) < 2e-3) | (abs(v - np.round(v)) < 2e-3)
    assert unsure.mean() < 0.02
    assert np.array_equal(cube.v.values[0][~unsure], expected[~unsure])


def test_transparent_pixels_are_nothing_to_every_mosaic(tmp_path: Path) -> None:
    images = RNG.integers(1, 255, (2, 4, 64, 64)).astype(np.uint8)
    images[:, 3] = np.where(RNG.random((2, 64, 64)) < 0.4, 0, 255)
    images[1, 3, 5:9] = images[0, 3, 5:9] = 0
    scenes = []
    for k, image in enumerate(images):
        how = {"photometric": "RGB", "alpha": "YES", "driver": "GTiff", "nodata": None}
        file = cog(tmp_path, f"{k}", image, **how)
        scenes.append(Scene(f"i{k}", {"r": (file, 0)}, f"2023-07-03T10:00:0{k}"))
    collection = collect(*scenes)
    seen = images[:, 3] != 0
    values = np.where(seen, images[:, 0].astype(float), np.nan)
    first = np.where(seen[0], values[0], values[1])
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {"first": first, "mean": np.nanmean(values, 0), "max": np.nanmax(values, 0)}
    for mosaic, expected in wanted.items():
        cube = collection.get_xarray(groupby="solar_day", mosaic=mosaic, masked=True)
        np.testing.assert_allclose(cube.r.values[0], expected, rtol=1e-6)
    count = collection.get_xarray(groupby="solar_day", mosaic="count")
    assert np.array_equal(count.r.values[0], seen.sum(axis=0))
    with pytest.raises(RasteretError, match="masked pixels"):
        collection.get_xarray(groupby="solar_day")


@pytest.mark.parametrize("how", [{}, {"crs": "EPSG:3857", "resolution": 15}])
def test_files_with_one_corner_and_two_sizes_share_no_more_than_that(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    """What a window needs of a source is worked out once for those that lie alike; a shorter file does not."""
    image = np.arange(1, 64 * 64 + 1, dtype="u2").reshape(64, 64)
    made = []
    for day, rows in ((1, 64), (2, 32), (3, 64)):
        make_cog(tmp_path / f"{day}.tif", image[:rows] + 5000 * day, nodata=0, blocksize=32)
        made.append(
            Scene(f"s{day}", {"red": str(tmp_path / f"{day}.tif")}, f"2023-07-0{day}T10:00:00")
        )
    got = (
        collect(*made).get_xarray(bands=["red"], chunks={"time": -1}, **how).red.values.astype("i4")
    )
    first, short, last = got
    # One image under all: what the short file has is the same less its day, and it has about half.
    assert np.array_equal(first != 0, last != 0)
    assert np.array_equal(last[last != 0] - 15_000, first[first != 0] - 5000)
    assert np.array_equal((short - 10_000)[short != 0], (first - 5000)[short != 0])
    assert np.array_equal(short != 0, (first != 0) & (first - 5000 <= 32 * 64))
