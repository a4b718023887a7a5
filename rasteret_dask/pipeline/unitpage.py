"""All units of a `foreach` as one page: how each went, what it cost, where it lies, what it looks like.

What is said comes from the units' own records, so it holds for job arrays too, whose tasks know
nothing of each other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas
import imagecodecs
import pandas as pd
import yaml

from rasteret_dask.errors import RasteretError
from rasteret_dask.facade.page import areas_svg, counted
from rasteret_dask.pipeline import foreach, report
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.markup import document, escape, figure
from rasteret_dask.pipeline.run import record_url
from rasteret_dask.runs import record as runs
from rasteret_dask.runs.alive import BROKEN, standing
from rasteret_dask.write.target import put_bytes, resolve

UNBEGUN = "unbegun"
"""The state of a unit without a record."""
_COLOURS = {
    "done": "#2a7f62",
    "empty": "#9a9a9a",
    "failed": "#a50026",
    "interrupted": "#d98200",
    BROKEN: "#d98200",
    "running": "#4091c4",
    UNBEGUN: "#cfcfcf",
}
_MAX_ROWS = 5000
_MAX_LOOKS = 60
_LOOK = 144
_MAX_PICTURE = 8 * 2**20
_COSTS = ("items", "requests", "bytes", "seconds")


@dataclass(frozen=True, slots=True)
class _Told:
    """A unit and what its record says."""

    unit: foreach.Unit
    url: str
    said: Mapping[str, Any]

    @property
    def state(self) -> str:
        return standing(self.said)[0] if self.said else UNBEGUN

    @property
    def pictures(self) -> list[str]:
        return [one["url"] for one in self.said.get("outputs", ()) if one["kind"] == "png"]


@dataclass(frozen=True, slots=True)
class UnitPage:
    """The page of all units.

    Parameters
    ----------
    html : str
        A whole document that needs nothing else.
    states : mapping of str to int
        How many units there are of each.
    records : tuple of str
        Those that are there.
    """

    html: str
    states: Mapping[str, int]
    records: tuple[str, ...]


def page_of(record: str) -> str:
    """Where the page of one run lies: beside its record."""
    return f"{record.removesuffix('.json')}.html"


def page(
    pipeline: Pipeline, target: str, *, each: bool = False, allow_custom: bool = False
) -> UnitPage:
    """The page of all units of a pipeline with `foreach`, those of other shards too.

    Parameters
    ----------
    pipeline : Pipeline
    target : str
        Where the page will lie: what it links to is named from there.
    each : bool
        Write the page of every unit beside its record, too.
    allow_custom : bool
        Whether steps by import path are accepted; none is run.

    Raises
    ------
    ConfigError
        The table or a template makes no sense.
    """
    whole = foreach.every_shard(pipeline)
    told = [_told(unit) for unit in foreach.units(whole, allow_custom=allow_custom)]
    records = tuple(one.url for one in told if one.said)
    for url in records if each else ():
        put_bytes(report.page(url).encode(), page_of(url))
    found = Counter(one.state for one in told)
    states = {state: found[state] for state in (*_COLOURS, *found) if found[state]}
    parts = [
        f"<h1>{escape(pipeline.name)}</h1>",
        f"<p>{escape(pipeline.description)}</p>" if pipeline.description else "",
        f"<p>{counted(len(told), 'unit')}: {_counts(states)}</p>",
        _map(told),
        "<h2>Units</h2>",
        _table(told, target),
        "<h2>Pictures</h2>" if any(one.pictures for one in told) else "",
        *_looks(told),
        "<h2>Pipeline</h2>",
        f"<pre>{escape(_text(whole))}</pre>",
    ]
    return UnitPage(document(pipeline.name, parts), states, records)


def _told(unit: foreach.Unit) -> _Told:
    url = record_url(unit.pipeline)
    try:
        found = runs.load(url)
    except RasteretError as error:
        return _Told(unit, url, {"state": "failed", "error": str(error)})
    return _Told(unit, url, {} if found is None else found.document)


def _text(pipeline: Pipeline) -> str:
    said = runs.unsigned(pipeline.model_dump(mode="json", exclude_none=True))
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=None)


# --- pieces --------------------------------------------------------------------------------------
def _counts(states: Mapping[str, int]) -> str:
    said = (f"<b class='{escape(s)}'>{n:,} {escape(s)}</b>" for s, n in states.items())
    return ", ".join(said)


def _map(told: Sequence[_Told]) -> str:
    """Where the units lie, in the colour of their state."""
    placed = [one for one in told if one.unit.area is not None]
    if not placed:
        return ""
    areas = [one.unit.area.geometry.to_crs("OGC:CRS84") for one in placed]  # type: ignore[union-attr]
    shapes = geopandas.GeoSeries(pd.concat(areas, ignore_index=True)).to_numpy()
    drawn = [k for k, shape in enumerate(shapes) if shape is not None and not shape.is_empty]
    fills = [_COLOURS.get(placed[k].state, "#555555") for k in drawn]
    titles = [f"{placed[k].unit.id}: {placed[k].state}" for k in drawn]
    return areas_svg(shapes[drawn], fills, titles)


def _table(told: Sequence[_Told], target: str) -> str:
    # What somebody has to look after comes first.
    order = sorted(told, key=lambda one: one.state in ("done", "empty"))
    lines = "".join(_line(one, target) for one in order[:_MAX_ROWS])
    head = "".join(f"<th>{name}</th>" for name in ("unit", "state"))
    head += "".join(f"<th class='n'>{name}</th>" for name in ("items", "requests", "MB", "s"))
    head += "<th class='n'>tiles missing</th><th>outputs</th><th></th>"
    more = len(order) - _MAX_ROWS
    note = f"<p><small>and {counted(more, 'unit')} more</small></p>" if more > 0 else ""
    return f"<div class='wide'><table><tr>{head}</tr>{lines}{_sums(told)}</table></div>{note}"


def _line(one: _Told, target: str) -> str:
    counters = one.said.get("counters", {})
    state = escape(one.state)
    page = page_of(one.url)
    name = _link(page, one.unit.id, target) if _there(page) else escape(one.unit.id)
    outputs = ", ".join(_link(o["url"], o["kind"], target) for o in one.said.get("outputs", ()))
    cells = "".join(
        f"<td class='n'>{text}</td>" for text in (*_costs(counters), _missing(one.said))
    )
    return (
        f"<tr><td>{name}</td><td class='{state}'>{state}</td>{cells}<td>{outputs}</td>"
        f"<td class='said'>{escape(one.said.get('error') or '')}</td></tr>"
    )


def _costs(counters: Mapping[str, Any]) -> tuple[str, ...]:
    items, requests, size, seconds = (counters.get(key) for key in _COSTS)
    return (
        "" if items is None else f"{items:,}",
        "" if requests is None else f"{requests:,}",
        "" if size is None else f"{size / 1e6:,.1f}",
        "" if seconds is None else f"{seconds:,.1f}",
    )


def _missing(said: Mapping[str, Any]) -> str:
    return f"<b class='failed'>{said['failures']:,}</b>" if said.get("failures") else ""


def _sums(told: Sequence[_Told]) -> str:
    found = [one.said["counters"] for one in told if "counters" in one.said]
    sums = _costs({key: sum(one.get(key, 0) for one in found) for key in _COSTS})
    missing = sum(one.said.get("failures", 0) for one in told)
    cells = "".join(f"<td class='n'>{text}</td>" for text in (*sums, f"{missing:,}"))
    return f"<tr><th>all</th><td></td>{cells}<td></td><td></td></tr>"


def _link(url: str, text: str, target: str) -> str:
    """A link that a browser can follow from where the page lies, else the place by name."""
    if url.startswith(("http://", "https://")):
        href = url
    elif "://" in url or "://" in target:
        return f"<span title='{escape(url)}'>{escape(text)}</span>"
    else:
        folder = Path(target).absolute().parent
        href = quote(os.path.relpath(Path(url).absolute(), folder))
    return f"<a href='{escape(href)}'>{escape(text)}</a>"


def _there(url: str) -> bool:
    fs, path = resolve(url)
    return bool(fs.exists(path))


def _looks(told: Sequence[_Told]) -> Iterator[str]:
    """The first picture of each of the first units that have one, small."""
    pictured = [one for one in told if one.pictures]
    shown = [(one.unit.id, png) for one in pictured[:_MAX_LOOKS] if (png := _small(one))]
    if shown:
        yield f"<div class='looks'>{''.join(figure(name, png) for name, png in shown)}</div>"
    if len(pictured) > len(shown):
        yield f"<p><small>{len(pictured) - len(shown):,} more are not shown</small></p>"


def _small(one: _Told) -> bytes | None:
    fs, path = resolve(one.pictures[0])
    if not fs.exists(path) or fs.size(path) > _MAX_PICTURE:
        return None
    pixels = imagecodecs.png_decode(fs.cat_file(path))
    thin = max(1, -(-max(pixels.shape[:2]) // (2 * _LOOK)))
    return bytes(imagecodecs.png_encode(pixels[::thin, ::thin].copy()))
