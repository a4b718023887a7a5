"""From a window of pixels to the tiles that hold it, and where each piece goes: integers only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Window = tuple[int, int, int, int]
"""``(row0, row1, col0, col1)``, half-open, in pixels of one level."""


@dataclass(frozen=True, slots=True)
class TileRect:
    """A rectangle of tiles: rows ``[row0, row1)`` and columns ``[col0, col1)`` of a level's tile grid."""

    row0: int
    row1: int
    col0: int
    col1: int

    @property
    def rows(self) -> int:
        """Tiles down."""
        return max(0, self.row1 - self.row0)

    @property
    def cols(self) -> int:
        """Tiles across."""
        return max(0, self.col1 - self.col0)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one tile gives to a window.

    Parameters
    ----------
    row, col : int
        The tile.
    rows, cols : tuple of int
        Half-open ranges of pixels within the tile.
    top, left : int
        Where the piece begins within the window.
    """

    row: int
    col: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    top: int
    left: int


def tile_rect(window: Window, tile_height: int, tile_width: int) -> TileRect:
    """Return the tiles that a non-empty window touches."""
    r0, r1, c0, c1 = window
    return TileRect(
        r0 // tile_height, -(-r1 // tile_height), c0 // tile_width, -(-c1 // tile_width)
    )


def pieces(window: Window, tile_height: int, tile_width: int) -> list[Piece]:
    """Take a window apart, tile by tile, row by row.

    Every pixel of the window belongs to exactly one piece.
    """
    r0, r1, c0, c1 = window
    if r1 <= r0 or c1 <= c0:
        return []
    rect = tile_rect(window, tile_height, tile_width)
    out = []
    for row in range(rect.row0, rect.row1):
        top = row * tile_height
        a, b = max(r0, top), min(r1, top + tile_height)
        for col in range(rect.col0, rect.col1):
            left = col * tile_width
            p, q = max(c0, left), min(c1, left + tile_width)
            out.append(Piece(row, col, (a - top, b - top), (p - left, q - left), a - r0, p - c0))
    return out


def cut_rect(start: int, columns: int, rect: TileRect) -> npt.NDArray[np.int64]:
    """Return flat tile numbers of a rectangle within a row-by-row table that begins at ``start``.

    Parameters
    ----------
    start : int
        Number of the table's first entry.
    columns : int
        Tiles across the table.
    rect : TileRect
        The rectangle, relative to the table's own corner.
    """
    rows = np.arange(rect.row0, rect.row1, dtype=np.int64)[:, None]
    cols = np.arange(rect.col0, rect.col1, dtype=np.int64)[None, :]
    return (start + rows * columns + cols).ravel()
