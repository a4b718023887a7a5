"""What the cube's arguments mean, sentence by sentence: those that no other test speaks of."""

from __future__ import annotations

import datetime as dt
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000.0, 5_200_000.0
AT = Affine(10, 0, LEFT, 0, -10, TOP)
RNG = np.random.default_rng(23)


def cog(path: Path, name: str, array: np.ndarray, **how: Any) -> Path:
    options = {"transform": AT, "nodata": 0, "blocksize": 64, "overviews": 0, **how}
    return make_cog(path / f"{name}.tif", array, **options)


def plain(path: Path, name: str, value: int = 7, **how: Any) -> Path:
    return cog(path, name, np.full((64, 64), value, np.uint16), **how)


def told(collection: rd.Collection, **how: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        collection.get_xarray(**how)
    return [str(w.message) for w in found if issubclass(w.category, errors.RasteretWarning)]


# --- time ----------------------------------------------------------------------------------------
def test_a_steps_label_is_its_earliest_member_and_time_bnds_its_first_and_last(
    tmp_path: Path,
) -> None:
    file = plain(tmp_path, "v")
    times = ("2023-07-03T10:20:31.024", "2023-07-03T10:20:17.001", "2023-07-01T09:00:00")
    scenes = [Scene(f"i{k}", {"v": file}, t) for k, t in enumerate(times)]
    cube = collect(*scenes).get_xarray(groupby="solar_day")
    assert cube.time.dtype == np.dtype("datetime64[ns]")
    first = np.array(["2023-07-01T09:00:00", "2023-07-03T10:20:17.001"], "datetime64[ns]")
    last = np.array(["2023-07-01T09:00:00", "2023-07-03T10:20:31.024"], "datetime64[ns]")
    assert np.array_equal(cube.time.values, first)
    assert np.array_equal(cube.time_bnds.values, np.stack([first, last], axis=1))


@pytest.mark.parametrize("known", [True, False])
def test_a_datatake_or_solar_day_in_several_steps_warns_and_names_solar_day(
    tmp_path: Path, known: bool
) -> None:
    file = plain(tmp_path, "v")
    takes = ["GS2A_1", "GS2A_1", "GS2B_2"] if known else [None] * 3
    times = ("2023-07-03T10:20:17", "2023-07-03T10:20:31", "2023-07-05T10:20:17")
    scenes = [
        Scene(f"i{k}", {"v": file}, t, columns={"s2:datatake_id": takes[k]})
        for k, t in enumerate(times)
    ]
    (said,) = told(collect(*scenes))
    assert "groupby='solar_day'" in said
    assert told(collect(*scenes), groupby="solar_day") == []
    assert told(collect(*scenes[1:])) == []


@pytest.mark.parametrize(("lon", "days"), [(15.0, 2), (170.0, 1), (-170.0, 1)])
def test_the_solar_day_comes_from_the_centroids_longitude(
    tmp_path: Path, lon: float, days: int
) -> None:
    """22:30 and 23:30 UTC: one day at Greenwich; at 15 E the second is past midnight, at 170 W it is noon."""

    file = plain(tmp_path, "v")
    # The box's middle says 7 E, where both are one day; most of the footprint lies further east.
    shape = shapely.Polygon([(lon - 16, 40), (lon + 1, 40), (lon + 1, 60), (lon, 60), (lon, 40.1)])
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds))
    columns = {"bbox": box, "geometry": shape.wkb}
    scenes = [
        Scene(f"i{hour}", {"v": file}, f"2023-07-03T{hour}:20:00", columns=columns)
        for hour in (22, 23)
    ]
    cube = collect(*scenes).get_xarray(groupby="solar_day")
    assert cube.sizes["time"] == days
    middle = [Scene(s.id, s.files, s.time, columns={"bbox": box}) for s in scenes]
    assert collect(*middle).get_xarray(groupby="solar_day").sizes["time"] == 1


@pytest.mark.parametrize(
    ("period", "steps"),
    [
        ("1D", [0, 1, 2, 3, 4, 5, 6]),
        ("1W", [0, 0, 0, 1, 2, 2, 3]),  # Monday to Sunday
        ("1MS", [0, 0, 0, 0, 0, 1, 2]),
        ("1ME", [0, 0, 0, 0, 0, 1, 2]),
        ("1QE", [0, 0, 0, 0, 0, 0, 1]),
        ("1YS", [0, 0, 0, 0, 0, 0, 0]),
        ("2D", [0, 1, 2, 2, 3, 3, 4]),
    ],
)
def test_a_period_holds_what_pandas_says(tmp_path: Path, period: str, steps: list[int]) -> None:
    days = ("07-03", "07-08", "07-09", "07-10", "07-31", "08-01", "10-01")
    scenes = [
        Scene(f"i{k}", {"v": plain(tmp_path, f"v{k}", k + 1)}, f"2023-{day}T10:00:00")
        for k, day in enumerate(days)
    ]
    cube = collect(*scenes).get_xarray(groupby=period)
    firsts = [steps.index(step) + 1 for step in range(max(steps) + 1)]
    assert cube.v.values[:, 0, 0].tolist() == firsts
    members = collect(*scenes).get_xarray(groupby=period, mosaic="count").v.values[:, 0, 0]
    assert members.tolist() == [steps.count(step) for step in range(max(steps) + 1)]


def test_ascending_and_descending_never_mix(tmp_path: Path) -> None:
    orbits = [("ascending", 44), ("descending", 95), ("ascending", 117), ("ascending", 44)]
    scenes = [
        Scene(
            f"i{k}",
            {"v": plain(tmp_path, f"v{k}", k + 1)},
            f"2023-07-03T05:00:0{k}",
            columns={"sat:orbit_state": state, "sat:relative_orbit": number},
        )
        for k, (state, number) in enumerate(orbits)
    ]
    for groupby in ("solar_day", "1D", ["platform"]):
        cube = collect(*scenes).get_xarray(groupby=groupby)
        assert cube.v.values[:, 0, 0].tolist() == [1, 2, 3]


# --- nodata and types ----------------------------------------------------------------------------
def test_the_file_says_nothing_then_stac_speaks_and_the_user_before_all(tmp_path: Path) -> None:
    values = RNG.integers(0, 4, (64, 64)).astype(np.uint8)
    silent, spoken = cog(tmp_path, "s", values, nodata=None), cog(tmp_path, "t", values, nodata=1)
    declared = {"v": {"nodata": 2.0}}
    for file, how, nothing in ((silent, {}, 2), (spoken, {}, 1), (silent, {"nodata": 3}, 3)):
        cube = collect(Scene("a", {"v": file}, declared=declared)).get_xarray(masked=True, **how)
        assert np.array_equal(np.isnan(cube.v.values[0]), values == nothing)


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("uint8", "float32"),
        ("int16", "float32"),
        ("uint16", "float32"),
        ("int32", "float64"),
        ("uint32", "float64"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_masked_is_float32_up_to_16_bits_and_float64_above(
    tmp_path: Path, dtype: str, becomes: str
) -> None:
    values = RNG.integers(0, 100, (64, 64)).astype(dtype)
    cube = collect(Scene("a", {"v": cog(tmp_path, "v", values)})).get_xarray(masked=True)
    assert cube.v.dtype == becomes
    assert np.isnan(cube.v.encoding["_FillValue"])
    assert "_FillValue" not in cube.v.attrs
    bare = collect(Scene("a", {"v": cog(tmp_path, "v", values)})).get_xarray()
    assert bare.v.dtype == dtype
    assert bare.v.attrs["_FillValue"] == 0


@pytest.mark.parametrize("masked", [False, True])
def test_after_scaling_no_scale_factor_remains(tmp_path: Path, masked: bool) -> None:
    values = RNG.integers(0, 9, (64, 64)).astype(np.uint16)
    file = cog(tmp_path, "v", values, scales=[0.5], offsets=[-1.0])
    cube = collect(Scene("a", {"v": file})).get_xarray(scale=True, masked=masked)
    assert cube.v.dtype == np.float32
    want = np.where(values == 0, np.nan, values * 0.5 - 1.0)
    np.testing.assert_array_equal(cube.v.values[0], want)
    for where in (cube.v.attrs, cube.v.encoding):
        assert not {"scale_factor", "add_offset"} & set(where)
    cube.drop_vars("spatial_ref").to_zarr(tmp_path / "v.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "v.zarr", consolidated=False)
    np.testing.assert_array_equal(again.v.values[0], want)


def test_a_band_without_a_scale_keeps_its_precision_under_scale(tmp_path: Path) -> None:
    values = np.full((64, 64), 2**24 + 1, np.int32)  # one more than float32 can count
    values[0] = 0
    collection = collect(Scene("a", {"v": cog(tmp_path, "v", values)}))
    cube = collection.get_xarray(scale=True, masked=True)
    assert cube.v.dtype == np.float64
    np.testing.assert_array_equal(cube.v.values[0], np.where(values == 0, np.nan, values))
    bare = collection.get_xarray(scale=True)
    assert bare.v.dtype == np.int32
    np.testing.assert_array_equal(bare.v.values[0], values)
    assert np.array_equal(collection.get_numpy(scale=True)[0], values)
    where = np.array([(LEFT + 5, TOP - 15)])
    rows = collection.sample_points(where, geometry_crs=32633, scale=True)
    assert rows["value"].to_pylist() == [2**24 + 1]


def test_what_offset_was_applied_is_a_coordinate_on_time(tmp_path: Path) -> None:
    scenes = [
        Scene(
            f"i{k}",
            {"red": plain(tmp_path, f"r{k}", 2000 if k else 3000)},
            f"2022-0{k + 1}-03T10:00:00",
            columns={"collection": "sentinel-2-l2a", "s2:processing_baseline": baseline},
        )
        for k, baseline in enumerate(("04.00", "03.01"))
    ]
    cube = collect(*scenes).get_xarray(scale=True)
    assert cube.s2_offset.dims == ("time",)
    assert cube.s2_offset.values.tolist() == [-1000.0, 0.0]
    assert cube.s2_offset_rule.values.tolist() == ["baseline 04.00", "baseline 03.01"]
    np.testing.assert_allclose(cube.red.values[:, 0, 0], 0.2)


# --- masks ---------------------------------------------------------------------------------------
def test_fmask_255_is_nodata_first_though_only_the_descriptor_says_so(tmp_path: Path) -> None:
    values = RNG.integers(1, 99, (64, 64)).astype(np.int16)
    flags = RNG.integers(0, 8, (64, 64)).astype(np.uint8)
    flags[:10] = 255
    files = {
        "v": cog(tmp_path, "v", values, nodata=-9999),
        "Fmask": cog(tmp_path, "f", flags, nodata=None),
    }
    bands = (rd.BandInfo("v", "v"), rd.BandInfo("Fmask", "Fmask", categorical=True, nodata=255))
    collection = replace(collect(Scene("a", files)), infos=bands)
    mask = {"band": "Fmask", "bits": {1: [0, 1]}}  # every value passes
    cube = collection.get_xarray(bands=["v"], masked=True, mask=mask)
    assert np.array_equal(np.isnan(cube.v.values[0]), flags == 255)
    dropped = {"band": "Fmask", "drop": [3], "dilate": 10.0}
    cube = collection.get_xarray(bands=["v"], masked=True, mask=dropped, nodata=-1)
    near = flags == 3
    for axis in (0, 1):
        for step in (-1, 1):
            moved = np.roll(flags == 3, step, axis)
            moved[
                (0 if step == 1 else -1,) if axis == 0 else (slice(None), 0 if step == 1 else -1)
            ] = False
            near = near | moved
    assert np.array_equal(np.isnan(cube.v.values[0]), near | (flags == 255))


def test_an_item_without_the_mask_band_has_nothing_that_is_kept(tmp_path: Path) -> None:
    first, second = plain(tmp_path, "a", 5), plain(tmp_path, "b", 6)
    judged = {"v": second, "m": plain(tmp_path, "m", 4, nodata=None)}
    scenes = [Scene("a", {"v": first}), Scene("b", judged, "2023-07-03T11:00:00")]
    how: dict[str, Any] = {"bands": ["v"], "groupby": "1D", "mask": {"band": "m", "keep": [4]}}
    cube = collect(*scenes).get_xarray(missing="nodata", **how)
    assert (cube.v.values == 6).all()
    steps = collect(*scenes).get_xarray(missing="nodata", **{**how, "groupby": "id"})
    assert steps.v.values[:, 0, 0].tolist() == [0, 6]
    with pytest.raises(errors.MissingBandError, match="'m'"):
        collect(*scenes).get_xarray(**how)


@pytest.mark.parametrize("dilate", [0.0, 25.0])
def test_a_mask_tile_that_fails_hides_what_it_would_have_judged(
    tmp_path: Path, dilate: float
) -> None:
    """Its memory holds 0, which a mask that drops 3 and has no nodata would keep."""
    values = RNG.integers(1, 99, (128, 128)).astype(np.uint16)
    classes = RNG.integers(4, 200, (128, 128)).astype(np.uint8)
    mask_file = cog(tmp_path, "m", classes, nodata=None)
    scene = Scene("a", {"v": cog(tmp_path, "v", values), "m": mask_file})
    column = collect(scene).to_table().column("m_metadata")[0].as_py()
    data = bytearray(mask_file.read_bytes())
    start = column["tile_offsets"][3]
    data[start : start + 40] = bytes(40)
    mask_file.write_bytes(data)
    cube = collect(scene).get_xarray(
        bands=["v"],
        mask={"band": "m", "drop": [3], "dilate": dilate},
        on_error="record",
        ledger=str(tmp_path / "ledger"),
    )
    found = cube.v.values[0]
    hidden = np.zeros(values.shape, bool)
    reach = int(np.ceil(dilate / 10.0))
    hidden[64 - reach :, 64 - reach :] = True
    assert np.array_equal(found, np.where(hidden, 0, values))
    (row,) = read_ledger(str(tmp_path / "ledger"), cube.attrs["rasteret_run"]).to_pylist()
    assert (row["band"], row["source_band"], row["tile_row"], row["tile_col"]) == ("v", "m", 1, 1)


# --- resampling ----------------------------------------------------------------------------------
def test_class_bands_are_never_interpolated_unless_told(tmp_path: Path) -> None:
    values = RNG.choice(np.array([1, 9], np.uint8), (64, 64))
    colours = {k: (k, k, k, 255) for k in range(10)}
    files = {
        "palette": cog(tmp_path, "p", values, colormap=colours),
        "bit": cog(tmp_path, "b", (values == 9).astype(np.uint8), nbits=1, nodata=None),
        "scl": cog(tmp_path, "s", values),
        "said": cog(tmp_path, "d", values),
        "grey": cog(tmp_path, "g", values),
    }
    infos = tuple(rd.BandInfo(n, n, categorical=n == "said") for n in files)
    collection = replace(collect(Scene("a", files)), infos=infos)
    how: dict[str, Any] = {"resolution": 7, "masked": True, "bands": list(files)}
    cube = collection.get_xarray(resampling="bilinear", **how).compute()
    for band in ("palette", "scl", "said"):
        seen = cube[band].values
        assert set(np.unique(seen[np.isfinite(seen)])) == {1, 9}
        assert cube[band].attrs["rasteret:resampling"] == "nearest"
    assert set(np.unique(cube.bit.values[np.isfinite(cube.bit.values)])) == {0, 1}
    assert cube.bit.attrs["rasteret:resampling"] == "nearest"
    assert len(np.unique(cube.grey.values)) > 4
    mode = collection.get_xarray(resampling="mode", **how)
    assert {mode[b].attrs["rasteret:resampling"] for b in files} == {"mode"}
    roles = collection.get_xarray(resampling={"classes": "mode", "values": "cubic"}, **how)
    assert {b: roles[b].attrs["rasteret:resampling"] for b in files} == {
        **dict.fromkeys(files, "mode"),
        "grey": "cubic",
    }
    named = collection.get_xarray(resampling={"palette": "bilinear"}, **how)
    assert len(np.unique(named.palette.values)) > 4


METHODS = ("nearest", "bilinear", "cubic", "average", "mode", "min", "max", "q1", "med", "q3")
FIVE: list[Any] = ["auto", "tile", {"y": 29, "x": 200}, {"y": 200, "x": 31}, {"y": 64, "x": 50}]


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    """Two neighbours of different zones with holes."""
    path = tmp_path_factory.mktemp("holed")
    made = []
    for k, (crs, left, top) in enumerate(
        (("EPSG:32633", 500_000.0, 5_200_000.0), ("EPSG:32632", 956_500.0, 5_214_500.0))
    ):
        values = RNG.integers(1, 4000, (150, 170)).astype(np.uint16)
        values[RNG.random(values.shape) < 0.1] = 0
        values[30:60, 30:90] = 0
        at = Affine(10, 0, left, 0, -10, top)
        made.append(
            Scene(
                f"i{k}",
                {"v": cog(path, f"v{k}", values, transform=at, crs=crs)},
                f"2023-07-01T10:00:0{k}",
            )
        )
    return collect(*made)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "how", [{"resolution": 23}, {"crs": "EPSG:3035", "resolution": 14}], ids=str
)
def test_five_chunkings_are_bit_identical_for_every_resampling(
    holed: rd.Collection, method: str, how: dict[str, Any]
) -> None:
    def cube(chunks: Any) -> xr.Dataset:
        return holed.get_xarray(
            groupby="1D", masked=True, resampling=method, overviews=False, chunks=chunks, **how
        ).compute()

    whole = cube(None)
    assert 0.2 < float(np.isfinite(whole.v).mean()) < 0.95
    for chunks in FIVE:
        found = cube(chunks)
        assert found.v.values.tobytes() == whole.v.values.tobytes()
        assert found.identical(whole)


@pytest.mark.parametrize("method", ["average", "max"])
def test_chunks_change_nothing_where_pixels_grow_across_the_grid(
    tmp_path: Path, method: str
) -> None:
    """A pixel of Mercator holds seven times as many of a map's at the equator as at 82 degrees."""
    values = RNG.integers(1, 20_000, (820, 150)).astype(np.uint16)
    at = Affine(0.1, 0, 0.0, 0, -0.1, 82.0)
    file = cog(tmp_path, "v", values, transform=at, crs="EPSG:4326", blocksize=16)
    how: dict[str, Any] = {"crs": "EPSG:3857", "resolution": 300_000.0, "resampling": method}
    collection = collect(Scene("a", {"v": file}))
    whole = collection.get_xarray(masked=True, overviews=False, chunks=None, **how)
    cut = collection.get_xarray(masked=True, overviews=False, chunks={"y": 4, "x": 2}, **how)
    assert whole.v.values.tobytes() == cut.v.values.tobytes()


def test_the_grid_that_was_chosen_is_said_in_the_attributes(holed: rd.Collection) -> None:
    cube = holed.get_xarray(groupby="1D", resolution=20, overviews="auto")
    assert cube.attrs["rasteret:crs"] == cube.rio.crs.to_string() == "EPSG:32632"
    assert set(cube.attrs["rasteret:source_crs"]) == {"EPSG:32632", "EPSG:32633"}
    assert cube.attrs["rasteret:resolution"] == [20.0, 20.0]
    assert cube.attrs["rasteret:level"] == 0


def test_no_overview_is_coarser_than_the_output_anywhere(tmp_path: Path) -> None:
    """On Mercator 36 km are more than three of the map's pixels at the equator, and one at 69 degrees."""
    values = RNG.integers(1, 999, (700, 60)).astype(np.uint16)
    at = Affine(0.1, 0, 10.0, 0, -0.1, 70.0)
    file = cog(tmp_path, "v", values, transform=at, crs="EPSG:4326", overviews=1)
    collection = collect(Scene("a", {"v": file}))
    how: dict[str, Any] = {"crs": "EPSG:3857", "resolution": 36_000.0}
    far = collection.get_xarray(bbox=(11.0, 1.0, 15.0, 69.0), **how)
    assert far.attrs["rasteret:level"] == 0
    low = collection.get_xarray(bbox=(11.0, 1.0, 15.0, 5.0), **how)
    assert low.attrs["rasteret:level"] == 1
    assert np.array_equal(far.v.values, collection.get_xarray(like=far, overviews="off").v.values)


@pytest.mark.parametrize("method", METHODS)
def test_nodata_never_bleeds_into_its_neighbours(tmp_path: Path, method: str) -> None:
    """A constant image with holes stays that constant, whatever the kernel and the nodata value."""
    values = np.full((120, 120), 500, np.int16)
    holes = RNG.random(values.shape) < 0.3
    for nodata in (-32768, 0, 32767):
        image = np.where(holes, nodata, values).astype(np.int16)
        collection = collect(Scene("a", {"v": cog(tmp_path, "v", image, nodata=nodata)}))
        for how in ({"resolution": 17}, {"resolution": 6}, {"crs": "EPSG:3035", "resolution": 13}):
            cube = collection.get_xarray(resampling=method, overviews=False, **how)
            seen = np.unique(cube.v.values)
            assert set(seen.tolist()) <= {500, nodata}
            assert 500 in seen


@pytest.mark.parametrize("method", METHODS)
def test_a_south_up_file_gives_what_the_same_file_gives_north_up(
    tmp_path: Path, method: str
) -> None:
    """Also where every coordinate lies on an edge: whose pixel that is must not depend on how rows are stored."""
    values = RNG.integers(1, 200, (40, 48)).astype(np.float32)
    values[RNG.random(values.shape) < 0.3] = 0
    how: dict[str, Any] = {"driver": "GTiff", "blocksize": 16}
    north = collect(Scene("a", {"v": cog(tmp_path, "n", values, **how)}))
    upwards = Affine(10, 0, LEFT, 0, 10, TOP - 400)
    south = collect(Scene("a", {"v": cog(tmp_path, "s", values[::-1], **how, transform=upwards)}))
    for grid in ({"anchor": (LEFT + 5, TOP + 5)}, {"resolution": 20}, {"resolution": 15}):
        how = {"resampling": method, "masked": True, "overviews": False, **grid}
        one, two = north.get_xarray(**how).v.values, south.get_xarray(**how).v.values
        np.testing.assert_allclose(one, two, rtol=1e-5, equal_nan=True)


# --- where ---------------------------------------------------------------------------------------
def test_ways_to_say_the_same_place(tmp_path: Path) -> None:
    values = RNG.integers(1, 999, (128, 128)).astype(np.uint16)
    collection = collect(Scene("a", {"v": cog(tmp_path, "v", values)}))
    box = (15.002, 46.94, 15.011, 46.945)
    one = collection.get_xarray(bbox=box)
    assert collection.get_xarray(box).identical(one)
    assert 1 < one.sizes["x"] < 128
    bounds = one.rio.bounds()
    assert collection.get_xarray(bounds, geometry_crs="EPSG:32633").identical(one)
    geobox = GeoBox(one.v.shape[1:], one.rio.transform(), "EPSG:32633")
    assert collection.get_xarray(geobox=geobox).identical(one)
    assert collection.get_xarray(like=one).identical(one)
    warped = collection.get_xarray(bbox=box, crs="EPSG:3035", resolution=10)
    assert collection.get_xarray(bbox=box, target_crs="EPSG:3035", resolution=10).identical(warped)
    assert collection.get_xarray(bbox=box, crs="native").identical(one)
    assert collection.get_xarray(bbox=box, crs="utm").identical(one)


def test_chunks_none_computes_and_an_empty_mapping_takes_the_tiles(tmp_path: Path) -> None:
    values = RNG.integers(1, 999, (150, 170)).astype(np.uint16)
    collection = collect(Scene("a", {"v": cog(tmp_path, "v", values)}))
    assert collection.get_xarray(chunks=None).v.chunks is None
    natural = collection.get_xarray(chunks={})
    assert natural.v.chunks == ((1,), (64, 64, 22), (64, 64, 42))
    part = collection.get_xarray(
        (500_300.0, 5_199_000.0, 501_500.0, 5_199_900.0), geometry_crs=32633, chunks={}
    )
    # 30 columns and 10 rows into the first tile.
    assert part.v.chunks == ((1,), (54, 36), (34, 64, 22))


def test_files_with_control_points_alone_are_refused_for_cubes_by_name(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(r, c, 15 + c / 1e4, 47 - r / 1e4) for r in (0, 60) for c in (0, 60)
    ]
    path = tmp_path / "grd.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16", tiled=True,
        blockxsize=64, blockysize=64, gcps=points, crs="EPSG:4326",
    ) as image:  # fmt: skip
        image.write(np.ones((1, 64, 64), np.uint16))
    with pytest.raises(rd.RasteretError, match="ground control points") as caught:
        collect(Scene("s1-grd", {"vv": path})).get_xarray()
    assert caught.value.item == "s1-grd"
    assert "open_tiff" in str(caught.value.hint)


# --- properties ----------------------------------------------------------------------------------
def test_several_items_a_step_give_means_or_lists(tmp_path: Path) -> None:
    file = plain(tmp_path, "v")
    scenes = [
        Scene(
            f"i{k}",
            {"v": file},
            f"2023-07-0{1 + k // 2}T10:00:0{k}",
            columns={"eo:cloud_cover": clouds, "platform": platform},
        )
        for k, (clouds, platform) in enumerate(((10.0, "a"), (20.0, "b"), (30.0, "a"), (None, "a")))
    ]
    cube = collect(*scenes).get_xarray(
        groupby="solar_day", properties=["eo:cloud_cover", "platform"]
    )
    assert cube["eo:cloud_cover"].values.tolist() == [15.0, 30.0]
    assert cube.platform.values.tolist() == ["a, b", "a"]
    assert dt.datetime(2023, 7, 1) < cube.time.values[0].astype("datetime64[ms]").astype(
        dt.datetime
    )


# --- the graph -----------------------------------------------------------------------------------
def test_an_unsliced_graph_takes_less_than_twenty_bytes_a_tile_read(tmp_path: Path) -> None:
    values = RNG.integers(1, 9999, (176, 176)).astype(np.uint16)
    files = {band: cog(tmp_path, band, values, blocksize=16) for band in ("a", "b")}
    start = dt.datetime(2015, 7, 1)
    scenes = [
        Scene(f"S2A_33UXP_{k:06d}", files, str(start + dt.timedelta(days=k))) for k in range(30)
    ]
    collection = collect(*scenes)
    cube = collection.get_xarray()
    reads = 30 * 2 * 121
    assert collection.explain().total.tiles == reads
    size = sum(len(pickle.dumps(cube[band].data.dask)) for band in ("a", "b"))
    assert size / reads < 20
    assert pickle.dumps(cube.a.data.dask) == pickle.dumps(collection.get_xarray().a.data.dask)


def test_query_planning_is_refused_clearly(tmp_path: Path) -> None:
    """It can be set only before dask.array is imported; that it is set is enough to know."""
    collection = collect(Scene("a", {"v": plain(tmp_path, "v")}))
    with (
        dask.config.set({"array.query-planning": True}),
        pytest.raises(errors.ArgumentError, match="query-planning") as caught,
    ):
        collection.get_xarray()
    assert "False" in str(caught.value.hint)
