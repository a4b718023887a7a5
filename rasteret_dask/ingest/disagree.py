"""Where STAC and a file's own header contradict each other; the file wins, and the report says so.

Silence contradicts nobody: what only one of the two says is not reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pyproj
from pyproj.exceptions import CRSError

from rasteret_dask.tiff.model import Affine6, TiffHeader

_TYPES: Final = {
    "cint16": "complex64",
    "cint32": "complex128",
    "cfloat32": "complex64",
    "cfloat64": "complex128",
}
"""STAC's names of types that NumPy calls otherwise."""

_PIXEL_SLACK: Final = 1e-3
"""Of a pixel: corners further apart than this are different places."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing on which an item and a file differ.

    Parameters
    ----------
    item, asset : str
        Which file of which item.
    field : str
        The STAC field, as ``proj:shape`` or ``bands[0].nodata``.
    stac, file : str
        What each says.
    """

    item: str
    asset: str
    field: str
    stac: str
    file: str


def compare(
    item: Mapping[str, Any], asset_key: str, header: TiffHeader
) -> tuple[Disagreement, ...]:
    """List what a STAC item says of an asset and the asset's header denies.

    Parameters
    ----------
    item : mapping
        A STAC item of any version, as JSON.
    asset_key : str
        One of its assets.
    header : TiffHeader
        Of that asset's file.

    Returns
    -------
    tuple of Disagreement
        Empty when they agree, or when either is silent.
    """
    asset = item.get("assets", {}).get(asset_key, {})
    found = contradictions({**(item.get("properties") or {}), **asset}, asset, header)
    name = str(item.get("id", ""))
    return tuple(Disagreement(name, asset_key, *parts) for parts in found)


_Parts = tuple[str, str, str]


def contradictions(
    said: Mapping[str, Any], asset: Mapping[str, Any], header: TiffHeader
) -> list[tuple[str, str, str]]:
    """As `compare`, of an asset by itself: field, what STAC says, what the file says.

    Parameters
    ----------
    said : mapping
        The asset's fields, those of its item among them.
    asset : mapping
        The asset's own.
    header : TiffHeader
    """
    return [
        *_shape(said, header),
        *_transform(said, header),
        *_crs(said, header),
        *_bands(asset, header),
    ]


def _shape(said: Mapping[str, Any], header: TiffHeader) -> list[_Parts]:
    shape = _numbers(said.get("proj:shape"), 2)
    full = header.levels[0]
    if not shape or shape[:2] == [full.height, full.width]:
        return []
    return [("proj:shape", str(shape), str([full.height, full.width]))]


def _transform(said: Mapping[str, Any], header: TiffHeader) -> list[_Parts]:
    values, ours = _numbers(said.get("proj:transform"), 6), header.transform
    if ours is None or not values:
        return []
    theirs = (*(float(v) for v in values[:6]),)
    full = header.levels[0]
    if _same_place(theirs, ours, full.width, full.height):
        return []
    return [("proj:transform", str(values), str(list(ours)))]


def _same_place(theirs: tuple[float, ...], ours: Affine6, width: int, height: int) -> bool:
    """Tell whether all corners of the image agree within a small part of a pixel."""
    pixel = max(abs(ours[0]), abs(ours[1]), abs(ours[3]), abs(ours[4]))
    for column, row in ((0, 0), (width, 0), (0, height), (width, height)):
        for i in (0, 3):
            gap = (
                (theirs[i] - ours[i]) * column
                + (theirs[i + 1] - ours[i + 1]) * row
                + theirs[i + 2]
                - ours[i + 2]
            )
            if not abs(gap) <= _PIXEL_SLACK * pixel:
                return False
    return True


def _crs(said: Mapping[str, Any], header: TiffHeader) -> list[_Parts]:
    code = said.get("proj:code") or said.get("proj:epsg")
    if code is None or header.crs is None:
        return []
    theirs = code if isinstance(code, str) and ":" in code else f"EPSG:{code}"
    if theirs == header.crs or _same_crs(theirs, header.crs):
        return []
    field = "proj:code" if said.get("proj:code") else "proj:epsg"
    return [(field, theirs, header.crs)]


@lru_cache(maxsize=1024)
def _same_crs(theirs: str, ours: str) -> bool:
    """Compare by PROJ (cached per process: a build meets few pairs many times)."""
    try:
        a, b = pyproj.CRS.from_user_input(theirs), pyproj.CRS.from_user_input(ours)
    except CRSError:
        return False
    return bool(a.equals(b, ignore_axis_order=True))


def _bands(asset: Mapping[str, Any], header: TiffHeader) -> list[_Parts]:
    name = "raster:bands" if "raster:bands" in asset else "bands"
    bands = [band for band in _list(asset.get(name)) if isinstance(band, Mapping)]
    full = header.levels[0]
    found: list[_Parts] = []
    if bands and len(bands) != full.samples:
        found.append((name, f"{len(bands)} bands", f"{full.samples} bands"))
    # STAC 1.1 lets the asset speak for all of its bands.
    for number, band in enumerate(bands[: full.samples] or [{}]):
        where = f"{name}[{number}]." if bands else ""
        merged = {**{k: asset[k] for k in ("data_type", "nodata", "scale", "offset") if k in asset}}
        merged |= band
        found += _data_type(merged, where, header)
        found += _nodata(merged, where, header)
        found += _linear(merged, where, header, number)
    return found


def _data_type(band: Mapping[str, Any], where: str, header: TiffHeader) -> list[_Parts]:
    named, dtype = band.get("data_type"), header.levels[0].layout.dtype
    if not isinstance(named, str) or named == "other" or _TYPES.get(named, named) == dtype:
        return []
    return [(f"{where}data_type", named, dtype)]


def _nodata(band: Mapping[str, Any], where: str, header: TiffHeader) -> list[_Parts]:
    theirs, ours = band.get("nodata"), header.nodata
    if theirs is None or ours is None:
        return []
    try:
        value = float(theirs)  # "nan" and "inf" are written as strings
    except (TypeError, ValueError):
        return [(f"{where}nodata", str(theirs), str(ours))]
    if value == ours or (math.isnan(value) and ours != ours):
        return []
    # STAC writes out what float32 rounds.
    if math.isclose(value, ours, rel_tol=1e-6) and isinstance(ours, float):
        return []
    return [(f"{where}nodata", str(theirs), str(ours))]


def _linear(band: Mapping[str, Any], where: str, header: TiffHeader, number: int) -> list[_Parts]:
    found: list[_Parts] = []
    for key, values in (("scale", header.scales), ("offset", header.offsets)):
        theirs = band.get(key)
        ours = values[number] if number < len(values) else None
        if ours is None or not isinstance(theirs, (int, float)):
            continue
        if not math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-12):
            found.append((f"{where}{key}", str(theirs), str(ours)))
    return found


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _numbers(value: Any, least: int) -> list[float]:
    """Return a list of numbers as such; empty when it is none, or too short."""
    found = _list(value)
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found)
    return found if plain and len(found) >= least else []
