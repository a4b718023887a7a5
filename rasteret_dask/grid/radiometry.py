"""Nodata, scale and offset, and the offset of Sentinel-2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError

Number = float | int | None


def valid_pixels(values: npt.NDArray[Any], nodata: Number) -> npt.NDArray[np.bool_] | None:
    """Return where values mean something; None means everywhere.

    NaN is nodata in floating-point data even where the file does not say so.
    """
    floating = values.dtype.kind in "fc"
    if nodata is None:
        if not floating:
            return None
        nan = np.isnan(values)
        return ~nan if nan.any() else None
    if nodata != nodata:
        return ~np.isnan(values) if floating else None
    valid: npt.NDArray[np.bool_] = values != nodata
    if floating:
        valid &= ~np.isnan(values)
    return valid


def _alpha_earth(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """AlphaEarth's embeddings: sign(v) · (v / 127.5)², from int8 to [-1, 1] (the dataset's own documentation)."""
    scaled = values.astype(np.float32) / np.float32(127.5)
    decoded: npt.NDArray[np.float32] = np.sign(scaled) * scaled * scaled
    return decoded


DECODERS: Mapping[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]] = {
    "alphaearth": _alpha_earth
}
"""What ``decode=True`` applies to stored numbers, by the name that a descriptor gives; before anything is warped or fused."""


def masked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float type that holds a type's values and NaN: float32 up to 16 bits, float64 above; complex stays."""
    if dtype.kind == "c":
        return dtype
    if dtype.kind == "f":
        return np.dtype(np.float32) if dtype.itemsize <= 4 else dtype
    return np.dtype(np.float32) if dtype.itemsize <= 2 else np.dtype(np.float64)


def convert(
    values: npt.NDArray[Any],
    dtype: np.dtype[Any],
    scale: float,
    add: float,
    valid: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[Any]:
    """Return ``values * scale + add`` in another type, or the values as they are when nothing changes.

    The arithmetic is done in the output's own precision for floats, in float64 for integers, which are then rounded.

    Parameters
    ----------
    values : ndarray
    dtype : numpy.dtype
        Of the result.
    scale, add : float
    valid : ndarray of bool, same shape, optional
        Where values mean something; elsewhere the result is arbitrary, and need not fit.

    Raises
    ------
    ArgumentError
        If a valid value does not fit an integer type: it would wrap around.
    """
    plain = scale == 1.0 and add == 0.0
    if plain and (values.dtype == dtype or np.can_cast(values.dtype, dtype, "safe")):
        return values.astype(dtype, copy=False)
    if dtype.kind in "fc":
        out = values.astype(dtype)
        if not plain:
            out *= dtype.type(scale)
            out += dtype.type(add)
        return out
    wide = values if plain else values.astype(np.float64) * scale + add
    if wide.dtype.kind == "f":
        wide = np.rint(wide)
    seen = wide if valid is None else wide[valid]
    if seen.size:
        info, low, high = np.iinfo(dtype), seen.min(), seen.max()
        # Written so that NaN does not pass either.
        if not (info.min <= low and high <= info.max):
            raise ArgumentError(
                f"values from {low} to {high} do not fit {dtype.name}",
                hint="ask for dtype='float32'",
            )
    return (wide if valid is None else np.where(valid, wide, 0)).astype(dtype)


@dataclass(frozen=True, slots=True)
class Offset:
    """What must be added to the digital numbers of a Sentinel-2 item, and the rule that says so."""

    dn: float
    rule: str


OTHER_SENSOR = Offset(float("nan"), "")
"""Of an item that is not Sentinel-2's, in a cube beside some that are: what it declares holds."""


def sentinel2_offset(
    *,
    collection: str | None,
    offset_applied: bool | None,
    baseline: str | None,
    declared_scale: float | None = None,
    declared_add: float | None = None,
) -> Offset:
    """Return the radiometric offset of an L2A item, in digital numbers.

    From processing baseline 04.00 on, ESA adds 1000 to every digital number (``BOA_ADD_OFFSET = -1000``). Who published the file
    decides whether that is still in there:

    ============================================  ===========================================
    what the item says                            offset
    ============================================  ===========================================
    ``earthsearch:boa_offset_applied`` is true    0, whatever ``raster:bands`` says
    ``earthsearch:boa_offset_applied`` is false   -1000 from baseline 04.00, else 0
    collection ``sentinel-2-c1-l2a``              the declared one
    a baseline, and neither of these              -1000 from baseline 04.00, else 0
    ============================================  ===========================================

    The date never decides: old acquisitions are reprocessed.

    Parameters
    ----------
    collection : str, optional
        The item's, in the words of who published it.
    offset_applied : bool, optional
        ``earthsearch:boa_offset_applied``.
    baseline : str, optional
        ``s2:processing_baseline``, as ``"05.09"``.
    declared_scale, declared_add : float, optional
        Of ``raster:bands``, in reflectance.

    Raises
    ------
    ArgumentError
        If no rule covers the item.
    """
    if offset_applied is True:
        return Offset(0.0, "earthsearch:boa_offset_applied")
    if collection == "sentinel-2-c1-l2a" and declared_add is not None and declared_scale:
        return Offset(round(declared_add / declared_scale, 6), "declared (collection 1)")
    number = _baseline(baseline)
    if number is None:
        raise ArgumentError(
            "no rule says whether the Sentinel-2 offset is in this item's numbers: it has neither "
            "earthsearch:boa_offset_applied nor s2:processing_baseline",
            hint="give offsets={item id: 0 or -1000}, or leave harmonize and scale off",
        )
    rule = f"baseline {baseline}"
    return Offset(-1000.0 if number >= 4.0 else 0.0, rule)


def _baseline(text: str | None) -> float | None:
    cleaned = (text or "").strip().upper().removeprefix("N")
    if cleaned.isdigit() and len(cleaned) == 4:
        cleaned = f"{cleaned[:2]}.{cleaned[2:]}"
    try:
        return float(cleaned)
    except ValueError:
        return None
