"""A run as one page: what it was, where, what it cost against what was planned, what it looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
import xarray as xr
import yaml
from fsspec.implementations.local import LocalFileSystem

from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.errors import PipelineError, RasteretError
from rasteret_dask.facade import page as pages
from rasteret_dask.pipeline import record
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.markup import document, figure, rows
from rasteret_dask.pipeline.markup import escape as _e
from rasteret_dask.pipeline.reading import explain, open_collection
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.runs import record as runs
from rasteret_dask.runs.alive import BROKEN, standing
from rasteret_dask.write.preview import write_png
from rasteret_dask.write.target import resolve, scratch_file

# Pictures larger than this are named, not shown.
_MAX_PICTURE = 8 * 2**20
_QUICK_LOOK = 800
_MAX_ROWS = 50
_LEDGER = ["band", "item", "tile_row", "tile_col", "error", "message"]
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
    found = runs.load(url)
    if found is None:
        raise PipelineError(f"no record of a run at {url}")
    said = found.document
    if "pipeline" not in said:
        raise PipelineError(f"{url} is the record of a cube; a page is made of a pipeline's run")
    name = str(said["pipeline"].get("name", "pipeline"))
    state, note = standing(said)
    parts = [
        f"<h1>{_e(name)}</h1>",
        f"<p class='said {'interrupted' if state == BROKEN else _e(state)}'><b>{_e(state)}</b> {_e(note)}</p>",
        rows([(key, said[key]) for key in ("started", "ended", "digest") if key in said]),
        *(_work(found) if found.begun else ()),
        "<h2>Pipeline</h2>",
        f"<pre>{_e(yaml.safe_dump(said['pipeline'], sort_keys=False, default_flow_style=None))}</pre>",
        "<h2>Versions</h2>",
        rows(sorted(said["versions"].items())),
    ]
    return document(name, parts)


def _work(found: runs.Record) -> list[str]:
    """What was done, against what was planned."""
    said = found.document
    planned, collection, missing = _planned(found)
    return [
        "<h2>Plan and run</h2>",
        _against(planned, said.get("counters", {})),
        f"<p>{_e(missing)}</p>" if missing else "",
        "<h2>Retries and failures</h2>",
        _failed(found),
        "<h2>Outputs</h2>",
        rows([(o["kind"], _output(o)) for o in said["outputs"]]),
        *_pictures(said["outputs"]),
        "<h2>Collection</h2>",
        _collection(said["collection"], collection),
    ]


def _planned(found: runs.Record) -> tuple[Mapping[str, int], Collection | None, str]:
    """Requests and bytes by plan, the collection, and why they are missing."""
    said = found.document
    place = said["collection"].get("url")
    if place is None:
        return {}, None, "The collection lies in no workspace, so there is no plan to compare with."
    given = dict(said["pipeline"])
    given["collection"] = {"load": place, "subset": given["collection"].get("subset")}
    try:
        pipeline = validate(Pipeline, given)
        vectors = record.vectors_of(found)
        collection, _ = open_collection(pipeline.collection, vectors)
        if runs.snapshot_of(collection) != said["collection"]["snapshot"]:
            return {}, collection, "The collection has changed since: the plan would be another."
        cost = explain(collection, pipeline, vectors)
    except RasteretError as error:
        return {}, None, f"There is no plan to compare with: {error}"
    return {"requests": cost.requests, "bytes": cost.bytes}, collection, ""


# --- pieces --------------------------------------------------------------------------------------
def _against(planned: Mapping[str, int], counters: Mapping[str, Any]) -> str:
    """Headers are read by the build, once; the plan is of pixels alone."""
    if not counters:
        return "<p>It has not come to its end: nothing was counted.</p>"
    lines = []
    for key in (key for key in _COUNTERS if counters.get(key) is not None):
        value = counters[key]
        if key in ("regions", "computed") and not counters.get("regions"):
            continue  # of Zarr stores alone
        plan = f"{planned[key]:,}" if key in planned else ""
        if key == "requests" and planned and counters.get("headers"):
            plan += f" + {counters['headers']:,} headers"
        happened = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        lines.append(
            f"<tr><th>{_e(key)}</th><td class='n'>{plan}</td><td class='n'>{happened}</td></tr>"
        )
    head = "<tr><th></th><th class='n'>planned</th><th class='n'>happened</th></tr>"
    note = "<p><small>What happened includes the headers that a build reads, once.</small></p>"
    return f"<table>{head}{''.join(lines)}</table>{note if planned else ''}"


def _output(output: Mapping[str, Any]) -> str:
    more = [f"{v:,} {k}" for k, v in output.items() if k not in ("kind", "url") and v is not None]
    return ", ".join([output["url"], *more])


def _failed(found: runs.Record) -> str:
    """What was asked again, what could not be had at all, and why."""
    said = found.document
    retries = said.get("counters", {}).get("retries", 0)
    parts = [f"<p>Requests that were made again: {retries:,}.</p>"]
    ledger = found.open_holes
    if ledger is None:
        return "".join([*parts, "<p>A tile that cannot be had ends such a run.</p>"])
    mended = sum(repair.get("regions", 0) for repair in said.get("repairs", {}).values())
    if mended:
        parts.append(f"<p>Regions that a repair has computed again: {mended:,}.</p>")
    holes = read_ledger(ledger.url, ledger.run)
    if not holes.num_rows:
        return "".join([*parts, "<p>No tile is missing.</p>"])
    parts.append(
        f"<p class='failed'>Tiles that could not be had, and are nodata: {holes.num_rows:,}.</p>"
    )
    head = "".join(f"<th>{name}</th>" for name in _LEDGER)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_e(row[name])}</td>" for name in _LEDGER) + "</tr>"
        for row in holes.slice(0, _MAX_ROWS).select(_LEDGER).to_pylist()
    )
    more = holes.num_rows - _MAX_ROWS
    note = f"<p><small>and {more:,} more, in {_e(ledger.url)}</small></p>" if more > 0 else ""
    return "".join([*parts, f"<div class='wide'><table><tr>{head}</tr>{lines}</table></div>{note}"])


def _pictures(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The pictures that were written; without any, quick looks at the images."""
    pictures = [output["url"] for output in outputs if output["kind"] == "png"]
    for url in pictures:
        fs, path = resolve(url)
        if not fs.exists(path) or fs.size(path) > _MAX_PICTURE:
            yield f"<p>{_e(url)} is not shown: it is gone, or too large.</p>"
        else:
            yield figure(url, fs.cat_file(path))
    if not pictures:
        for url in [output["url"] for output in outputs if output["kind"] == "cog"]:
            fs, path = resolve(url)
            if isinstance(fs, LocalFileSystem) and fs.exists(path):
                yield figure(url, _quick_look(path))


def _quick_look(path: str) -> bytes:
    """The first band of an image from one of its overviews."""
    with rasterio.open(path) as image:
        thin = max(1, -(-max(image.shape) // _QUICK_LOOK))
        shape = (max(1, image.height // thin), max(1, image.width // thin))
        values = image.read(1, out_shape=shape, masked=True).astype("float64").filled(np.nan)
        band = xr.DataArray(values, dims=("y", "x"))
    with scratch_file(".png") as scratch:
        write_png(band, scratch)
        return scratch.read_bytes()


def _collection(said: Mapping[str, Any], collection: Collection | None) -> str:
    facts = [("items", f"{said['items']:,}"), ("place", str(said.get("url") or ""))]
    if collection is None:
        return rows(facts)
    names = [name for name in pages.COLUMNS if name in collection.schema.names]
    items = collection.to_table(names)
    bands = [collection.band_info(name) for name in collection.bands]
    return pages.page(said["name"], facts, items, bands, total=len(collection))
