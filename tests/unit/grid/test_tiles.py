"""Windows and tiles: every pixel in exactly one piece, every tile number the right one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.grid.tiles import TileRect, cut_rect, pieces, tile_rect


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int]:
    r0, c0 = draw(st.integers(0, 70)), draw(st.integers(0, 70))
    return r0, r0 + draw(st.integers(1, 60)), c0, c0 + draw(st.integers(1, 60))


@given(windows(), st.integers(1, 40), st.integers(1, 40))
def test_pieces_put_every_pixel_in_its_place_once(
    window: tuple[int, int, int, int], th: int, tw: int
) -> None:
    r0, r1, c0, c1 = window
    rows, cols = -(-r1 // th) * th, -(-c1 // tw) * tw
    image = np.arange(rows * cols).reshape(rows, cols)
    out = np.full((r1 - r0, c1 - c0), -1)
    for p in pieces(window, th, tw):
        tile = image[p.row * th : (p.row + 1) * th, p.col * tw : (p.col + 1) * tw]
        part = tile[slice(*p.rows), slice(*p.cols)]
        assert part.size
        place = out[p.top : p.top + part.shape[0], p.left : p.left + part.shape[1]]
        assert (place == -1).all()
        place[...] = part
    assert np.array_equal(out, image[r0:r1, c0:c1])
    rect = tile_rect(window, th, tw)
    assert rect.rows * rect.cols == len(pieces(window, th, tw))


def test_no_pieces_of_an_empty_window() -> None:
    assert pieces((3, 3, 0, 5), 4, 4) == []
    assert pieces((0, 5, 7, 2), 4, 4) == []


@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)
)
def test_cut_rect_numbers_tiles_row_by_row(
    row: int, col: int, down: int, across: int, start: int
) -> None:
    columns = col + across + 3
    table = start + np.arange((row + down + 2) * columns).reshape(-1, columns)
    rect = TileRect(row, row + down, col, col + across)
    assert np.array_equal(
        cut_rect(start, columns, rect), table[row : row + down, col : col + across].ravel()
    )
