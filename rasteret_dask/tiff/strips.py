"""Strips of plain pixels: their sizes where a file does not say, and smaller ones made of huge ones."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

from rasteret_dask.tiff.model import TileLayout

CHOP: Final = 1024 * 1024
"""Strips of plain pixels above this many bytes are read in parts, as libtiff does."""

MOST: Final = 1 << 20
"""More parts than this are not made: the header of a file that says so is damaged."""

Table = npt.NDArray[np.uint64]


def row_bytes(layout: TileLayout) -> int:
    """Bytes of one row of a tile before compression."""
    return -(-layout.width * layout.samples * layout.bits // 8)


def guess_counts(layout: TileLayout, height: int, planes: int) -> Table:
    """Return the byte counts that plain pixels must have, for old files that do not say.

    Parameters
    ----------
    layout : TileLayout
    height : int
        Rows of the image.
    planes : int
        How often the image is repeated, once for each plane.
    """
    starts = np.arange(0, height, layout.height, dtype=np.uint64)
    rows = np.minimum(starts + np.uint64(layout.height), np.uint64(height)) - starts
    return np.tile(rows * np.uint64(row_bytes(layout)), planes)


def chop(
    layout: TileLayout, height: int, offsets: Table, counts: Table
) -> tuple[TileLayout, Table, Table]:
    """Cut strips of plain pixels into smaller ones of equal height, where that is possible.

    A whole image in one strip is how many tools write; read as it stands, every window of it would fetch all
    of it. Without compression any row can be found, so a strip is as good as many.

    Parameters
    ----------
    layout : TileLayout
        Of strips without compression.
    height : int
        Rows of the image.
    offsets, counts : ndarray of uint64
        Of the strips, plane by plane.

    Returns
    -------
    layout, offsets, counts
        As they were, when the strips are small, not all there, or cannot be cut evenly.
    """
    row = row_bytes(layout)
    per_plane = -(-height // layout.height)
    planes = len(offsets) // per_plane if per_plane else 0
    pieces = height // max(1, CHOP // row) * planes
    if row * layout.height <= CHOP or planes == 0 or pieces > MOST:
        return layout, offsets, counts
    if not (counts == guess_counts(layout, height, planes)).all():
        return layout, offsets, counts
    rows = max(1, CHOP // row)
    if per_plane > 1:
        # Cuts must fall on the ends of strips, too.
        rows = next((n for n in range(rows, 0, -1) if layout.height % n == 0), 1)
    if -(-height // rows) * planes > MOST:
        return layout, offsets, counts
    small = dataclasses.replace(layout, height=rows)
    first = np.arange(0, height, rows, dtype=np.uint64)
    strip, within = np.divmod(first, np.uint64(layout.height))
    begins = [
        offsets[plane * per_plane : (plane + 1) * per_plane][strip] + within * np.uint64(row)
        for plane in range(planes)
    ]
    return small, np.concatenate(begins), guess_counts(small, height, planes)
