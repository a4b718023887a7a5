"""Which pixels a mask band keeps: by class, or by bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskRule:
    """A mask band and what of it is kept.

    Parameters
    ----------
    band : str
        The mask band.
    keep, drop : tuple of int, optional
        Values that are kept, or dropped; exactly one of ``keep``, ``drop`` and ``bits`` is given.
    bits : tuple of (int, int, tuple of int)
        ``(first bit, number of bits, values)``: a pixel is kept when each field holds one of its values.
    dilate : float
        Metres by which dropped pixels grow. The mask's own nodata does not grow.
    """

    band: str
    keep: tuple[int, ...] | None = None
    drop: tuple[int, ...] | None = None
    bits: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    dilate: float = 0.0

    def apply(
        self,
        values: npt.NDArray[Any],
        nodata: float | int | None,
        radius: tuple[float, float] = (0.0, 0.0),
    ) -> Bools:
        """Return True where a pixel is kept; the mask's own nodata never is, unless ``keep`` lists it.

        Parameters
        ----------
        values : ndarray of integers
        nodata : number, optional
        radius : tuple of float
            ``dilate`` in rows and columns of the mask.
        """
        kept = self._kept(values, nodata)
        if radius == (0.0, 0.0):
            return kept
        dropped = ~kept
        if nodata is not None and nodata == nodata:
            dropped &= values != nodata
        kept &= ~dilated(dropped, radius)
        return kept

    def _kept(self, values: npt.NDArray[Any], nodata: float | int | None) -> Bools:
        if self.keep is not None:
            return _isin(values, self.keep)
        kept: Bools
        if self.drop is not None:
            kept = ~_isin(values, self.drop)
        else:
            kept = np.ones(values.shape, dtype=bool)
            for first, count, allowed in self.bits:
                kept &= _isin(self._field(values, first, count), allowed)
        if nodata is not None and nodata == nodata:
            kept &= values != nodata
        return kept

    def _field(self, values: npt.NDArray[Any], first: int, count: int) -> npt.NDArray[Any]:
        if values.dtype.kind not in "iu":
            raise ArgumentError(
                f"mask 'bits' are of whole numbers, and the band holds {values.dtype}",
                band=self.band,
            )
        # As they are stored: a sign is a bit.
        stored = values.view(f"u{values.dtype.itemsize}")
        most = int(np.iinfo(stored.dtype).max)
        found: npt.NDArray[Any] = (stored >> first) & min((1 << count) - 1, most)
        return found


def dilated(flags: Bools, radius: tuple[float, float]) -> Bools:
    """Return flags grown by an ellipse: a pixel is set when a set one lies within the radius.

    Parameters
    ----------
    flags : ndarray of bool, shape (rows, columns)
    radius : tuple of float
        In rows and columns; distances are from centre to centre.
    """
    down, across = radius
    rows, cols = flags.shape
    out = flags.copy()
    if not flags.any():
        return out
    totals = np.zeros((rows, cols + 1), dtype=np.int32)
    np.cumsum(flags, axis=1, out=totals[:, 1:])
    centre = np.arange(cols)
    most = min(int(down + 1e-9), rows - 1)
    for dy in range(-most, most + 1):
        reach = (
            int(across * math.sqrt(max(0.0, 1.0 - (dy / down) ** 2)) + 1e-9)
            if down
            else int(across + 1e-9)
        )
        left, right = np.maximum(0, centre - reach), np.minimum(cols, centre + reach + 1)
        hit = totals[:, right] > totals[:, left]
        target = slice(max(0, dy), min(rows, rows + dy))
        source = slice(max(0, -dy), min(rows, rows - dy))
        out[target] |= hit[source]
    return out


def _isin(values: npt.NDArray[Any], wanted: tuple[int, ...]) -> Bools:
    if values.dtype == np.uint8:
        # A table of 256 answers is ten times as quick as a search.
        table = np.zeros(256, dtype=bool)
        table[[v for v in wanted if 0 <= v <= 255]] = True
        looked: Bools = table[values]
        return looked
    found: Bools = np.isin(values, np.asarray(wanted))
    return found


def mask_rule(mask: Any) -> MaskRule:
    """Understand ``mask=dict(band=…, keep=[…] | drop=[…] | bits={…})``.

    ``bits`` maps a bit (``3``) or a range of bits (``"8-9"``) to the value, or list of values, that is kept.

    Raises
    ------
    ArgumentError
        If keys are missing, unknown or contradict each other.
    """
    if not isinstance(mask, dict):
        raise ArgumentError(
            f"mask must be a mapping with 'band' and 'keep', 'drop' or 'bits', not {mask!r}"
        )
    unknown = set(mask) - {"band", "keep", "drop", "bits", "dilate"}
    if unknown:
        raise ArgumentError(
            f"mask has unknown keys {sorted(unknown)}", hint="known: band, keep, drop, bits, dilate"
        )
    band = mask.get("band")
    if not isinstance(band, str):
        raise ArgumentError("mask needs 'band', the name of the mask band")
    given = [key for key in ("keep", "drop", "bits") if mask.get(key) is not None]
    if len(given) != 1:
        raise ArgumentError(f"mask needs exactly one of 'keep', 'drop' and 'bits', not {given}")
    dilate = mask.get("dilate") or 0.0
    if not isinstance(dilate, (int, float)) or not 0.0 <= dilate < math.inf:
        raise ArgumentError(f"mask 'dilate' must be metres, not {dilate!r}")
    if given[0] == "bits":
        return MaskRule(band, bits=_bit_fields(mask["bits"]), dilate=float(dilate))
    values = _values(mask[given[0]])
    named = {given[0]: values}
    return MaskRule(band, named.get("keep"), named.get("drop"), dilate=float(dilate))


def _values(given: Any) -> tuple[int, ...]:
    items = given if isinstance(given, (list, tuple, set, np.ndarray)) else [given]
    try:
        values = tuple(sorted(int(v) for v in items))
    except (TypeError, ValueError):
        raise ArgumentError(f"mask values must be whole numbers, not {given!r}") from None
    if not values:
        raise ArgumentError("a mask without values would keep, or drop, nothing")
    return values


def _bit_fields(bits: Any) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    if not isinstance(bits, dict) or not bits:
        raise ArgumentError(
            "mask 'bits' must map a bit (3) or a range ('8-9') to the values that are kept"
        )
    fields = []
    for key, allowed in bits.items():
        first, _, last = str(key).partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ArgumentError(f"{key!r} is neither a bit number nor a range like '8-9'")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < 64:
            raise ArgumentError(f"the bits {key!r} are out of order or out of range")
        fields.append((low, high - low + 1, _values(allowed)))
    return tuple(sorted(fields))
