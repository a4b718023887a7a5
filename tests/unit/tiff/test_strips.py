"""Strips of plain pixels: counts that a file leaves out, and huge strips read in parts."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.windows import Window

from rasteret_dask.errors import UnsupportedTiffError
from rasteret_dask.read.pixels import open_tiff
from rasteret_dask.storage import counters
from rasteret_dask.tiff import strips
from rasteret_dask.tiff.model import TileLayout
from rasteret_dask.tiff.strips import CHOP, chop, guess_counts


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_an_image_in_one_huge_strip(planar: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    array = np.random.default_rng(0).integers(0, 60000, (2, 2500, 1111)).astype("uint16")
    data = array if planar == "separate" else np.moveaxis(array, 0, -1)
    tifffile.imwrite(
        path, data, planarconfig=planar, photometric="minisblack", rowsperstrip=2500, metadata=None
    )
    image = open_tiff(str(path))
    level = image.header.levels[0]
    assert level.layout.height < 2500
    window = Window(500, 1200, 300, 20)
    before = counters.snapshot()
    found = image.read(window=window)
    fetched = counters.snapshot().bytes - before.bytes
    assert fetched < data.nbytes / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as source:
            np.testing.assert_array_equal(found, source.read(window=window))
            np.testing.assert_array_equal(image.read(), source.read())


def test_cuts_fall_on_the_ends_of_strips() -> None:
    layout = TileLayout(CHOP // 8, 60, "uint8", strips=True)  # 8 rows would fit: 6 divides 60
    counts = guess_counts(layout, 130, 1)
    offsets = np.array([1000, 10**9, 2 * 10**9], np.uint64)
    small, begins, sizes = chop(layout, 130, offsets, counts)
    assert small.height == 6
    assert len(begins) == len(sizes) == 22
    row = CHOP // 8
    assert begins[:2].tolist() == [1000, 1000 + 6 * row]
    assert begins[10].item() == 10**9
    assert begins[20].item() == 2 * 10**9
    assert sizes[-1].item() == 4 * row
    assert sizes.sum() == 130 * row


def test_strips_that_are_not_all_there_stay_as_they_are() -> None:
    layout = TileLayout(CHOP, 4, "uint8", strips=True)
    counts = guess_counts(layout, 8, 1)
    counts[1] -= np.uint64(1)
    offsets = np.array([8, 10**9], np.uint64)
    assert chop(layout, 8, offsets, counts)[0] is layout


def test_an_absurd_height_is_not_cut_up() -> None:
    layout = TileLayout(CHOP, 2**31 - 1, "uint8", strips=True)
    counts = guess_counts(layout, 2**31 - 1, 1)
    assert strips.chop(layout, 2**31 - 1, np.array([8], np.uint64), counts)[0] is layout


def test_counts_that_the_file_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "old.tif"
    array = np.arange(20 * 30, dtype="uint16").reshape(20, 30)
    tifffile.imwrite(path, array, rowsperstrip=8, metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags[279].offset
    struct.pack_into("<H", data, at, 65000)
    path.write_bytes(data)
    image = open_tiff(str(path))
    assert image.header.levels[0].counts.tolist() == [480, 480, 240]
    np.testing.assert_array_equal(image.read(bands=1), array)


def test_one_huge_compressed_strip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "z.tif"
    tifffile.imwrite(path, np.zeros((20, 30), "uint8"), compression="zlib", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = [tags[256].valueoffset, tags[257].valueoffset, tags[278].valueoffset]
    for place in places:
        struct.pack_into("<H", data, place, 60000)
    path.write_bytes(data)
    with pytest.raises(UnsupportedTiffError) as caught:
        open_tiff(str(path))
    assert caught.value.tag == "RowsPerStrip"
