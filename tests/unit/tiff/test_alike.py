"""Headers that are alike, and headers that only look so: a parser that remembers says what one that does not says."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from rasteret_dask.errors import RasteretError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.tiff.alike import Parser
from rasteret_dask.tiff.header import NeedBytes, Segments, parse
from rasteret_dask.tiff.model import Level, TiffHeader

READ = 32768


def beginning(path: Path, read: int = READ) -> Segments:
    return Segments(((0, path.read_bytes()[:read]),), path.stat().st_size)


def plain(value: Any) -> Any:
    """Something that compares by all that a header says."""
    if isinstance(value, (TiffHeader, Level)):
        return [
            plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "like"
        ]
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, value.tolist(), value.flags.writeable]
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return repr(value)


def outcome(parser: Any, segments: Segments) -> Any:
    try:
        found = parser(segments)
    except RasteretError as error:
        return type(error), error.message
    return found if isinstance(found, NeedBytes) else plain(found)


def image(seed: int, side: int = 600) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 60 + 400 * seed, (side, side)).astype("uint16")


@pytest.mark.parametrize(
    "how",
    [
        {"blocksize": 128},
        {"blocksize": 256, "overviews": 0},
        {"blocksize": 64, "compress": "zstd", "nodata": 0},
        {"blocksize": 128, "overviews": 0, "driver": "GTiff", "bigtiff": "yes"},
        {"blocksize": 128, "overviews": 0, "driver": "GTiff", "endianness": "big"},
    ],
    ids=str,
)
def test_dates_of_one_tile(tmp_path: Path, how: dict[str, Any]) -> None:
    parser = Parser()
    for seed in range(6):
        path = tmp_path / f"{seed}.tif"
        make_cog(path, image(seed), **how)
        segments = beginning(path)
        assert outcome(parser.parse, segments) == outcome(parse, segments)
        with tifffile.TiffFile(path) as tiff:
            found = parser.parse(segments)
            assert isinstance(found, TiffHeader)
            assert found.levels[0].offsets.tolist() == list(tiff.pages[0].dataoffsets)  # type: ignore[union-attr]
            assert found.levels[0].counts.tolist() == list(tiff.pages[0].databytecounts)  # type: ignore[union-attr]
    assert parser.hits >= 6


def test_other_places_values_and_types_are_other_headers(tmp_path: Path) -> None:
    parser = Parser()
    seen = set()
    base = {"blocksize": 128, "nodata": 0}
    variants: list[dict[str, Any]] = [
        {},
        {"nodata": 7},
        {"transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)},
        {"transform": rasterio.Affine(10, 0, 500_010, 0, -10, 5_000_000)},
        {"crs": "EPSG:32632"},
        {"crs": "EPSG:32633"},
    ]
    for number, variant in enumerate([*variants, *variants]):
        path = tmp_path / f"{number}.tif"
        make_cog(path, image(3), **{**base, **variant})
        found = parser.parse(beginning(path))
        assert plain(found) == plain(parse(beginning(path)))
        assert isinstance(found, TiffHeader)
        seen.add((found.crs, found.transform, found.nodata))
    assert len(seen) >= 5
    assert parser.hits >= len(variants)


def test_sparse_and_truncated_files_get_a_closer_look(tmp_path: Path) -> None:
    whole, holes = tmp_path / "whole.tif", tmp_path / "holes.tif"
    array = image(2)
    make_cog(whole, array, blocksize=128, nodata=0)
    array[:256, :256] = 0
    make_cog(holes, array, blocksize=128, nodata=0, sparse=True)
    parser = Parser()
    for path in (whole, holes, whole, holes):
        assert outcome(parser.parse, beginning(path)) == outcome(parse, beginning(path))
    segments = beginning(whole)
    data, size, header = segments.start, segments.size, parse(segments)
    assert data is not None
    assert size is not None
    assert isinstance(header, TiffHeader)
    # No offset and yet a size: nothing was written there.
    table = header.levels[0].offsets.astype("<u4").tobytes()
    odd = Segments(((0, data.replace(table, bytes(4) + table[4:])),), size)
    assert outcome(parser.parse, odd) == outcome(parse, odd)
    for cut in (size - 1, size // 2, 20_000, 500):
        short = Segments(((0, data[:cut]),), cut)
        assert outcome(parser.parse, short) == outcome(parse, short)
    unsure = Segments(((0, data),), None)
    assert outcome(parser.parse, unsure) == outcome(parse, unsure)


def test_any_byte_that_matters_is_seen(tmp_path: Path) -> None:
    """Damage anywhere in a header is found whether or not a whole one was seen before."""
    path = tmp_path / "a.tif"
    make_cog(path, image(1), blocksize=128, nodata=0)
    whole = beginning(path)
    header = parse(whole)
    assert isinstance(header, TiffHeader)
    data = whole.start
    assert data is not None
    first = min(int(level.offsets.min()) for level in header.levels)
    parser = Parser()
    parser.parse(whole)
    chance = random.Random(5)
    for _ in range(1500):
        damaged = bytearray(data)
        damaged[chance.randrange(min(first, len(data)))] ^= 1 << chance.randrange(8)
        segments = Segments(((0, bytes(damaged)),), whole.size)
        assert outcome(parser.parse, segments) == outcome(parse, segments)
    assert parser.hits > 100  # bytes of the tables, and those between


def test_every_file_of_the_corpus_among_all_others(corpus: Path) -> None:
    parser = Parser()
    paths = [p for p in sorted(corpus.rglob("*.tif")) if p.stat().st_size < 4_000_000]
    for path in paths:
        segments = beginning(path)
        expected = outcome(parse, segments)
        for _ in range(2):
            assert outcome(parser.parse, segments) == expected, path
    assert parser.hits > 50


def test_files_that_have_nothing_in_common_are_not_remembered_for_ever(tmp_path: Path) -> None:
    parser = Parser()
    path = tmp_path / "a.tif"
    make_cog(path, image(1), blocksize=128, nodata=100_00)
    whole = beginning(path)
    data = whole.start
    assert data is not None
    at = data.index(b"10000")
    for number in range(10_000, 10_200):
        other = data[:at] + str(number).encode() + data[at + 5 :]
        found = parser.parse(Segments(((0, other),), whole.size))
        assert isinstance(found, TiffHeader)
        assert found.nodata == number
    assert parser.learned <= 64
