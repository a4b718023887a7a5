from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr
from affine import Affine

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.cog import write_cog


def test_one_date_of_two_bands(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    url = write_cog(cube.isel(time=1), tmp_path / "new" / "f.tif", blocksize=256)
    with rasterio.open(url) as image:
        assert np.array_equal(image.read(1), cube.B04[1])
        assert np.array_equal(image.read(2), cube.B08[1])
        assert image.descriptions == ("B04", "B08")
        assert (image.nodata, image.crs.to_epsg(), image.transform) == (0, 32633, affine)
        assert image.overviews(1) == [2, 4]
        assert image.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with tifffile.TiffFile(url) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert (page.compression, page.predictor, page.tile) == (8, 2, (256, 256))


def test_floats_after_arithmetic(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    red, nir = (cube[name].where(cube[name] != 0).astype("float32") for name in ("B04", "B08"))
    ndvi = ((nir - red) / (nir + red)).median("time").rename("ndvi")
    write_cog(ndvi, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        assert np.isnan(image.nodata)
        assert np.array_equal(image.read(1), ndvi.values, equal_nan=True)
        assert (image.crs.to_epsg(), image.transform) == (32633, affine)
        # Averaged overviews of what is there, and nothing where nothing is.
        half = image.read(1, out_shape=(350, 450))
        assert np.isnan(half[:25]).all()
        assert not np.isnan(half[25:]).any()


def test_statistics_are_those_of_all_pixels(cube: xr.Dataset, tmp_path: Path) -> None:
    write_cog(cube.isel(time=0), tmp_path / "f.tif")
    for number, name in enumerate(["B04", "B08"], start=1):
        with rasterio.open(tmp_path / "f.tif") as image:
            said = image.tags(number)
        seen = cube[name].isel(time=0).values
        seen = seen[seen != 0].astype("float64")
        assert float(said["STATISTICS_MINIMUM"]) == seen.min()
        assert float(said["STATISTICS_MAXIMUM"]) == seen.max()
        assert float(said["STATISTICS_MEAN"]) == pytest.approx(seen.mean())
        assert float(said["STATISTICS_STDDEV"]) == pytest.approx(seen.std())
    assert not list(tmp_path.glob("*.aux.xml"))


LARGE = """
import resource, sys
import dask.array as da
import numpy as np
import rioxarray
import xarray as xr
from affine import Affine
from rasteret_dask.write.cog import write_cog

side = 20_000

def block(block_info=None):
    (y, _), (x, _) = block_info[None]["array-location"]
    return (np.arange(2000)[:, None] + y + np.arange(2000) + x).astype("float32")

image = xr.DataArray(
    da.map_blocks(block, chunks=((2000,) * 10, (2000,) * 10), dtype="float32", meta=np.empty((0, 0), "float32")),
    dims=("y", "x"),
    coords={"y": -10 * (np.arange(side) + 0.5), "x": 10 * (np.arange(side) + 0.5)},
).rio.write_crs("EPSG:32633").rio.write_transform(Affine(10, 0, 0, 0, -10, 0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_cog(image, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_an_image_larger_than_what_it_may_hold(tmp_path: Path) -> None:
    """1.6 GB of pixels, in a process that grows by a third of that at most."""
    command = [sys.executable, "-c", LARGE, str(tmp_path / "large.tif")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 550 * 1024, f"{grown} KiB"
    with rasterio.open(tmp_path / "large.tif") as image:
        assert image.shape == (20_000, 20_000)
        assert image.overviews(1)[-1] >= 32
        rows = image.read(1, window=((12_345, 12_347), (0, 20_000)))
        expected = np.arange(12_345, 12_347)[:, None] + np.arange(20_000)[None]
        np.testing.assert_array_equal(rows, expected.astype("float32"))
        assert float(image.tags(1)["STATISTICS_MAXIMUM"]) == 39_998


def test_a_part_keeps_its_place(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    part = cube.B04.isel(time=0, y=slice(100, 400), x=slice(33, 500))
    write_cog(part, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        assert np.array_equal(image.read(1), part)
        assert image.transform == affine @ Affine.translation(33, 100)


def test_bands_of_an_array_and_bools(cube: xr.Dataset, tmp_path: Path) -> None:
    stacked = cube.isel(time=0).to_dataarray("band")
    write_cog(stacked, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        assert np.array_equal(image.read(), stacked)
    write_cog(cube.B04[0] > 4000, tmp_path / "g.tif")
    with rasterio.open(tmp_path / "g.tif") as image:
        assert np.array_equal(image.read(1), (cube.B04[0] > 4000).astype("uint8"))


def test_bands_with_different_nodata(cube: xr.Dataset, tmp_path: Path) -> None:
    day = cube.isel(time=0).copy()
    day["B08"] = day.B08.where(day.B08 != 0, 7).astype("uint16")
    day["B08"].attrs["_FillValue"] = 7
    write_cog(day, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        assert (image.read(2)[:50] == image.nodata).all()


def test_any_url(cube: xr.Dataset) -> None:
    url = "memory://write-cog/f.tif"
    assert write_cog(cube.B04[0], url) == url
    with fsspec.open(url) as stream, rasterio.open(stream) as image:
        assert np.array_equal(image.read(1), cube.B04[0])


def test_what_is_no_image(cube: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="has the dimensions"):
        write_cog(cube, tmp_path / "f.tif")
    with pytest.raises(ArgumentError, match="has the dimensions"):
        write_cog(cube.B04, tmp_path / "f.tif")
    with pytest.raises(ArgumentError, match="not y and x"):
        write_cog(cube.B04.isel(y=0), tmp_path / "f.tif")
    with pytest.raises(ArgumentError, match="to write"):
        write_cog(cube[[]], tmp_path / "f.tif")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(cube: xr.Dataset, tmp_path: Path) -> None:
    def broken(block: np.ndarray) -> np.ndarray:
        raise OSError("no such tile")

    bad = cube.B04[0].copy(data=cube.B04[0].data.map_blocks(broken, dtype="uint16"))
    (tmp_path / "f.tif").write_bytes(b"before")
    with pytest.raises(OSError, match="no such tile"):
        write_cog(bad, tmp_path / "f.tif")
    assert os.listdir(tmp_path) == ["f.tif"]
    assert (tmp_path / "f.tif").read_bytes() == b"before"


def test_nodata_of_the_inputs_is_not_that_of_the_result(cube: xr.Dataset, tmp_path: Path) -> None:
    """xarray keeps attributes in arithmetic; an index of exactly 0 is a value nevertheless."""
    day = cube.isel(time=0)
    difference = (day.B04.astype("float32") - day.B04).rename("zero").assign_attrs(day.B04.attrs)
    write_cog(difference, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        assert image.read(1, masked=True).count() == difference.size


def flat(**bands: np.ndarray) -> xr.Dataset:
    coords = {"y": 5_200_000 - 10 * (np.arange(64) + 0.5), "x": 5e5 + 10 * (np.arange(64) + 0.5)}
    data = {name: (("y", "x"), values) for name, values in bands.items()}
    return xr.Dataset(data, coords).rio.write_crs(32633)


def test_a_band_loses_nothing_to_the_nodata_of_another(tmp_path: Path) -> None:
    mask, red = np.zeros((64, 64), "u1"), np.full((64, 64), 255, "i2")
    red[:8], mask[8:16] = -9999, 255
    both = flat(Fmask=mask, red=red)
    both.Fmask.attrs["_FillValue"], both.red.attrs["_FillValue"] = np.uint8(255), np.int16(-9999)
    write_cog(both, tmp_path / "f.tif")
    with rasterio.open(tmp_path / "f.tif") as image:
        found = image.read(masked=True)
    assert np.array_equal(found.mask, [mask == 255, red == -9999])


def test_where_each_value_is_one_of_another_band_it_is_looked_for(tmp_path: Path) -> None:
    one, two = np.full((64, 64), 7, "u2"), np.full((64, 64), 5, "u2")
    both = flat(one=one, two=two)
    both.two.attrs["_FillValue"] = np.uint16(7)  # and the first band says nothing of it
    with pytest.raises(ArgumentError, match="one has pixels of 7"):
        write_cog(both, tmp_path / "f.tif")
    assert not list(tmp_path.iterdir())
    write_cog(both, tmp_path / "f.tif", nodata=0)
    with rasterio.open(tmp_path / "f.tif") as image:
        assert not image.read(masked=True).mask.any()
    write_cog(flat(one=one, two=two.astype("f4")), tmp_path / "g.tif")
    with rasterio.open(tmp_path / "g.tif") as image:
        assert np.isnan(image.nodata)
