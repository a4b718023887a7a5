"""LERC tiles that libtiff writes in a shape of their own, against rasterio's reading of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio

import rasteret_dask as rd
from rasteret_dask.errors import TileReadError
from rasteret_dask.tiff.codecs import decode_tile
from rasteret_dask.tiff.model import TileLayout

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)}
SHAPE = (70, 90)
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": 32, "blockysize": 32},
    "strips": {"blockysize": 32},
}


def check(path: Path, array: Any, **how: Any) -> Any:
    """Write an image; what is read of it, whole and in part, is what rasterio reads."""
    profile = {"driver": "GTiff", "dtype": array.dtype, "count": len(array), **PLACE, **how}
    with rasterio.open(path, "w", height=SHAPE[0], width=SHAPE[1], **profile) as sink:
        sink.write(array)
    with rasterio.open(path) as source:
        expected = source.read()
    found = rd.open_tiff(str(path))
    np.testing.assert_array_equal(found.read(), expected)
    window = ((20, 69), (5, 77))
    np.testing.assert_array_equal(found.read(window=window), expected[:, 20:69, 5:77])
    return expected


@pytest.mark.parametrize("compress", ["lerc", "lerc_deflate", "lerc_zstd"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_that_is_all_or_nothing(
    tmp_path: Path, colours: int, layout: str, compress: str
) -> None:
    """Tiles that are clear, that are opaque, that are both; and one that is neither, which is stored as any other."""
    rng = np.random.default_rng(5)
    array = rng.integers(0, 256, (colours + 1, *SHAPE)).astype(np.uint8)
    array[-1] = 255
    array[-1, :32, :32] = 0
    array[-1, :, 32:64] = np.where(rng.random((SHAPE[0], 32)) < 0.5, 0, 255)
    array[-1, 64:, 64:] = 100
    photometric = "RGB" if colours == 3 else "MINISBLACK"
    how = {"photometric": photometric, "alpha": "YES", "interleave": "pixel", **LAYOUTS[layout]}
    expected = check(tmp_path / "a.tif", array, compress=compress, **how)
    np.testing.assert_array_equal(expected[-1], array[-1])


@pytest.mark.parametrize("compress", ["lerc", "lerc_deflate", "lerc_zstd"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_in_some_bands_alone(tmp_path: Path, dtype: str, layout: str, compress: str) -> None:
    """Tiles without NaN, with NaN in one band, in all bands alike, and in each band elsewhere."""
    rng = np.random.default_rng(6)
    array = rng.random((3, *SHAPE)).astype(dtype)
    array[1, :32, :8] = np.nan
    array[2, :32, 32:64] = np.nan
    array[:, 40:60, 3:20] = np.nan
    array[:, 32:64, 32:][rng.random((3, 32, 58)) < 0.3] = np.nan
    how = {"interleave": "pixel", "compress": compress, **LAYOUTS[layout]}
    expected = check(tmp_path / "a.tif", array, **how)
    np.testing.assert_array_equal(expected, array)


@pytest.mark.parametrize(
    "layout",
    [
        TileLayout(32, 32, "uint8", 4, 8, 34887, photometric=2, extra_samples=(2,)),
        TileLayout(32, 32, "float32", 3, 32, 34887),
    ],
    ids=["alpha", "floats"],
)
def test_a_blob_of_another_size_is_refused_before_it_is_decoded(layout: TileLayout) -> None:
    blobs = [
        imagecodecs.lerc_encode(np.zeros((1024, 1024, 3), layout.dtype)),
        imagecodecs.lerc_encode(np.zeros((3, 1024, 1024), layout.dtype), planar=True),
    ]
    tracemalloc.start()
    try:
        for blob in blobs:
            with pytest.raises(TileReadError):
                decode_tile(blob, layout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
