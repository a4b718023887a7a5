"""How much of a tile is asked for: never more than it has, all of it where rows cannot be had one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.plan.enough import LEAST, enough
from rasteret_dask.tiff.model import TileLayout


def asked(count: int, rows: int, held: int, **layout: int) -> int:
    form = TileLayout(512, 512, "uint16", bits=16, **layout)
    one = [np.array([n], dtype=np.int64) for n in (count, rows, held)]
    found = enough(*one, form)
    assert found.dtype == np.int64
    return int(found[0])


@given(st.integers(1, 2**22), st.integers(1, 512), st.data(), st.sampled_from([1, 8, 32946, 50000]))
def test_it_grows_with_the_rows_and_never_beyond_the_tile(
    count: int, held: int, data: st.DataObject, compression: int
) -> None:
    rows = data.draw(st.integers(1, held))
    found = asked(count, rows, held, compression=compression)
    assert 0 < found <= count
    assert found == count or count - found >= LEAST
    assert asked(count, held, held, compression=compression) in (count, held * 1024)
    assert found <= asked(count, min(rows + 1, held), held, compression=compression)


@pytest.mark.parametrize("compression", [5, 7, 32773, 34887, 34925, 50001])
def test_what_is_no_stream_of_rows_is_fetched_whole(compression: int) -> None:
    assert asked(2**20, 1, 512, compression=compression) == 2**20


def test_of_rows_as_they_are_exactly_those() -> None:
    assert asked(512 * 1024, 100, 512, compression=1) == 100 * 1024
    assert asked(512 * 1024, 511, 512, compression=1) == 512 * 1024  # a kilobyte is not worth it


def test_known_shares() -> None:
    assert asked(1_000_000, 64, 512, compression=8) == 193_750
    assert asked(1_000_000, 256, 512, compression=8) == 625_000
    assert asked(1_000_000, 384, 512, compression=8) == 1_000_000
    # The lowest tiles of an image hold fewer rows: the rest is filling, and takes next to nothing.
    assert asked(1_000_000, 64, 128, compression=8) == 625_000


def test_zstd_comes_in_blocks_of_128_kilobytes() -> None:
    for rows in (1, 64, 128):
        assert asked(1_000_000, rows, 512, compression=50000) == 337_500
    assert asked(1_000_000, 129, 512, compression=50000) == 625_000


def test_many_tiles_at_once() -> None:
    form = TileLayout(512, 512, "uint16", bits=16, compression=8)
    counts = np.array([[10**6, 10**5], [2 * 10**6, 10]])
    found = enough(counts, np.array([64, 64]), np.array([512, 512]), form)
    assert found.tolist() == [[193_750, 19_375], [387_500, 10]]
