"""Do Sentinel-2's numbers agree with the offset that metadata promises? The lowest of them can say no, though never yes.

On 30 real bands of s2-austria that have the offset taken out already, between 8 and 90 per cent of the pixels of blue, green and red lie
below 500; with the offset still in them next to none can.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import RasteretWarning
from rasteret_dask.grid.radiometry import valid_pixels
from rasteret_dask.plan.sources import SourceRead

BANDS = frozenset(("B02", "B03", "B04", "blue", "green", "red"))
"""Bands that are dark somewhere in nearly every picture."""

THINNING = 4
"""Every fourth row and column is looked at, so that looking costs a sixteenth of a pass."""

FEW = (slice(None, None, THINNING),) * 2

ENOUGH = 4096
"""Fewer pixels prove nothing."""

DARK, DARK_SHARE = 500, 0.01
"""After 1000 is taken off these are reflectances below -0.05, which are not found in a hundredth of a picture."""

BRIGHT = (1000, 1100)
"""Where the lowest pixel lies when the offset is still in the numbers and there is anything dark."""


def check_offset(
    source: SourceRead,
    band: str,
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None,
) -> None:
    """Warn, once for an item and band in a process, when digital numbers contradict the offset that is applied to them.

    Parameters
    ----------
    source : SourceRead
        With the scale and add that come of the offset.
    band : str
    values : ndarray, shape (rows, columns)
        As stored.
    valid : ndarray of bool, same shape, optional
    """
    _judge(source, band, values[FEW] if valid is None else values[FEW][valid[FEW]])


def check_stored(
    source: SourceRead, band: str, values: npt.NDArray[Any], shown: npt.NDArray[Any] | None
) -> None:
    """Warn as `check_offset` does, where nobody has worked out yet which pixels are valid.

    Parameters
    ----------
    source, band, values
        As in `check_offset`.
    shown : ndarray, same shape, optional
        What the file's own mask, or alpha, says of that: 0 where there is nothing.
    """
    # Windows for training are small, and many.
    if values.size < ENOUGH * THINNING**2:
        return
    few = values[FEW]
    valid = valid_pixels(few, source.nodata)
    if shown is not None:
        seen = shown[FEW] != 0
        valid = seen if valid is None else valid & seen
    _judge(source, band, few.ravel() if valid is None else few[valid])


def _judge(source: SourceRead, band: str, seen: npt.NDArray[Any]) -> None:
    if seen.size < ENOUGH or not source.scale:
        return
    offset = round(source.add / source.scale)
    dark = float((seen < DARK).mean())
    if offset == -1000 and dark > DARK_SHARE:
        said = (
            f"more than {DARK_SHARE:.0%} of its digital numbers lie below {DARK}, so 1000 seems to have been taken off them "
            "already, and is now taken off once more"
        )
    elif offset == 0 and BRIGHT[0] <= seen.min() < BRIGHT[1]:
        said = (
            f"none of its digital numbers lies below {BRIGHT[0]}, and some just above: "
            "the 1000 of baseline 04.00 seems to be in them still"
        )
    else:
        return
    _say(
        f"Sentinel-2 offset of {source.item}, {band}: {said}. If so, give offsets={{{source.item!r}: "
        f"{0 if offset else -1000}}}"
    )


_said: dict[str, object] = {}
"""What this process has said already, since every chunk of an item would say the same. Owned by `_say`, and emptied when it grows long."""


def _say(message: str) -> None:
    """Warn where the user is: on a worker Dask carries it to the client."""
    if len(_said) > 4096:
        _said.clear()
    mine = object()
    # Atomic: of two threads one is the first.
    if _said.setdefault(message, mine) is not mine:
        return
    module = sys.modules.get("distributed.worker")
    tell = warnings.warn if module is None else module.warn
    tell(message, RasteretWarning, stacklevel=4)
