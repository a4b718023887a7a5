"""What `make_cog` writes is what rasterio and tifffile read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile

from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.cog import make_cog


@pytest.fixture
def pixels() -> npt.NDArray[np.uint16]:
    values = np.random.default_rng(0).integers(1, 3000, (700, 900)).astype("uint16")
    values[:300, :300] = 0
    return values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nbits": 15},
        {"compress": "zstd", "nodata": 0, "blocksize": 128},
        {"driver": "GTiff", "overviews": [2, 3]},
        {"sparse": True, "nodata": 0},
        {"overviews": 0, "compress": None},
        {"driver": "GTiff", "endianness": "BIG"},
    ],
    ids=str,
)
def test_pixels_and_bytes(
    tmp_path: Path, pixels: npt.NDArray[np.uint16], options: dict[str, Any]
) -> None:
    first = make_cog(tmp_path / "a" / "first.tif", pixels, **options)
    second = make_cog(tmp_path / "second.tif", pixels, **options)
    assert first.read_bytes() == second.read_bytes()
    with rasterio.open(first) as image:
        assert np.array_equal(image.read(1), pixels)
        assert image.nodata == options.get("nodata")
        assert image.crs.to_epsg() == 32633


def test_layout(tmp_path: Path, pixels: npt.NDArray[np.uint16]) -> None:
    def page(**options: Any) -> tuple[tifffile.TiffPage, int]:
        with tifffile.TiffFile(make_cog(tmp_path / "f.tif", pixels, **options)) as tiff:
            first = tiff.pages[0]
            assert isinstance(first, tifffile.TiffPage)
            return first, len(tiff.pages)

    plain, levels = page()
    assert (plain.compression, plain.predictor, plain.tile, levels) == (8, 2, (256, 256), 3)
    packed, _ = page(nbits=15)
    assert (packed.bitspersample, packed.predictor) == (15, 1)
    hollow, _ = page(sparse=True, nodata=0)
    assert min(hollow.databytecounts) == 0
    assert page(overviews=0)[1] == 1


def test_bands_masks_and_words(tmp_path: Path, pixels: npt.NDArray[np.uint16]) -> None:
    both = np.stack([pixels, pixels + 1])
    path = make_cog(
        tmp_path / "f.tif",
        both,
        mask=pixels > 100,
        tags={"SEASON": "summer"},
        descriptions=["red", "nir"],
        scales=[1e-4, 1e-4],
        offsets=[-0.1, 0.0],
    )
    with rasterio.open(path) as image:
        assert np.array_equal(image.read(), both)
        assert np.array_equal(image.dataset_mask() == 255, pixels > 100)
        assert image.tags()["SEASON"] == "summer"
        assert image.descriptions == ("red", "nir")
        assert image.offsets == (-0.1, 0.0)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="dimensions"):
        make_cog(tmp_path / "f.tif", np.zeros(4))
    with pytest.raises(ArgumentError, match="number of overviews"):
        make_cog(tmp_path / "f.tif", np.zeros((4, 4)), overviews=[2])
