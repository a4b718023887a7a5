"""Headers: against tifffile's reading, and against every kind of damage that names its tag."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.shutil import copy

from rasteret_dask.errors import HeaderError, UnsupportedTiffError
from rasteret_dask.tiff.header import MAX_ROUNDS, NeedBytes, Segments, parse
from rasteret_dask.tiff.model import TiffHeader

FUZZER = Path(__file__).resolve().parents[3] / "benchmarks" / "fuzz_headers.py"
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)}


def parse_from(data: bytes, first: int, size: int | None) -> tuple[TiffHeader, int]:
    """Parse as a remote file is parsed; return the header and how many rounds it took."""
    segments = Segments(((0, data[:first]),), size)
    for rounds in range(1, MAX_ROUNDS + 1):
        found = parse(segments)
        if not isinstance(found, NeedBytes):
            return found, rounds
        for start, stop in found.ranges:
            assert segments.get(start, stop) is None
            segments = segments.add(start, data[start:stop], size)
    raise AssertionError("too many rounds")


def make(path: Path, *, size: int = 300, **options: Any) -> bytes:
    array = np.arange(3 * size * size, dtype="uint16").reshape(3, size, size)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, **PLACE, **options}
    with rasterio.open(path, "w", height=size, width=size, **profile) as sink:
        sink.write(array)
    return path.read_bytes()


TILED = {"tiled": True, "blockxsize": 32, "blockysize": 64, "compress": "deflate"}


@pytest.mark.parametrize("big", ["NO", "YES"])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("layout", [TILED, {"blockysize": 7}])
def test_tables_as_tifffile_reads_them(
    big: str, order: str, interleave: str, layout: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    make(path, BIGTIFF=big, endianness=order, interleave=interleave, **layout)
    with rasterio.open(path, "r+") as sink:
        sink.build_overviews([2, 4])
    data = path.read_bytes()
    header = parse(Segments.whole(data))
    assert isinstance(header, TiffHeader)
    assert header.bigtiff == (big == "YES")
    assert header.byte_order == ("<" if order == "LITTLE" else ">")
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == len(header.levels) == 3
        for page, level in zip(file.pages, header.levels, strict=True):
            assert (page.imagelength, page.imagewidth) == (level.height, level.width)
            assert (page.samplesperpixel, page.planarconfig) == (level.samples, level.planar)
            np.testing.assert_array_equal(page.dataoffsets, level.offsets)
            np.testing.assert_array_equal(page.databytecounts, level.counts)
            chunk = page.chunks if interleave == "band" else page.chunks[:-1]
            assert tuple(chunk[-2:]) == (level.layout.height, level.layout.width)


@pytest.mark.parametrize("first", [16, 100, 1000, 32768])
@pytest.mark.parametrize("knows_size", [True, False])
def test_the_first_read_may_be_of_any_size(first: int, knows_size: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    make(path, **TILED)
    with rasterio.open(path, "r+") as sink:
        sink.build_overviews([2, 4, 8])  # appended: their directories are at the end of the file
    data = path.read_bytes()
    whole = parse(Segments.whole(data))
    assert isinstance(whole, TiffHeader)
    header, rounds = parse_from(data, first, len(data) if knows_size else None)
    assert rounds <= 12
    assert (header.crs, header.transform) == (whole.crs, whole.transform)
    for ours, theirs in zip(header.levels, whole.levels, strict=True):
        np.testing.assert_array_equal(ours.offsets, theirs.offsets)
        np.testing.assert_array_equal(ours.counts, theirs.counts)


def test_a_cog_is_read_in_one_round(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", size=600)
    copy(tmp_path / "a.tif", tmp_path / "cog.tif", driver="COG", blocksize=128, compress="zstd")
    data = (tmp_path / "cog.tif").read_bytes()
    header, rounds = parse_from(data, 32768, len(data))
    assert rounds == 1
    assert len(header.levels) == 4
    assert (header.leader, header.trailer) == (4, 4)
    for level in header.levels:
        for start, count in zip(level.offsets.tolist(), level.counts.tolist(), strict=True):
            # What the ghost area promises is there.
            assert struct.unpack("<I", data[start - 4 : start]) == (count,)
            assert (
                data[start + count : start + count + 4] == data[start + count - 4 : start + count]
            )


def test_a_rewritten_cog_promises_nothing(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", size=600)
    copy(tmp_path / "a.tif", tmp_path / "cog.tif", driver="COG", blocksize=128)
    data = (tmp_path / "cog.tif").read_bytes()
    changed = data.replace(b"KNOWN_INCOMPATIBLE_EDITION=NO\n ", b"KNOWN_INCOMPATIBLE_EDITION=YES\n")
    assert changed != data
    header = parse(Segments.whole(changed))
    assert isinstance(header, TiffHeader)
    assert (header.leader, header.trailer) == (0, 0)


# --- damage -------------------------------------------------------------------------------------
def small() -> bytearray:
    """A hand-made TIFF of 16 x 16 pixels in one tile, as little as there can be."""
    tags = [
        (256, 3, 1, 16),
        (257, 3, 1, 16),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 4, 1, 200),
        (325, 4, 1, 256),
    ]
    out = bytearray(b"II*\0" + struct.pack("<IH", 8, len(tags)))
    for tag in tags:
        out += struct.pack("<HHII", *tag)
    out += struct.pack("<I", 0)
    out += bytes(200 - len(out)) + bytes(range(256))
    return out


def place_of(tag: int) -> int:
    data = small()
    return next(at for at in range(10, 130, 12) if struct.unpack_from("<H", data, at) == (tag,))


def with_tag(tag: int, kind: int, count: int, value: int) -> bytes:
    data = small()
    struct.pack_into("<HHII", data, place_of(tag), tag, kind, count, value)
    return bytes(data)


def refused(data: bytes, kind: type[HeaderError], tag: str) -> None:
    with pytest.raises(kind) as caught:
        parse(Segments.whole(data))
    assert caught.value.tag == tag


def test_the_hand_made_file_is_read() -> None:
    header = parse(Segments.whole(bytes(small())))
    assert isinstance(header, TiffHeader)
    assert header.levels[0].offsets.tolist() == [200]
    assert header.levels[0].counts.tolist() == [256]
    assert header.warnings == ()


@pytest.mark.parametrize(
    ("tag", "kind", "count", "value", "error", "name"),
    [
        (256, 3, 1, 0, HeaderError, "ImageWidth"),
        (257, 4, 1, 0xFFFFFFFF, HeaderError, "ImageLength"),
        (322, 3, 1, 0, HeaderError, "TileWidth"),
        (323, 4, 1, 0x7FFFFFFF, UnsupportedTiffError, "TileLength"),
        (324, 4, 0xFFFFFFFF, 0, HeaderError, "TileOffsets"),
        (324, 4, 1000, 100, HeaderError, "TileOffsets"),
        (324, 5, 1, 100, HeaderError, "TileOffsets"),
        (325, 4, 0x10000000, 8, HeaderError, "TileByteCounts"),
        (259, 3, 1, 33003, UnsupportedTiffError, "Compression"),
        (259, 3, 1, 4711, UnsupportedTiffError, "Compression"),
        (258, 3, 1, 33, UnsupportedTiffError, "BitsPerSample"),
        (262, 3, 1, 5, UnsupportedTiffError, "PhotometricInterpretation"),
        (277, 3, 1, 0, HeaderError, "SamplesPerPixel"),
        (256, 2, 1, 0x41414141, HeaderError, "ImageWidth"),
        (256, 12, 1, 200, HeaderError, "ImageWidth"),
    ],
)
def test_nonsense_names_its_tag(
    tag: int, kind: int, count: int, value: int, error: type[HeaderError], name: str
) -> None:
    refused(with_tag(tag, kind, count, value), error, name)


def test_too_few_tiles_in_the_table() -> None:
    refused(with_tag(257, 3, 1, 64), HeaderError, "TileOffsets")


def test_a_missing_table() -> None:
    data = small()
    struct.pack_into("<H", data, place_of(325), 326)
    data[place_of(259) + 8] = 8  # compressed, so that counts cannot be guessed
    refused(bytes(data), HeaderError, "TileByteCounts")


def test_directories_in_a_loop() -> None:
    data = small()
    struct.pack_into("<I", data, 10 + 10 * 12, 8)
    refused(bytes(data), HeaderError, "IFD")


def test_a_damaged_second_directory_is_passed_over() -> None:
    data = small()
    struct.pack_into("<I", data, 10 + 10 * 12, 0xFFFFFF00)
    header = parse(Segments.whole(bytes(data)))
    assert isinstance(header, TiffHeader)
    assert "damaged" in header.warnings[0]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", HeaderError),
        (b"II*\0", HeaderError),
        (b"II*\0\xff\xff\xff\x7f" + bytes(100), HeaderError),
        (b"II*\0\0\0\0\0" + bytes(100), HeaderError),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(100), HeaderError),
        (b"II+\0\x04\0\0\0" + bytes(100), HeaderError),
        (b"PK\x03\x04" + bytes(100), HeaderError),
        (b"<!DOCTYPE html><html>" + bytes(100), HeaderError),
        (b"\xff\x4f\xff\x51" + bytes(100), UnsupportedTiffError),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100), UnsupportedTiffError),
    ],
)
def test_files_that_are_no_tiff(data: bytes, kind: type[HeaderError]) -> None:
    with pytest.raises(kind):
        parse(Segments.whole(data))


def test_tiles_past_the_end_are_counted() -> None:
    header = parse(Segments.whole(bytes(small()[:300])))
    assert isinstance(header, TiffHeader)
    assert header.warnings == ("1 tiles of 1 lie past the end of the file",)


def test_tables_shared_by_many_directories_are_counted_for_each() -> None:
    """A small file whose directories all point at one big table must not ask for it each time."""
    count = 1_000_000  # 8 MB of offsets
    link, at = 8, 200
    data = bytearray(b"II*\0" + struct.pack("<I", link) + bytes(at - 8))
    table = at + 40 * 200
    for number in range(40):
        tags = [(254, 4, 1, int(number > 0)), (256, 4, 1, 16), (257, 4, 1, 16 * count)]
        tags += [(258, 3, 1, 8), (322, 3, 1, 16), (323, 3, 1, 16)]
        tags += [(324, 4, count, table), (325, 4, count, table)]
        where = len(data)
        struct.pack_into("<I", data, link, where) if number == 0 else None
        body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
        last = number == 39
        data += body + struct.pack("<I", 0 if last else where + len(body) + 4)
    struct.pack_into("<I", data, 4, at)
    data += bytes(table - len(data)) + bytes(4 * count)
    refused(bytes(data), HeaderError, "IFD")


def test_mutated_headers_under_a_watchdog() -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--cases", "400"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
