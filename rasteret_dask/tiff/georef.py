"""Where a GeoTIFF lies: affine transform, ground control points and CRS from its tags."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rasteret_dask.errors import HeaderError
from rasteret_dask.tiff.geokeys import crs_from_keys, parse_geokeys
from rasteret_dask.tiff.ifd import Ifd
from rasteret_dask.tiff.model import Affine6, Level
from rasteret_dask.tiff.segments import Segments

Gcp = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Georef:
    """The georeference of one file; fields as in :class:`TiffHeader`."""

    crs: str | None = None
    transform: Affine6 | None = None
    gcps: tuple[Gcp, ...] = ()
    warnings: tuple[str, ...] = ()


def read_georef(segments: Segments, ifd: Ifd, level: Level) -> Georef:
    """Read the georeferencing tags; damage becomes a warning, never an error."""
    warnings: list[str] = []
    keys = {}
    if 34735 in ifd.entries:
        try:
            keys = parse_geokeys(
                ifd.numbers(34735, segments),
                ifd.numbers(34736, segments),
                ifd.text(34737, segments) if 34737 in ifd.entries else "",
            )
        except HeaderError as error:
            warnings.append(f"the GeoKeys are damaged and ignored: {error.message}")
    point = keys.get(1025) == 2
    transform: Affine6 | None = None
    gcps: tuple[Gcp, ...] = ()
    try:
        transform, gcps = _affine(segments, ifd, point, warnings)
    except HeaderError as error:
        warnings.append(f"the georeference is damaged and ignored: {error.message}")
    return Georef(crs_from_keys(keys, warnings), transform, gcps, tuple(warnings))


def _affine(
    segments: Segments, ifd: Ifd, point: bool, warnings: list[str]
) -> tuple[Affine6 | None, tuple[Gcp, ...]]:
    """Return the affine of pixel corners, or the tie points where they are all there is."""
    scale = _doubles(ifd, segments, 33550)
    ties = _doubles(ifd, segments, 33922)
    matrix = _doubles(ifd, segments, 34264)
    # GDAL's order of preference: scale with tie point, then matrix, then bare tie points.
    if len(scale) >= 2 and scale[0] != 0 and scale[1] != 0:
        if len(ties) < 6:
            return None, ()
        column, row, _, x, y, _ = ties[:6]
        if scale[1] < 0:
            # Writers mean north-up by it, whatever the standard says; GDAL reads it so.
            warnings.append("a negative scale along y is read as the positive one: north is up")
        a, e = scale[0], -abs(scale[1])
        return _corner((a, 0.0, x - column * a, 0.0, e, y - row * e), point), ()
    if len(matrix) >= 8:
        a, b, _, c, d, e, _, f = matrix[:8]
        if a * e - b * d == 0.0:
            return None, ()
        return _corner((a, b, c, d, e, f), point), ()
    if len(ties) >= 6:
        shift = 0.5 if point else 0.0
        gcps = tuple(
            (ties[i] + shift, ties[i + 1] + shift, ties[i + 3], ties[i + 4], ties[i + 5])
            for i in range(0, len(ties) - 5, 6)
        )
        return None, gcps
    return None, ()


def _corner(affine: Affine6, point: bool) -> Affine6 | None:
    """Move an affine of pixel centres (PixelIsPoint) by half a pixel."""
    if not all(math.isfinite(value) for value in affine):
        return None
    if not point:
        return affine
    a, b, c, d, e, f = affine
    return a, b, c - 0.5 * a - 0.5 * b, d, e, f - 0.5 * d - 0.5 * e


def _doubles(ifd: Ifd, segments: Segments, tag: int) -> tuple[float, ...]:
    if tag not in ifd.entries:
        return ()
    return tuple(float(value) for value in ifd.numbers(tag, segments))
