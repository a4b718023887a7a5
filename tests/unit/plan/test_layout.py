"""Chunks: they sum to the cube, are uniform, begin on tiles and keep within their bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.errors import ArgumentError
from rasteret_dask.plan.layout import auto_chunks, parse_chunks, tile_split

SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 9000), st.integers(1, 9000))
TILES = st.tuples(st.integers(1, 1024), st.integers(1, 1024))
TARGET = 2**24


@given(SHAPES, TILES, TILES, st.sampled_from([1, 2, 4, 8]))
def test_auto_chunks(
    shape: tuple[int, int, int], tile: tuple[int, int], offset: tuple[int, int], itemsize: int
) -> None:
    chunks = auto_chunks(shape, tile, offset, itemsize, TARGET)
    for sizes, total in zip(chunks, shape):
        assert sum(sizes) == total
        assert len(set(sizes[:-1])) <= 1
        assert sizes[-1] <= sizes[0]
    depth, height, width = (c[0] for c in chunks)
    for got, size, t in ((height, shape[1], tile[0]), (width, shape[2], tile[1])):
        assert got == size or got % t == 0
    whole = min(tile[0], shape[1]) * min(tile[1], shape[2]) * itemsize
    assert depth * height * width * itemsize <= max(TARGET, whole)
    # As balanced as whole tiles allow: the last lacks fewer tiles than there are chunks.
    for sizes, t in zip(chunks[1:], tile):
        assert sizes[0] - sizes[-1] < t * len(sizes)
    # Depth only when the area is one chunk.
    assert depth == 1 or (height, width) == shape[1:]


def test_a_scene_of_sentinel2_is_cut_into_nine_alike() -> None:
    scene = auto_chunks((3, 10980, 10980), (1024, 1024), (0, 0), 2, 2**26)
    assert scene == ((1, 1, 1), (4096, 4096, 2788), (4096, 4096, 2788))
    # A strip: as many rows as fit, in equal parts.
    strip = auto_chunks((1, 40_000, 512), (512, 512), (0, 0), 4, 2**24)
    assert strip == ((1,), (8192,) * 4 + (7232,), (512,))


@given(st.integers(1, 5000), st.integers(1, 600), st.integers(0, 5000))
def test_natural_tiles_are_cut_at_every_edge_of_a_source_tile(
    size: int, tile: int, offset: int
) -> None:
    sizes = tile_split(size, tile, offset)
    assert sum(sizes) == size
    edges = [k for k in range(1, size) if (k + offset) % tile == 0]
    reached, cuts = 0, []
    for s in sizes[:-1]:
        reached += s
        cuts.append(reached)
    assert cuts == edges


@given(SHAPES, TILES, TILES, st.sampled_from([1, 2, 4, 8]))
def test_groups_of_tiles_begin_and_end_on_tiles(
    shape: tuple[int, int, int], tile: tuple[int, int], offset: tuple[int, int], itemsize: int
) -> None:
    time, *area = parse_chunks("tiles", shape, tile, offset, itemsize, TARGET)
    assert sum(time) == shape[0]
    for sizes, size, edge, begin in zip(area, shape[1:], tile, offset):
        assert sum(sizes) == size
        ends = [begin + sum(sizes[: k + 1]) for k in range(len(sizes) - 1)]
        assert all(end % edge == 0 for end in ends)
    whole = min(tile[0], shape[1]) * min(tile[1], shape[2]) * itemsize
    assert max(time) * max(area[0]) * max(area[1]) * itemsize <= max(TARGET, whole)


def test_nine_tiles_of_thirty_dates_are_three_groups() -> None:
    """2048 pixels that begin amid a tile of 256: nothing is read twice, as uniform chunks would."""
    wanted = {"time": -1, "y": "tiles", "x": "tiles"}
    cut = parse_chunks(wanted, (30, 2048, 2048), (256, 256), (100, 0), 2, 2**26)
    assert cut == ((30,), (668, 768, 612), (1024, 1024))


SHAPE, TILE, OFFSET = (5, 1000, 700), (256, 256), (10, 0)


def parse(chunks: Any) -> Any:
    return parse_chunks(chunks, SHAPE, TILE, OFFSET, 2, 2**22)


def test_the_forms_of_chunks() -> None:
    assert parse("tile") == parse({}) == ((1,) * 5, (246, 256, 256, 242), (256, 256, 188))
    assert parse({"time": -1, "y": 300, "x": None}) == ((5,), (300, 300, 300, 100), (700,))
    assert parse({"time": 2, "y": (500, 500), "x": 10_000}) == ((2, 2, 1), (500, 500), (700,))
    assert parse("auto") == parse({"time": "auto", "y": "auto", "x": "auto"})
    # A deep time makes the area smaller.
    deep = parse_chunks({"time": -1}, (60, 4000, 4000), TILE, (0, 0), 2, 2**24)
    assert deep[0] == (60,)
    assert 60 * deep[1][0] * deep[2][0] * 2 <= 2**24


@pytest.mark.parametrize(
    "wrong",
    [
        "many",
        256,
        {"time": "tiles"},
        {"band": 1},
        {"x": 0},
        {"x": -2},
        {"y": (500, 400)},
        {"x": 2.5},
    ],
)
def test_chunks_that_mean_nothing(wrong: Any) -> None:
    with pytest.raises(ArgumentError):
        parse(wrong)
