"""Tiles: any part of one is what the whole would have given, and damage is told."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rasteret_dask.errors import TileReadError
from rasteret_dask.tiff.codecs import decode_tile
from rasteret_dask.tiff.header import Segments, parse
from rasteret_dask.tiff.images import jpeg_size
from rasteret_dask.tiff.inflate import Scratch
from rasteret_dask.tiff.model import TiffHeader, TileLayout

SIZE = 64
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)}


def tile_of(folder: Path, array: Any, size: int = SIZE, **options: Any) -> tuple[bytes, TileLayout]:
    """Let GDAL write one tile; return its bytes and how it is stored."""
    path = folder / "t.tif"
    profile = {"driver": "GTiff", "dtype": array.dtype, "count": len(array), **PLACE, **options}
    profile |= {"tiled": True, "blockxsize": size, "blockysize": size, "interleave": "pixel"}
    with rasterio.open(path, "w", height=size, width=size, **profile) as sink:
        sink.write(array)
    data = path.read_bytes()
    header = parse(Segments.whole(data))
    assert isinstance(header, TiffHeader)
    level = header.levels[0]
    start, count = int(level.offsets[0]), int(level.counts[0])
    return data[start : start + count], level.layout


def smooth(dtype: str, samples: int) -> Any:
    rng = np.random.default_rng(3)
    steps = rng.integers(-3, 4, (samples, SIZE, SIZE))
    return (np.cumsum(steps, axis=2) + 100).astype(dtype)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "stored": ("uint16", {}),
    "stored, big-endian": ("uint16", {"endianness": "BIG"}),
    "deflate 2": ("uint16", {"compress": "deflate", "predictor": 2}),
    "deflate 2, big-endian": (
        "int32",
        {"compress": "deflate", "predictor": 2, "endianness": "BIG"},
    ),
    "zstd 3": ("float32", {"compress": "zstd", "predictor": 3}),
    "lzw 2": ("uint8", {"compress": "lzw", "predictor": 2}),
    "lzma": ("int16", {"compress": "lzma"}),
    "packbits": ("uint8", {"compress": "packbits"}),
    "15 bits": ("uint16", {"compress": "deflate", "nbits": 15}),
    "3 bits": ("uint8", {"compress": "deflate", "nbits": 3}),
    "1 bit": ("uint8", {"compress": "zstd", "nbits": 1}),
    "lerc": ("float32", {"compress": "lerc_deflate"}),
}


@pytest.fixture(scope="module", params=[(k, n) for k in KINDS for n in (1, 3)], ids=str)
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, TileLayout, Any]:
    name, samples = request.param
    dtype, options = KINDS[name]
    array = smooth(dtype, samples)
    if "nbits" in options:
        array &= (1 << options["nbits"]) - 1
    data, layout = tile_of(tmp_path_factory.mktemp("tile"), array, **options)
    return data, layout, np.moveaxis(array, 0, -1)


spans = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda p: (min(p), max(p)))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=spans, cols=spans)
def test_any_part_is_the_part_of_the_whole(
    stored: tuple[bytes, TileLayout, Any], rows: tuple[int, int], cols: tuple[int, int]
) -> None:
    data, layout, expected = stored
    found = decode_tile(data, layout, rows=rows, cols=cols)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected[slice(*rows), slice(*cols)])


def test_memory_is_used_again(stored: tuple[bytes, TileLayout, Any]) -> None:
    """Whatever a tile before has left in it, and whichever part of a tile comes next."""
    data, layout, expected = stored
    scratch = Scratch()
    for rows in ((0, SIZE), (3, 11), (SIZE - 9, SIZE), (0, 1), (20, 40)):
        for part in ("bytes", "samples"):
            scratch.empty(part, 16 * SIZE * SIZE * layout.samples)[:] = 0xA5
        found = decode_tile(data, layout, rows=rows, cols=(1, SIZE - 1), scratch=scratch)
        np.testing.assert_array_equal(found, expected[slice(*rows), 1:-1])


def test_pixels_lie_where_they_are_wanted_or_nowhere_near(
    stored: tuple[bytes, TileLayout, Any],
) -> None:
    """Into the middle of an array, whose other pixels are somebody else's."""
    data, layout, expected = stored
    for rows, cols in (((0, SIZE), (0, SIZE)), ((5, 30), (0, 17)), ((5, 30), (3, SIZE))):
        h, w = rows[1] - rows[0], cols[1] - cols[0]
        whole = np.full((h + 4, w + 6), 77, layout.dtype)
        room = whole[2 : 2 + h, 3 : 3 + w]
        found = decode_tile(data, layout, rows=rows, cols=cols, scratch=Scratch(), out=room)
        wanted = expected[slice(*rows), slice(*cols)]
        np.testing.assert_array_equal(found, wanted)
        there = np.shares_memory(found, room)
        assert there == (layout.predictor == 2 and layout.samples == 1 and cols[0] == 0)
        if there:
            np.testing.assert_array_equal(room[:, :, None], wanted)
            room[...] = 77
        assert (whole == 77).all()
    other = np.zeros((SIZE, SIZE), "float64")
    assert not np.shares_memory(decode_tile(data, layout, out=other), other)


def test_scratch_gives_the_same_bytes_again_and_keeps_none_that_are_huge() -> None:
    scratch = Scratch()
    first = scratch.empty("bytes", 1000)
    assert np.shares_memory(first, scratch.empty("bytes", 500))
    assert not np.shares_memory(first, scratch.empty("samples", 500))
    huge = scratch.empty("bytes", 64 * 2**20)
    assert not np.shares_memory(huge, scratch.empty("bytes", 64 * 2**20))
    assert np.shares_memory(first, scratch.empty("bytes", 1000))


def test_all_of_it_by_default(stored: tuple[bytes, TileLayout, Any]) -> None:
    data, layout, expected = stored
    for buffer in (data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(decode_tile(buffer, layout), expected)


def test_the_bytes_of_a_tile_are_not_written_to(stored: tuple[bytes, TileLayout, Any]) -> None:
    data, layout, _ = stored
    buffer = bytearray(data)
    decode_tile(buffer, layout)
    assert bytes(buffer) == data


@pytest.mark.parametrize("codec", ["deflate", "zstd", "lzw", "lzma"])
def test_inflating_stops_at_the_last_row_that_is_wanted(codec: str, tmp_path: Path) -> None:
    """Garbage behind that row is never looked at."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (1, 512, 512), "uint16")  # decoders run some 100 KiB ahead
    data, layout = tile_of(tmp_path, array, 512, compress=codec)
    half = len(data) // 2
    broken = data[:half] + rng.bytes(len(data) - half)
    found = decode_tile(broken, layout, rows=(0, 8))
    np.testing.assert_array_equal(found[:, :, 0], array[0, :8])
    with pytest.raises(TileReadError):
        decode_tile(broken, layout)


@pytest.mark.parametrize("compress", [None, "deflate", "zstd", "lzw", "lzma", "packbits"])
def test_a_tile_cut_short(compress: str | None, tmp_path: Path) -> None:
    options = {} if compress is None else {"compress": compress}
    data, layout = tile_of(tmp_path, smooth("uint8", 1), **options)
    with pytest.raises(TileReadError):
        decode_tile(data[: len(data) // 2], layout)


@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzma", "jpeg", "webp", "lerc"])
def test_bytes_that_are_something_else(compress: str, tmp_path: Path) -> None:
    samples = 3 if compress == "webp" else 1
    _, layout = tile_of(tmp_path, smooth("uint8", samples), compress=compress)
    for data in (b"", b"\0" * 50, b"<html>not found</html>" * 10):
        with pytest.raises(TileReadError):
            decode_tile(data, layout)


@pytest.mark.parametrize("code", [7, 50001, 50002, 34887])
@pytest.mark.parametrize("strips", [False, True])
def test_an_image_of_another_size(code: int, strips: bool) -> None:
    image = np.full((SIZE, SIZE, 3), 77, "uint8")
    encode = {
        7: imagecodecs.jpeg8_encode,
        50001: imagecodecs.webp_encode,
        50002: imagecodecs.jpegxl_encode,
        34887: imagecodecs.lerc_encode,
    }[code]
    layout = TileLayout(SIZE, SIZE, "uint8", 3, 8, code, strips=strips, photometric=2)
    assert decode_tile(encode(image), layout).shape == (SIZE, SIZE, 3)
    others = [image[:, :32], np.concatenate([image, image])]
    if code != 50001:  # WebP has no grey
        others.append(image[:, :, :1])
    for wrong in others:
        with pytest.raises(TileReadError):
            decode_tile(encode(np.ascontiguousarray(wrong)), layout)


def test_a_deflated_tile_that_is_too_long() -> None:
    layout = TileLayout(8, 8, "uint8", compression=8)
    assert decode_tile(zlib.compress(bytes(64)), layout).shape == (8, 8, 1)
    with pytest.raises(TileReadError, match="more than"):
        decode_tile(zlib.compress(bytes(65)), layout)


def test_a_checksum_that_is_wrong_or_missing() -> None:
    layout = TileLayout(8, 8, "uint8", compression=8)
    data = zlib.compress(bytes(range(64)))
    with pytest.raises(TileReadError):
        decode_tile(data[:-1] + bytes([data[-1] ^ 1]), layout)
    # GDAL's zlib is content when all pixels are there, and so are we.
    found = decode_tile(data[:-2], layout)
    assert found.ravel().tolist() == list(range(64))


def test_a_lerc_blob_that_inflates_without_bound() -> None:
    tables = np.array([4, 1], "<u4").tobytes()
    layout = TileLayout(16, 16, "uint8", compression=34887, tables=tables)
    with pytest.raises(TileReadError):
        decode_tile(zlib.compress(bytes(50_000_000)), layout)


def test_the_last_strip_is_as_long_as_it_is() -> None:
    layout = TileLayout(10, 8, "uint16", bits=16, compression=8, strips=True)
    rows = np.arange(30, dtype="<u2").reshape(3, 10)
    data = zlib.compress(rows.tobytes())
    assert decode_tile(data, layout).shape == (3, 10, 1)
    np.testing.assert_array_equal(decode_tile(data, layout, rows=(1, 3))[:, :, 0], rows[1:])
    with pytest.raises(TileReadError):
        decode_tile(data, layout, rows=(0, 4))
    with pytest.raises(TileReadError):
        decode_tile(data, dataclasses.replace(layout, strips=False))


@pytest.mark.parametrize("rows", [(-1, 3), (0, 9), (5, 2)])
def test_rows_that_are_not_there(rows: tuple[int, int]) -> None:
    with pytest.raises(TileReadError, match="not within"):
        decode_tile(bytes(64), TileLayout(8, 8, "uint8"), rows=rows)


def test_fill_order_two() -> None:
    plain = np.arange(64, dtype="uint8")
    swapped = imagecodecs.bitorder_decode(plain.tobytes())
    layout = TileLayout(8, 8, "uint8", fill_order=2)
    np.testing.assert_array_equal(decode_tile(swapped, layout).ravel(), plain)


def test_the_size_of_a_jpeg() -> None:
    data = imagecodecs.jpeg8_encode(np.zeros((33, 70, 3), "uint8"))
    assert jpeg_size(data) == (33, 70)
    for broken in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9" + bytes(20), data[:20]):
        with pytest.raises(ValueError, match="start of frame"):
            jpeg_size(broken)
