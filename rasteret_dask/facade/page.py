"""A collection as a page: where its items lie, when, how cloudy; inline SVG, nothing from the network.

Pure: tables go in, text comes out.
"""

from __future__ import annotations

import datetime as dt
import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import shapely

from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import schema
from rasteret_dask.model import BandInfo

# Items that are drawn: more make a page that no browser likes.
MAX_ITEMS: Final = 2000
COLUMNS: Final = (schema.GEOMETRY, schema.DATETIME, schema.CLOUD_COVER)
_MAP = (360.0, 260.0)
_TIMELINE = (360.0, 150.0)
# Room for labels: left, top, right, bottom.
_PADS = (42.0, 10.0, 30.0, 22.0)
_LABEL = 40.0
"""Pixels that a label of a meridian takes."""
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 90)


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    items: pa.Table,
    bands: Sequence[BandInfo] = (),
    *,
    total: int | None = None,
) -> str:
    """A collection as HTML.

    Parameters
    ----------
    title : str
    facts : sequence of (name, value)
    items : pyarrow.Table
        At most `MAX_ITEMS` rows are drawn, of the columns of `COLUMNS` that it has.
    bands : sequence of BandInfo
    total : int, optional
        Items in all, when `items` are only some.

    Returns
    -------
    str
        A ``<div>``. Everything in it that comes from outside is escaped.
    """
    drawn = items.slice(0, MAX_ITEMS)
    note = ""
    if total is not None and total > drawn.num_rows:
        note = f"<p><small>drawn: the first {drawn.num_rows:,} of {total:,} items</small></p>"
    pictures = "".join(
        f"<div>{svg}</div>" for svg in (footprints_svg(drawn), timeline_svg(drawn)) if svg
    )
    return (
        "<div class='rasteret-collection'>"
        f"<b>Collection {html.escape(title)}</b>{_table(facts)}"
        f"<div style='display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start'>{pictures}</div>{note}"
        f"{_bands(bands)}</div>"
    )


# --- map -----------------------------------------------------------------------------------------
def footprints_svg(items: pa.Table) -> str:
    """A map of footprints in longitude and latitude; empty text when there are none.

    Footprints that are drawn several times are darker.
    """
    if schema.GEOMETRY not in items.column_names:
        return ""
    found = Counter(wkb for wkb in items.column(schema.GEOMETRY).to_pylist() if wkb is not None)
    if not found:
        return ""
    most = max(found.values())
    # Thousands that overlap would be one dark field.
    thin = min(1.0, 8 / math.sqrt(len(found)))
    return _map(
        "footprints",
        shapely.from_wkb(list(found)),
        ["#2a7f62"] * len(found),
        [(0.12 + 0.5 * count / most) * thin for count in found.values()],
        [counted(count, "item") for count in found.values()],
    )


def areas_svg(shapes: Any, fills: Sequence[str], titles: Sequence[str]) -> str:
    """A map of areas, each with a colour and a title; empty text when there are none.

    Parameters
    ----------
    shapes : array of shapely geometry
        Polygons in longitude and latitude.
    fills : sequence of str
        Colours, as ``#2a7f62``.
    titles : sequence of str
    """
    if not len(shapes):
        return ""
    return _map("areas", np.asarray(shapes, dtype=object), fills, [0.6] * len(fills), titles)


def counted(count: int, word: str) -> str:
    """``1 item``, ``2 items``."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _map(
    label: str,
    shapes: Any,
    fills: Sequence[str],
    opacities: Sequence[float],
    titles: Sequence[str],
) -> str:
    shapes = _continuous(shapes)
    frame = _Frame(*shapely.total_bounds(shapes))
    drawn = "".join(
        f"<path d='{frame.path(shape)}' fill-rule='evenodd' fill='{fill}' "
        f"fill-opacity='{opacity:.2f}' stroke='{fill}' stroke-width='0.7' "
        f"stroke-opacity='{min(1.0, opacity + 0.3):.2f}'><title>{html.escape(title)}</title></path>"
        for shape, fill, opacity, title in zip(shapes, fills, opacities, titles, strict=True)
    )
    return _svg(frame.size, label, frame.graticule() + drawn)


def _continuous(shapes: Any) -> Any:
    """Longitudes without a leap: beyond 180 degrees where that makes the whole narrower."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    west = (
        shapely.bounds(parts)[:, 2] <= 0
    )  # what crosses 0 degrees, as the whole world does, stays
    parts[west] = shapely.transform(parts[west], lambda xy: np.add(xy, (360.0, 0.0)))
    moved = np.array([shapely.Polygon()] * len(shapes), dtype=object)
    shapely.geometrycollections(parts, indices=index, out=moved)
    (w0, _, e0, _), (w1, _, e1, _) = shapely.total_bounds(shapes), shapely.total_bounds(moved)
    return moved if e1 - w1 < e0 - w0 else shapes


class _Frame:
    """From degrees to the picture: as wide as it is on the ground at its middle latitude.

    The picture is as large as what is in it: `size`, of at most `_MAP`.
    """

    def __init__(self, west: float, south: float, east: float, north: float) -> None:
        margin = max((east - west), (north - south), 1e-3) * 0.06
        self.west, self.east = west - margin, east + margin
        self.south, self.north = max(-90.0, south - margin), min(90.0, north + margin)
        squeeze = max(0.05, math.cos(math.radians((self.south + self.north) / 2)))
        left, top, right, bottom = _PADS
        across, down = (self.east - self.west) * squeeze, self.north - self.south
        scale = min((_MAP[0] - left - right) / across, (_MAP[1] - top - bottom) / down)
        self._x, self._y = scale * squeeze, scale
        self._left, self._top = left, top
        self.size = (left + across * scale + right, top + down * scale + bottom)

    def x(self, longitude: float) -> float:
        """Pixels from the left."""
        return self._left + (longitude - self.west) * self._x

    def y(self, latitude: float) -> float:
        """Pixels from the top."""
        return self._top + (self.north - latitude) * self._y

    def path(self, shape: Any) -> str:
        """A polygon or several as an SVG path; what is finer than the screen is left out."""
        rings = []
        for part in shapely.get_parts(shapely.simplify(shape, 0.3 / self._y)):
            if shapely.get_type_id(part) != 3:
                continue
            for ring in (part.exterior, *part.interiors):
                points = (f"{self.x(x):.1f},{self.y(y):.1f}" for x, y, *_ in ring.coords)
                rings.append(f"M{'L'.join(points)}Z")
        return "".join(rings)

    def graticule(self) -> str:
        """Lines of round degrees with their labels."""
        span = max(self.east - self.west, self.north - self.south)
        step = next((s for s in _STEPS if span / s <= 5), _STEPS[-1])
        lines = []
        every = max(1, math.ceil(_LABEL / (step * self._x)))
        for number, longitude in enumerate(_round_between(self.west, self.east, step)):
            x = self.x(longitude)
            lines.append(_line(x, self.y(self.north), x, self.y(self.south)))
            if number % every == 0:
                label = _degrees((longitude + 180) % 360 - 180, "EW", step)
                lines.append(_text(x, self.y(self.south) + 12, label))
        for latitude in _round_between(self.south, self.north, step):
            y = self.y(latitude)
            lines.append(_line(self.x(self.west), y, self.x(self.east), y))
            lines.append(_text(self.x(self.west) - 3, y + 3, _degrees(latitude, "NS", step), "end"))
        return "".join(lines)


def _round_between(low: float, high: float, step: float) -> Iterator[float]:
    first = math.ceil(low / step)
    for k in range(first, math.floor(high / step) + 1):
        yield k * step


def _degrees(value: float, letters: str, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step))) if step < 1 else 0
    return f"{abs(value):.{digits}f}°{letters[0] if value >= 0 else letters[1]}"


# --- timeline ------------------------------------------------------------------------------------
def timeline_svg(items: pa.Table) -> str:
    """Items by date and cloud cover (of those that say); empty text when none has a date."""
    if schema.DATETIME not in items.column_names:
        return ""
    times = items.column(schema.DATETIME).to_pylist()
    clouds: list[Any] = [None] * len(times)
    if schema.CLOUD_COVER in items.column_names:
        clouds = items.column(schema.CLOUD_COVER).to_pylist()
    # Arrow's naive times are UTC; Python takes naive ones for local.
    points = [
        (t.replace(tzinfo=dt.UTC).timestamp(), c)
        for t, c in zip(times, clouds, strict=True)
        if t is not None
    ]
    if not points:
        return ""
    width, height = _TIMELINE
    left, top, right, bottom = _PADS
    first, last = min(t for t, _ in points), max(t for t, _ in points)
    span = max(last - first, 1.0)

    def x(time: float) -> float:
        middle = 0.5 if last == first else (time - first) / span
        return left + middle * (width - left - right)

    def y(cloud: float) -> float:
        return height - bottom - cloud / 100 * (height - top - bottom)

    levels = (0, 50, 100) if any(cloud is not None for _, cloud in points) else (50,)
    parts = [_line(left, y(level), width - right, y(level)) for level in levels]
    if len(levels) > 1:
        parts += [_text(left - 4, y(level) + 3, f"{level} %", "end") for level in levels]
        parts.append(_text(left + 3, y(100) + 9, "cloud cover", "start"))
    for time, cloud in sorted(points, key=lambda point: point[0]):
        known = cloud is not None
        fill = _shade(cloud) if known else "none"
        said = f"{_date(time)}, {f'{cloud:.0f} % clouds' if known else 'clouds unknown'}"
        parts.append(
            f"<circle cx='{x(time):.1f}' cy='{y(cloud if known else 50):.1f}' r='3' fill='{fill}' "
            f"stroke='#27506b' stroke-width='0.6'><title>{said}</title></circle>"
        )
    ends = [first] if last == first else [first, last]
    parts += [_text(x(time), height - bottom + 14, _date(time)) for time in ends]
    return _svg(_TIMELINE, "items by date and cloud cover", "".join(parts))


def _date(time: float) -> str:
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%d")


def _shade(cloud: float) -> str:
    """Blue for a clear sky, grey for clouds."""
    part = min(max(cloud / 100, 0.0), 1.0)
    clear, cloudy = (64, 145, 196), (205, 205, 205)
    mixed = (round(a + (b - a) * part) for a, b in zip(clear, cloudy, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


# --- pieces --------------------------------------------------------------------------------------
def _svg(size: tuple[float, float], label: str, body: str) -> str:
    width, height = size
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='{label}' "
        f"style='max-width:100%;height:auto' "
        f"font-family='sans-serif' font-size='10' fill='currentColor'>{body}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='currentColor' stroke-opacity='0.2' stroke-width='0.6'/>"


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    where = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {where} fill-opacity='0.7'>{html.escape(text)}</text>"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(key)}</th>"
        f"<td style='text-align:left;overflow-wrap:anywhere'>{html.escape(value)}</td></tr>"
        for key, value in rows
    )
    return f"<table>{cells}</table>"


def _bands(bands: Sequence[BandInfo]) -> str:
    if not bands:
        return ""
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{name}</th>" for name in ("band", "common name", "asset", "kind"))
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td {left}>{html.escape(text)}</td>"
            for text in (
                band.name,
                band.common_name or "",
                band.asset if band.index == 0 else f"{band.asset} [{band.index}]",
                "classes" if band.categorical else "values",
            )
        )
        + "</tr>"
        for band in bands
    )
    return f"<details><summary>{counted(len(bands), 'band')}</summary><table><tr>{head}</tr>{rows}</table></details>"


# --- maps by other libraries ---------------------------------------------------------------------
def plot(frame: Any, *, column: str | None = schema.CLOUD_COVER, **options: Any) -> Any:
    """Footprints with matplotlib.

    Parameters
    ----------
    frame : GeoDataFrame
        From ``Collection.to_geopandas``.
    column : str, optional
        What colours them; one colour when it is None or nobody says it.
    **options
        Of ``GeoDataFrame.plot``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ArgumentError
        matplotlib is not installed.
    """
    coloured = column is not None and column in frame.columns and frame[column].notna().any()
    look: dict[str, Any] = {"column": column, "legend": True} if coloured else {}
    if coloured and frame[column].dtype.kind in "iuf":
        look["legend_kwds"] = {"label": column, "shrink": 0.6}
    try:
        axes = frame.plot(**{"alpha": 0.4, "edgecolor": "black", **look, **options})
    except ImportError as error:
        raise ArgumentError(
            f"plot needs what is not installed: {error}", hint='pip install "rasteret-dask[plot]"'
        ) from None
    axes.set_xlabel("longitude")
    axes.set_ylabel("latitude")
    return axes


def explore(frame: Any, *, column: str | None = schema.CLOUD_COVER, **options: Any) -> Any:
    """Footprints on a map that moves; its background comes from the network.

    Parameters
    ----------
    frame, column
        As in `plot`.
    **options
        Of ``GeoDataFrame.explore``.

    Returns
    -------
    folium.Map

    Raises
    ------
    ArgumentError
        folium, matplotlib or mapclassify is not installed.
    """
    coloured = column is not None and column in frame.columns and frame[column].notna().any()
    plain = frame.copy()
    for name in plain.columns:  # folium writes JSON, which knows no dates
        if name != plain.geometry.name and plain[name].dtype.kind == "M":
            plain[name] = plain[name].astype(str)
    try:
        return plain.explore(**({"column": column} if coloured else {}), **options)
    except ImportError as error:
        raise ArgumentError(
            f"explore needs what is not installed: {error}",
            hint="pip install folium matplotlib mapclassify",
        ) from None
