"""Which output grid a cube gets when the caller does not say: a vote among the sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyproj import CRS

from rasteret_dask.errors import ArgumentError, EmptySelectionError, GridError
from rasteret_dask.grid.aoi import Areas
from rasteret_dask.grid.geobox import (
    CRS84,
    Bounds,
    Grid,
    aligned,
    crs_text,
    lonlat_box,
    period,
    phase,
    snap,
    transform_bounds,
    turns,
)

UTM = "utm"
"""Asks for the UTM zone of the middle of the area."""

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """A grid that one or more sources share.

    Parameters
    ----------
    crs : str
    affine : tuple of float
    width, height : int
    items : int
        How many sources have it.
    first_id : str
        The lowest of their ids, which decides ties.
    """

    crs: str
    affine: Affine6
    width: int
    height: int
    items: int
    first_id: str

    @property
    def north_up(self) -> bool:
        """Axis-aligned with columns running east (rows may run either way)."""
        a, b, _, d, e, _ = self.affine
        return b == 0.0 and d == 0.0 and a > 0.0 and e != 0.0

    @property
    def bounds(self) -> Bounds:
        """Outer edges, of the corners' hull when rotated."""
        a, b, c, d, e, f = self.affine
        xs = [c + a * i * self.width + b * j * self.height for i in (0, 1) for j in (0, 1)]
        ys = [f + d * i * self.width + e * j * self.height for i in (0, 1) for j in (0, 1)]
        return (min(xs), min(ys), max(xs), max(ys))

    @property
    def resolution(self) -> tuple[float, float]:
        """Sizes of a pixel along its own axes, positive."""
        a, b, _, d, e, _ = self.affine
        return math.hypot(a, d), math.hypot(b, e)


@dataclass(frozen=True, slots=True)
class GridRequest:
    """What the caller said of the grid.

    Parameters
    ----------
    crs : str, optional
        ``EPSG:n``, WKT2, or :data:`UTM`.
    resolution : tuple of float, optional
        x and y, positive, in units of the output CRS.
    bounds : tuple of float, optional
        What the grid must hold.
    bounds_crs : str
        CRS of ``bounds``.
    anchor : tuple of float, optional
        Any pixel corner of the grid.
    areas : Areas, optional
        What ``bounds`` are the bounds of, when it is no box.
    """

    crs: str | None = None
    resolution: tuple[float, float] | None = None
    bounds: Bounds | None = None
    bounds_crs: str = CRS84
    anchor: tuple[float, float] | None = None
    areas: Areas | None = None


def choose_grid(sources: Sequence[SourceGrid], request: GridRequest) -> Grid:
    """Return the output grid.

    Parameters
    ----------
    sources : sequence of SourceGrid
        Of the finest requested band that each item has.
    request : GridRequest

    Raises
    ------
    GridError
        If sources are rotated and neither CRS nor resolution is given, or no resolution follows.
    EmptySelectionError
        If the bounds meet no source.
    """
    seen = [(s, _pixels(s, request)) for s in sources]
    seen = [(s, n) for s, n in seen if n > 0]
    if not seen:
        raise EmptySelectionError(
            f"the area {request.bounds} meets none of the {sum(s.items for s in sources)} sources"
        )
    turned = [s for s, _ in seen if not s.north_up]
    if turned and request.crs is None and request.resolution is None:
        raise GridError(
            "the source's grid is rotated, and a cube is axis-aligned",
            item=turned[0].first_id,
            hint="give crs= or resolution= to have it warped, or read it in pixel space with open_tiff",
        )
    crs = request.crs or _vote([(s.crs, n) for s, n in seen])
    if crs == UTM:
        crs = _utm([s for s, _ in seen], request)
    own = [(s, n) for s, n in seen if s.crs == crs]
    xres, yres = request.resolution or _resolution(crs, own, [s for s, _ in seen])
    _plausible(crs, xres, yres, request)
    anchor = request.anchor or _anchor(own, xres, yres)
    bounds = _extent([s for s, _ in seen], crs, request)
    return snap(bounds, crs, xres, yres, anchor)


def _pixels(source: SourceGrid, request: GridRequest) -> float:
    """Return how many pixels of all sources on this grid fall into the bounds, roughly."""
    xres, yres = source.resolution
    left, bottom, right, top = source.bounds
    width = right - left
    if request.bounds is not None:
        try:
            box = transform_bounds(request.bounds, request.bounds_crs, source.crs, closely=False)
        except GridError:
            # A box over the antimeridian is no box in a CRS that is torn there.
            return _all_or_none(source, request.bounds, request.bounds_crs)
        bottom, top = max(bottom, box[1]), min(top, box[3])
        shifts = turns(left, right, box[0], box[2], source.crs)
        parts = [min(right + t, box[2]) - max(left + t, box[0]) for t in shifts]
        if not parts or max(parts) < 0.0:
            return 0.0
        width = sum(parts)
    if top < bottom:
        return 0.0
    return max(1.0, width / xres) * max(1.0, (top - bottom) / yres) * source.items


def _all_or_none(source: SourceGrid, bounds: Bounds, crs: str) -> float:
    """Return a source's pixels if bounds meet it in lon/lat."""
    box = lonlat_box(bounds, crs)
    own = lonlat_box(source.bounds, source.crs)
    if own[1] > box[3] or own[3] < box[1] or not turns(own[0], own[2], box[0], box[2], CRS84):
        return 0.0
    return float(source.width) * source.height * source.items


def _utm(sources: Sequence[SourceGrid], request: GridRequest) -> str:
    """Return the UTM zone of the middle of the area, WGS 84, by the plain six-degree rule."""
    if request.bounds is not None:
        west, south, east, north = transform_bounds(request.bounds, request.bounds_crs, CRS84)
    else:
        west, south, east, north = _extent(sources, CRS84, request)
    longitude = ((west + east) / 2.0 + 180.0) % 360.0 - 180.0
    zone = min(60, int((longitude + 180.0) // 6.0) + 1)
    return f"EPSG:{(32600 if (south + north) / 2.0 >= 0 else 32700) + zone}"


def _vote(votes: Sequence[tuple[str, float]]) -> str:
    totals: dict[str, float] = {}
    for crs, n in votes:
        totals[crs] = totals.get(crs, 0.0) + n
    most = max(totals.values())
    # Ties go to the lower code; codes are compared as numbers.
    return min((c for c, n in totals.items() if n == most), key=_code)


def _code(crs: str) -> tuple[int, str]:
    number = crs.removeprefix("EPSG:")
    return (int(number), crs) if number.isdigit() else (10**9, crs)


def _resolution(
    crs: str, own: Sequence[tuple[SourceGrid, float]], everyone: Sequence[SourceGrid]
) -> tuple[float, float]:
    if own:
        return min((s.resolution for s, _ in own), key=lambda r: r[0] * r[1])
    # Nobody has this CRS: take the finest size over, if both count in the same unit.
    finest = min(everyone, key=lambda s: s.resolution[0] * s.resolution[1])
    if _unit(crs) != _unit(finest.crs):
        raise GridError(
            f"no resolution follows for {crs}: the sources count in another unit",
            hint="give resolution=",
        )
    return finest.resolution


def _unit(crs: str) -> str:
    return str(CRS.from_user_input(crs).axis_info[0].unit_name)


def _plausible(crs: str, xres: float, yres: float, request: GridRequest) -> None:
    if not (xres > 0 and yres > 0 and math.isfinite(xres) and math.isfinite(yres)):
        raise ArgumentError(f"a resolution of {xres} × {yres} is no size of a pixel")
    if request.resolution and CRS.from_user_input(crs).is_geographic and max(xres, yres) > 1:
        raise GridError(
            f"a resolution of {max(xres, yres)} in {crs} is in degrees, which is hardly meant",
            hint="give resolution= in degrees, or crs= a projected CRS",
        )


def _anchor(
    own: Sequence[tuple[SourceGrid, float]], xres: float, yres: float
) -> tuple[float, float]:
    """Return a corner that the grid goes through.

    The phase of the grid with most pixels among sources of this very resolution (ties: lowest id), else multiples of the resolution.
    """
    votes: dict[tuple[float, float], tuple[float, str, SourceGrid]] = {}
    for s, n in own:
        if not s.north_up or not _same_size(s, xres, yres):
            continue
        key = (phase(s.affine[2], xres), phase(s.affine[5], yres))
        total, first, kept = votes.get(key, (0.0, s.first_id, s))
        votes[key] = (total + n, min(first, s.first_id), kept)
    if not votes:
        return (0.0, 0.0)
    best = min(votes.values(), key=lambda v: (-v[0], v[1]))[2]
    return best.affine[2], best.affine[5]


def _same_size(source: SourceGrid, xres: float, yres: float) -> bool:
    sx, sy = source.resolution
    return (
        aligned(sx, xres) and round(sx / xres) == 1 and aligned(sy, yres) and round(sy / yres) == 1
    )


def _extent(sources: Sequence[SourceGrid], crs: str, request: GridRequest) -> Bounds:
    if request.areas is not None:
        # The hull of the moved shape, which is smaller than the moved hull.
        return request.areas.to_crs(crs).bounds
    if request.bounds is not None:
        return transform_bounds(request.bounds, request.bounds_crs, crs)
    try:
        boxes = [transform_bounds(s.bounds, s.crs, crs) for s in sources]
    except GridError as error:
        hint = error.hint or "say which part of it: bbox=, geometries= or geobox="
        raise GridError(error.message, hint=hint) from None
    turn = period(crs)
    if turn is not None and max(b[2] for b in boxes) - min(b[0] for b in boxes) > turn / 2.0:
        # Perhaps they are neighbours across the antimeridian.
        turned = [(b[0] + turn, b[1], b[2] + turn, b[3]) if b[0] < 0 else b for b in boxes]
        if max(b[2] for b in turned) - min(b[0] for b in turned) < turn / 2.0:
            boxes = turned
    return (
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    )


def parse_resolution(resolution: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """Understand one number for both axes, or ``(x, y)``; signs are dropped, as y's often comes negative.

    Raises
    ------
    ArgumentError
        It is neither.
    """
    if resolution is None:
        return None
    pair = resolution if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    try:
        x, y = (abs(float(v)) for v in pair)
    except (TypeError, ValueError):
        raise ArgumentError(f"resolution must be a number or (x, y), not {resolution!r}") from None
    return x, y


def parse_crs(crs: object) -> str | None:
    """Understand anything that pyproj takes, and ``"utm"``; ``"native"`` and None leave the choice to the sources.

    Raises
    ------
    GridError
        Its coordinates are no map's, as those of a geocentric CRS.
    """
    if crs is None or crs == "native":
        return None
    if crs == UTM:
        return UTM
    text = crs_text(crs)
    known = CRS.from_user_input(text)
    if not (known.is_projected or known.is_geographic):
        raise GridError(
            f"{known.name} is no map: its coordinates are not those of a plane, nor longitude and latitude",
            hint="give a projected or a geographic CRS",
        )
    return text
