"""Alpha bands and internal masks: where GDAL sees nothing, a cube has nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from affine import Affine
from handmade import Scene, collect
from rasterio.vrt import WarpedVRT

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

AT = Affine(10, 0, 500_000.0, 0, -10.0, 5_200_000.0)


def rgba(path: Path, *, interleave: str = "pixel", colours: int = 3, **how: Any) -> Path:
    """Colours, and alpha of 0, 1, 128 and 255; what is transparent has colours nevertheless."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (colours + 1, 200, 230)).astype(np.uint8)
    image[-1] = rng.choice(np.array([0, 1, 128, 255], np.uint8), image.shape[1:])
    image[-1, 30:90, 40:130] = 0
    options = {"driver": "GTiff", "transform": AT, "blocksize": 64, "overviews": [2], **how}
    return make_cog(path, image, interleave=interleave, alpha="YES", **options)


def scene(file: Path, bands: dict[str, int]) -> rd.Collection:
    return collect(Scene("a", {name: (file, k) for name, k in bands.items()}))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("chunks", ["auto", {"y": 47, "x": 61}])
def test_an_alpha_band_hides_what_gdal_hides(tmp_path: Path, interleave: str, chunks: Any) -> None:
    file = rgba(tmp_path / "v.tif", interleave=interleave)
    with rasterio.open(file) as image:
        assert image.colorinterp[-1].name == "alpha"
        expected = image.read(masked=True)
    cube = scene(file, {"r": 0, "b": 2, "a": 3}).get_xarray(masked=True, chunks=chunks)
    assert 0.3 < expected.mask[0].mean() < 0.5
    for name, k in (("r", 0), ("b", 2)):
        shown = np.where(expected.mask[k], np.nan, expected.data[k])
        assert np.array_equal(cube[name].values[0], shown, equal_nan=True)
    # The alpha band itself is data, and all of it valid.
    assert np.array_equal(cube.a.values[0], expected.data[3])
    filled = scene(file, {"r": 0}).get_xarray(fill_value=0, chunks=chunks)
    assert np.array_equal(filled.r.values[0], expected[0].filled(0))
    with pytest.raises(rd.RasteretError, match="masked pixels"):
        scene(file, {"r": 0}).get_xarray(chunks=chunks)


@pytest.mark.parametrize("colours", [1, 4])
def test_alpha_is_found_wherever_the_tag_says(tmp_path: Path, colours: int) -> None:
    file = rgba(tmp_path / "v.tif", colours=colours)
    with rasterio.open(file) as image:
        where = [c.name for c in image.colorinterp].index("alpha")
        assert where == 1  # GDAL marks the first of several extra samples
        alpha = image.read(where + 1)
        values = image.read(1)
    cube = scene(file, {"v": 0}).get_xarray(masked=True)
    assert np.array_equal(cube.v.values[0], np.where(alpha == 0, np.nan, values), equal_nan=True)


def test_a_transparent_pixel_does_not_bleed_into_its_neighbours(tmp_path: Path) -> None:
    file = rgba(tmp_path / "v.tif")
    cube = scene(file, {"r": 0}).get_xarray(
        masked=True, resolution=20, resampling="average", overviews=False
    )
    with rasterio.open(file) as image:
        values, alpha = image.read(1).astype(float), image.read(4)
    blocks = np.where(alpha == 0, np.nan, values).reshape(100, 2, 115, 2)
    known = np.isfinite(blocks).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        expected = np.nansum(blocks, axis=(1, 3)) / np.where(known == 0, np.nan, known)
    # Averages of whole numbers are rounded to the files' type.
    np.testing.assert_allclose(cube.r.values[0], expected, atol=0.5, equal_nan=True)


def test_alpha_of_overviews_and_of_other_crss_is_gdals(tmp_path: Path) -> None:
    file = rgba(tmp_path / "v.tif")
    collection = scene(file, {"r": 0})
    coarse = collection.get_xarray(masked=True, resolution=20)
    assert coarse.attrs["rasteret:level"] == 1
    with rasterio.open(file, OVERVIEW_LEVEL=0) as image:
        expected = image.read(1, masked=True)
    shown = np.where(expected.mask, np.nan, expected.data)
    assert np.array_equal(coarse.r.values[0], shown, equal_nan=True)
    warped = collection.get_xarray(masked=True, crs="EPSG:3035", resolution=10).r
    with (
        rasterio.open(file) as image,
        WarpedVRT(
            image,
            crs="EPSG:3035",
            transform=warped.rio.transform(),
            width=warped.sizes["x"],
            height=warped.sizes["y"],
            tolerance=1e-6,
        ) as there,
    ):
        theirs, alpha = there.read(1), there.read(4)
    expected = np.where(alpha == 0, np.nan, theirs)
    differing = ~(
        (warped.values[0] == expected) | (np.isnan(warped.values[0]) & np.isnan(expected))
    )
    assert differing.mean() < 5e-3


def test_alpha_in_the_bands_own_tiles_costs_no_request(tmp_path: Path) -> None:
    rgba(tmp_path / "v.tif")
    with RangeServer(tmp_path) as server:
        collection = scene(f"{server.url}/v.tif", {"r": 0})  # type: ignore[arg-type]
        told = collection.explain(masked=True)
        server.reset()
        collection.get_xarray(masked=True).compute(scheduler="sync")
        counters = server.counters()
        assert (counters.requests, counters.bytes) == (told.requests, told.bytes)
        assert told.total.tiles == 16


def test_a_mask_that_its_overviews_lack_is_not_passed_over(tmp_path: Path) -> None:
    values = np.arange(1, 200 * 230 + 1, dtype=np.uint16).reshape(200, 230)
    shown = np.ones(values.shape, bool)
    shown[:50] = False
    file = make_cog(tmp_path / "v.tif", values, transform=AT, blocksize=64, mask=shown, overviews=1)
    collection = scene(file, {"v": 0})
    assert collection.get_xarray(masked=True, resolution=20).attrs["rasteret:level"] == 1
    table = collection.to_table()
    column = table.column("v_metadata").to_pylist()
    column[0]["masks"] = column[0]["masks"][:1]
    place = table.schema.get_field_index("v_metadata")
    bare = rd.as_collection(
        table.set_column(
            place, table.schema.field(place), pa.array(column, table.schema.field(place).type)
        )
    )
    with pytest.raises(rd.RasteretError, match="overview 1 has none"):
        bare.get_xarray(masked=True, resolution=20)
    full = bare.get_xarray(masked=True, resolution=20, overviews="off")
    assert np.isnan(full.v.values[0][:25]).all()
