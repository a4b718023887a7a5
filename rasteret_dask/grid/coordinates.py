"""What coordinates mean: the CRS that data or their owner name, or lon/lat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import CRS84, crs_text, is_geographic


def resolve_crs(said: str | None, asked: Any, *, tabular: bool) -> str:
    """Return what coordinates mean: as the data says, else as the caller says, else lon/lat, but for tables, which must be told.

    Raises
    ------
    ArgumentError
        If data and caller contradict each other, or a table is silent.
    """
    told = None if asked is None else plain_crs(asked)
    if told is not None and said is not None and told != said:
        raise ArgumentError(
            f"the geometries say that they are in {said[:60]}, and geometry_crs says {told[:60]}",
            hint="leave geometry_crs out, or reproject them",
        )
    found = told or said
    if found is None and tabular:
        raise ArgumentError(
            "the table does not say in which CRS its geometries are",
            hint="give geometry_crs=, as geometry_crs=4326",
        )
    return found or CRS84


def plain_crs(crs: Any) -> str:
    """``EPSG:n``, WKT2, or ``OGC:CRS84`` for all spellings of lon/lat on WGS 84."""
    if crs in (4326, "EPSG:4326", CRS84):
        return CRS84
    text = crs_text(crs)
    wgs84 = text == "EPSG:4326" or ("CRS84" in text and "WGS 84" in text)
    return CRS84 if wgs84 else text


def check_degrees(bounds: Iterable[float], crs: str) -> None:
    """Refuse coordinates in a geographic CRS that are no degrees.

    Raises
    ------
    ArgumentError
    """
    west, south, east, north = bounds
    if is_geographic(crs) and (max(-west, east) > 540 or max(-south, north) > 90):
        raise ArgumentError(
            f"the coordinates reach from ({west:g}, {south:g}) to ({east:g}, {north:g}), which are no degrees",
            hint="say what they are: geometry_crs=",
        )
