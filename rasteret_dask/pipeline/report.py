"""A run as one page: what it was, where, what it cost against what was planned, what it looks like."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas

from rasteret_dask import collection_html
from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.errors import PipelineError, RasteretError
from rasteret_dask.pipeline import record
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors, explain, open_collection, open_vectors
from rasteret_dask.write.target import resolve

# Pictures larger than this are named, not shown.
_MAX_PICTURE = 8 * 2**20
_COUNTERS = (
    "items",
    "headers",
    "requests",
    "bytes",
    "retries",
    "tasks",
    "seconds",
    "regions",
    "computed",
)
_STYLE = (
    "body{font-family:sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.4}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{text-align:left;padding:.15rem .8rem .15rem 0;"
    "vertical-align:top}td.n{text-align:right}pre{background:#f3f3f3;padding:.8rem;overflow:auto}"
    "img{max-width:100%;border:1px solid #ccc}.failed{color:#a50026}.done{color:#006837}"
)


def page(url: str) -> str:
    """The page of the run whose record lies at `url`.

    Nothing of the rasters is read. The collection is opened for its map and for the plan; where it
    is gone, the page says so.

    Parameters
    ----------
    url : str

    Returns
    -------
    str
        A whole HTML document that needs nothing else.

    Raises
    ------
    PipelineError
        There is no record.
    """
    found = record.load(url)
    if found is None:
        raise PipelineError(f"no record of a run at {url}")
    said = found.document
    planned, collection, missing = _planned(said)
    name = str(said["pipeline"].get("name", "pipeline"))
    parts = [
        f"<h1>{_e(name)}</h1>",
        f"<p class='{_e(said['state'])}'><b>{_e(said['state'])}</b> {_e(said.get('error', ''))}</p>",
        _rows([(key, said.get(key, "")) for key in ("started", "ended", "digest")]),
        "<h2>Plan and run</h2>",
        _against(planned, said.get("counters", {})),
        f"<p>{_e(missing)}</p>" if missing else "",
        "<h2>Outputs</h2>",
        _rows([(o["kind"], _output(o)) for o in said["outputs"]]),
        *(_picture(o["url"]) for o in said["outputs"] if o["kind"] == "png"),
        "<h2>Collection</h2>",
        _collection(said["collection"], collection),
        "<h2>Pipeline</h2>",
        f"<pre>{_e(json.dumps(said['pipeline'], indent=1))}</pre>",
        "<h2>Versions</h2>",
        _rows(sorted(said["versions"].items())),
    ]
    head = f"<meta charset='utf-8'><title>{_e(name)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"


def _planned(said: Mapping[str, Any]) -> tuple[Mapping[str, int], Collection | None, str]:
    """Requests, bytes and tasks by plan, the collection, and why they are missing."""
    place = said["collection"].get("url")
    if place is None:
        return {}, None, "The collection lies in no workspace, so there is no plan to compare with."
    given = dict(said["pipeline"])
    given["collection"] = {"load": place, "subset": given["collection"].get("subset")}
    try:
        pipeline = validate(Pipeline, given)
        vectors = _vectors(pipeline, said.get("area"))
        collection, _ = open_collection(pipeline.collection, vectors)
        if record.snapshot_of(collection) != said["collection"]["snapshot"]:
            return {}, collection, "The collection has changed since: the plan would be another."
        cost = explain(collection, pipeline, vectors)
    except RasteretError as error:
        return {}, None, f"There is no plan to compare with: {error}"
    return {"requests": cost.requests, "bytes": cost.bytes}, collection, ""


def _vectors(pipeline: Pipeline, area: Mapping[str, Any] | None) -> Vectors:
    if area is None:
        return open_vectors(pipeline)
    shapes = geopandas.GeoSeries.from_wkt(area["wkt"], crs=area["crs"])
    return open_vectors(pipeline, geopandas.GeoDataFrame(geometry=shapes))


# --- pieces --------------------------------------------------------------------------------------
def _e(value: Any) -> str:
    return html.escape(str(value))


def _rows(rows: Sequence[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><th>{_e(key)}</th><td>{_e(value)}</td></tr>" for key, value in rows)
    return f"<table>{cells}</table>"


def _against(planned: Mapping[str, int], counters: Mapping[str, Any]) -> str:
    """Headers are read by the build, once; the plan is of pixels alone."""
    if not counters:
        return "<p>It has not come to its end: nothing was counted.</p>"
    rows = []
    for key in (key for key in _COUNTERS if counters.get(key) is not None):
        value = counters[key]
        plan = f"{planned[key]:,}" if key in planned else ""
        happened = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        rows.append(
            f"<tr><th>{_e(key)}</th><td class='n'>{plan}</td><td class='n'>{happened}</td></tr>"
        )
    head = "<tr><th></th><th>planned</th><th>happened</th></tr>"
    note = "<p><small>What happened includes the headers that a build reads, once.</small></p>"
    return f"<table>{head}{''.join(rows)}</table>{note if planned else ''}"


def _output(output: Mapping[str, Any]) -> str:
    more = [f"{v:,} {k}" for k, v in output.items() if k not in ("kind", "url") and v is not None]
    return ", ".join([output["url"], *more])


def _picture(url: str) -> str:
    fs, path = resolve(url)
    if not fs.exists(path) or fs.size(path) > _MAX_PICTURE:
        return f"<p>{_e(url)} is not shown: it is gone, or too large.</p>"
    data = base64.b64encode(fs.cat_file(path)).decode()
    return f"<p><img alt='{_e(url)}' src='data:image/png;base64,{data}'></p>"


def _collection(said: Mapping[str, Any], collection: Collection | None) -> str:
    facts = [("items", f"{said['items']:,}"), ("place", str(said.get("url") or ""))]
    if collection is None:
        return _rows(facts)
    names = [name for name in collection_html.COLUMNS if name in collection.schema.names]
    items = collection.to_table(names)
    bands = [collection.band_info(name) for name in collection.bands]
    return collection_html.page(said["name"], facts, items, bands, total=len(collection))
