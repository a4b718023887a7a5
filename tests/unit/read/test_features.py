"""Overviews, mosaics, periods, dilation, ranks and properties: expectations by NumPy and rasterio."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from handmade import Scene, austria_scenes, collect

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000.0, 5_200_000.0
AT = Affine(10, 0, LEFT, 0, -10, TOP)
SHAPE = (300, 340)


def cog(path: Path, name: str, array: np.ndarray, **how: Any) -> Path:
    options = {"transform": AT, "crs": "EPSG:32633", "nodata": 0, "blocksize": 128, **how}
    return make_cog(path / f"{name}.tif", array, **options)


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    """Four dates with holes, of which the first two belong to one month."""
    rng = np.random.default_rng(5)
    out = rng.integers(1, 4000, (4, *SHAPE)).astype(np.uint16)
    out[rng.random(out.shape) < 0.3] = 0
    out[:, 10:20, 10:20] = 0
    return out


@pytest.fixture(scope="module")
def dates(stack: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    path = tmp_path_factory.mktemp("dates")
    times = (
        "2023-07-01T10:00:00",
        "2023-07-11T10:00:00",
        "2023-08-01T10:00:00",
        "2023-08-05T10:00:00",
    )
    clouds = (50.0, 10.0, 30.0, None)
    return collect(
        *(
            Scene(
                f"d{k}",
                {"v": cog(path, f"d{k}", stack[k], overviews=0)},
                times[k],
                columns={"eo:cloud_cover": clouds[k], "platform": "ab"[k % 2]},
            )
            for k in range(4)
        )
    )


# --- periods and mosaics -------------------------------------------------------------------------
def expected_mosaic(layers: np.ndarray, how: str) -> np.ndarray:
    masked = np.where(layers == 0, np.nan, layers.astype(np.float64))
    if how in ("first", "last"):
        order = masked if how == "first" else masked[::-1]
        out = np.full(layers.shape[1:], np.nan)
        for layer in order:
            out = np.where(np.isnan(out), layer, out)
        return out
    if how == "count":
        return np.isfinite(masked).sum(axis=0).astype(np.float64)
    with np.errstate(all="ignore"):
        found = {"min": np.nanmin, "max": np.nanmax, "mean": np.nanmean, "median": np.nanmedian}[
            how
        ]
        return np.asarray(found(masked, axis=0))


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.filterwarnings("ignore:Mean of empty")
@pytest.mark.parametrize("chunks", ["auto", {"y": 77, "x": 100}])
@pytest.mark.parametrize("how", ["first", "last", "min", "max", "mean", "median", "count"])
def test_a_months_items_become_one(
    dates: rd.Collection, stack: np.ndarray, how: str, chunks: Any
) -> None:
    masked = how != "count"
    cube = dates.get_xarray(groupby="1MS", mosaic=how, masked=masked, chunks=chunks)
    assert cube.time.values.astype("datetime64[D]").astype(str).tolist() == [
        "2023-07-01",
        "2023-08-01",
    ]
    for step, layers in enumerate((stack[:2], stack[2:])):
        np.testing.assert_allclose(
            cube.v.values[step], expected_mosaic(layers, how), rtol=1e-6, equal_nan=True
        )


def test_ranks_follow_a_column_and_missing_ones_come_last(
    dates: rd.Collection, stack: np.ndarray
) -> None:
    ranked = dates.get_xarray(groupby="1YS", sortby="eo:cloud_cover").v.values[0]
    order = stack[[1, 2, 0, 3]]
    assert np.array_equal(ranked, np.nan_to_num(expected_mosaic(order, "first")))
    reverse = dates.get_xarray(groupby="1YS", sortby="-eo:cloud_cover").v.values[0]
    assert np.array_equal(reverse, np.nan_to_num(expected_mosaic(stack[[0, 2, 1, 3]], "first")))


def test_early_exit_changes_no_pixel(dates: rd.Collection) -> None:
    for chunks in ("auto", {"y": 100, "x": 77}):
        plain = dates.get_xarray(groupby="1YS", chunks=chunks).v.values
        early = dates.get_xarray(groupby="1YS", chunks=chunks, early_exit=True).v.values
        assert np.array_equal(plain, early)


def test_columns_and_functions_group(dates: rd.Collection, stack: np.ndarray) -> None:
    by_column = dates.get_xarray(groupby="platform").v.values
    assert np.array_equal(by_column[0], np.nan_to_num(expected_mosaic(stack[[0, 2]], "first")))
    by_both = dates.get_xarray(groupby=["platform", "eo:cloud_cover"])
    assert by_both.sizes["time"] == 4
    by_function = dates.get_xarray(groupby=lambda rows: [0] * len(rows))
    assert by_function.sizes["time"] == 1
    with pytest.raises(rd.RasteretError, match="3 keys for 4"):
        dates.get_xarray(groupby=lambda rows: [0, 1, 2])
    with pytest.raises(rd.RasteretError, match="groupby"):
        dates.get_xarray(groupby="nonsense")


def test_properties_become_coordinates(dates: rd.Collection) -> None:
    cube = dates.get_xarray(groupby="1MS", properties=["eo:cloud_cover", "platform"])
    assert cube["eo:cloud_cover"].dims == ("time",)
    assert cube["eo:cloud_cover"].values.tolist() == [30.0, 30.0]
    assert cube["platform"].values.tolist() == ["a, b", "a, b"]
    with pytest.raises(rd.RasteretError, match="nowhere"):
        dates.get_xarray(properties=["nowhere"])


# --- overviews -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[rd.Collection, dict[str, Path]]:
    path = tmp_path_factory.mktemp("pyramid")
    rng = np.random.default_rng(6)
    smooth = rng.integers(1, 4000, (512, 512)).astype(np.uint16)
    classes = rng.integers(1, 6, (512, 512)).astype(np.uint8)
    files = {
        "v": cog(path, "v", smooth, overviews=2, resampling="average"),
        "SCL": cog(path, "SCL", classes, overviews=2, resampling="average"),
    }
    return collect(Scene("p", files)), files


def overview(path: Path, level: int) -> np.ndarray:
    with rasterio.open(path) as file:
        factor = file.overviews(1)[level - 1]
    with rasterio.open(path, overview_level=level - 1) as file:
        assert file.width == 512 // factor
        return np.asarray(file.read(1))


@pytest.mark.parametrize(
    ("resolution", "level"), [(10, 0), (19.9, 0), (20, 1), (39, 1), (40, 2), (90, 2)]
)
def test_the_coarsest_level_that_loses_nothing_is_read(
    pyramid: tuple[rd.Collection, dict[str, Path]], resolution: float, level: int
) -> None:
    collection, files = pyramid
    cube = collection.get_xarray(bands=["v"], resolution=resolution)
    assert cube.v.attrs["rasteret:level"] == [level]
    if resolution in (20, 40):
        assert np.array_equal(cube.v.values[0], overview(files["v"], level))


def test_class_bands_trust_overviews_made_by_nearest_alone(
    pyramid: tuple[rd.Collection, dict[str, Path]],
) -> None:
    collection, files = pyramid
    cube = collection.get_xarray(bands=["v", "SCL"], resolution=20, resampling="bilinear")
    assert {b: cube[b].attrs["rasteret:level"] for b in cube} == {"v": [1], "SCL": [0]}
    methods = {b: cube[b].attrs["rasteret:resampling"] for b in cube}
    assert methods == {"v": "bilinear", "SCL": "nearest"}
    told = collection.get_xarray(bands=["SCL"], resolution=20, overviews=1)
    assert np.array_equal(told.SCL.values[0], overview(files["SCL"], 1))
    obeyed = collection.get_xarray(bands=["SCL"], resolution=20, resampling={"SCL": "average"})
    assert obeyed.SCL.attrs["rasteret:resampling"] == "average"
    off = collection.get_xarray(bands=["v"], resolution=40, overviews="off")
    assert off.v.attrs["rasteret:level"] == [0]
    with pytest.raises(rd.RasteretError, match="overview level 7"):
        collection.get_xarray(bands=["v"], overviews=7)


def test_class_bands_whose_files_say_nearest_are_read_from_overviews(austria: Path) -> None:
    real = collect(*austria_scenes(austria)[:1])
    cube = real.get_xarray(bands=["scl"], resolution=500, resampling="mode")
    assert cube.scl.attrs["rasteret:level"] == [2]
    assert cube.scl.attrs["rasteret:resampling"] == "mode"


# --- masks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunks", ["auto", {"y": 50, "x": 61}])
@pytest.mark.parametrize("metres", [0, 20, 55, 300])
def test_dilation_is_a_distance_between_centres(tmp_path: Path, metres: float, chunks: Any) -> None:
    rng = np.random.default_rng(8)
    values = rng.integers(1, 4000, (200, 200)).astype(np.uint16)
    classes = np.full((100, 100), 4, np.uint8)
    classes[rng.random(classes.shape) < 0.004] = 9
    classes[:, :3] = 0
    mask = cog(tmp_path, "scl", classes, transform=Affine(20, 0, LEFT, 0, -20, TOP), overviews=0)
    one = collect(Scene("m", {"v": cog(tmp_path, "v", values, overviews=0), "SCL": mask}))
    rule = {"band": "SCL", "drop": [9], "dilate": metres}
    got = one.get_xarray(bands=["v"], mask=rule, masked=True, chunks=chunks).v.values[0]
    y, x = np.mgrid[0:100, 0:100]
    near = np.zeros(classes.shape, dtype=bool)
    for i, j in np.argwhere(classes == 9):
        near |= np.hypot((y - i) * 20.0, (x - j) * 20.0) <= metres + 1e-6
    hidden = np.kron(near | (classes == 0), np.ones((2, 2), dtype=bool))
    assert np.array_equal(np.isnan(got), hidden)
    assert np.array_equal(got[~hidden], values[~hidden])


# --- what people do with a cube ------------------------------------------------------------------
def test_utm_is_the_zone_of_the_middle(dates: rd.Collection) -> None:
    assert dates.get_xarray(crs="utm").rio.crs.to_epsg() == 32633
    moved = dates.get_xarray(crs="EPSG:3035", resolution=10)
    back = dates.get_xarray(like=moved)
    assert back.rio.crs.to_epsg() == 3035
    assert np.array_equal(back.v.values, moved.v.values)


def test_given_offsets_are_believed(tmp_path: Path) -> None:
    values = np.full((128, 128), 1500, np.uint16)
    declared = {"red": {"scale": 0.0001, "offset": -0.1}}
    columns = {"collection": "sentinel-2-l2a", "earthsearch:boa_offset_applied": True}
    file = cog(tmp_path, "red", values, overviews=0)
    one = collect(Scene("s", {"red": file}, declared=declared, columns=columns))
    assert one.get_xarray(scale=True).red.values == pytest.approx(0.15)
    told = one.get_xarray(scale=True, offsets={"s": -1000})
    assert told.red.values == pytest.approx(0.05)
    assert told.s2_offset_rule.values.tolist() == ["given"]


def test_cubes_go_where_xarray_goes(dates: rd.Collection, tmp_path: Path) -> None:
    import dask  # noqa: PLC0415
    import xarray as xr  # noqa: PLC0415

    cube = dates.get_xarray(groupby="id", chunks={"y": 128, "x": 128})
    cube.v.isel(time=0).rio.to_raster(tmp_path / "v.tif")
    with rasterio.open(tmp_path / "v.tif") as file:
        assert file.nodata == 0
        assert np.array_equal(file.read(1), cube.v.values[0])
    clipped = cube.rio.clip_box(LEFT + 500, TOP - 900, LEFT + 900, TOP - 500)
    assert np.array_equal(clipped.v.values, cube.v.values[:, 50:90, 50:90])
    (optimised,) = dask.optimize(cube)
    assert np.array_equal(optimised.v.values, cube.v.values)
    assert np.array_equal(cube.persist().v.values, cube.v.values)
    cube.drop_vars("spatial_ref").to_zarr(tmp_path / "v.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "v.zarr", consolidated=False, mask_and_scale=False)
    assert np.array_equal(again.v.values, cube.v.values)


# --- internal masks ------------------------------------------------------------------------------
@pytest.mark.parametrize("chunks", ["auto", {"y": 50, "x": 61}])
@pytest.mark.parametrize("how", [{}, {"resolution": 20}, {"crs": "EPSG:3035", "resolution": 10}])
def test_an_internal_mask_hides_what_gdal_hides(
    tmp_path: Path, how: dict[str, Any], chunks: Any
) -> None:
    rng = np.random.default_rng(9)
    values = rng.integers(0, 4000, (300, 300)).astype(np.uint16)
    shown = np.ones(values.shape, dtype=bool)
    shown[40:140, 100:210] = False
    file = cog(tmp_path, "v", values, nodata=None, mask=np.where(shown, 255, 0).astype(np.uint8))
    bare = cog(tmp_path, "w", values, nodata=None)
    both = collect(Scene("a", {"v": file}), Scene("b", {"v": bare}, "2023-07-05T10:00:00"))
    cube = both.get_xarray(bands=["v"], masked=True, chunks=chunks, **how)
    got = cube.v.values[0]
    if not how:
        assert np.array_equal(np.isnan(got), ~shown)
        assert np.array_equal(got[shown], values[shown])
        assert np.array_equal(cube.v.values[1], values)
    assert 0.08 < np.isnan(got[np.isfinite(cube.v.values[1])]).mean() < 0.16
    seen = np.isfinite(got)
    assert np.array_equal(got[seen], cube.v.values[1][seen])
    with pytest.raises(rd.RasteretError, match="nodata"):
        both.get_xarray(bands=["v"], **how)


# --- decoders that are no straight line ----------------------------------------------------------
def test_embeddings_are_decoded_before_they_are_warped(tmp_path: Path) -> None:
    values = np.random.default_rng(10).integers(-127, 128, (200, 200)).astype(np.int8)
    values[:20, :20] = -128
    file = cog(tmp_path, "v", values, nodata=-128, overviews=0)
    plain = collect(Scene("a", {"v": file}))
    info = rd.BandInfo("v", "v", decode="alphaearth")
    embeddings = replace(plain, infos=(info,))
    expected = np.sign(values) * (values.astype(np.float64) / 127.5) ** 2
    expected[:20, :20] = np.nan
    cube = embeddings.get_xarray(bands=["v"], decode=True)
    assert cube.v.dtype == np.float32
    np.testing.assert_allclose(cube.v.values[0], expected, rtol=1e-6, equal_nan=True)
    coarse = embeddings.get_xarray(bands=["v"], decode=True, resolution=20, resampling="average")
    blocks = expected.reshape(100, 2, 100, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.v.values[0], blocks, atol=1e-6, equal_nan=True)
    # A mean of stored numbers would be none of the values.
    for mosaic in ("mean", "median"):
        fused = embeddings.get_xarray(bands=["v"], decode=True, mosaic=mosaic)
        assert np.array_equal(fused.v.values, cube.v.values, equal_nan=True)
    with pytest.raises(rd.RasteretError, match="decode"):
        plain.get_xarray(bands=["v"], decode=True)


def test_the_descriptor_stands_above_the_file_for_nodata_and_below_it_for_scale(
    tmp_path: Path,
) -> None:
    values = np.random.default_rng(11).integers(0, 5, (128, 128)).astype(np.uint16)
    plain = collect(Scene("a", {"v": cog(tmp_path, "v", values, nodata=0, overviews=0)}))
    told = replace(plain, infos=(rd.BandInfo("v", "v", nodata=3, scale=0.5, offset=1.0),))
    cube = told.get_xarray(bands=["v"], masked=True, scale=True)
    expected = np.where(values == 3, np.nan, values * 0.5 + 1.0)
    np.testing.assert_allclose(cube.v.values[0], expected, equal_nan=True)
    user = told.get_xarray(bands=["v"], masked=True, nodata=2)
    assert np.array_equal(np.isnan(user.v.values[0]), values == 2)
    declared = {"v": {"scale": 2.0, "offset": 0.0}}
    file = cog(tmp_path, "w", values, nodata=0, overviews=0)
    spoken = collect(Scene("a", {"v": file}, declared=declared))
    spoken = replace(spoken, infos=(rd.BandInfo("v", "v", scale=0.5, offset=1.0),))
    scaled = spoken.get_xarray(bands=["v"], masked=True, scale=True)
    known = values != 0
    np.testing.assert_allclose(scaled.v.values[0][known], 2.0 * values[known])
