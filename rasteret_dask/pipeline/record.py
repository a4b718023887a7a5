"""The record of a pipeline's run: see `rasteret_dask.runs.record`, and ``docs/formats.md``, "Run record"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import geopandas
import shapely
from pyproj import CRS

from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline import outputs, tables
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors, open_vectors
from rasteret_dask.pipeline.stack import stacked
from rasteret_dask.pipeline.work import Stack, StackStep
from rasteret_dask.runs import record as runs
from rasteret_dask.runs.record import Record, ids_of, snapshot_of, unsigned


def begin(
    url: str,
    pipeline: Pipeline,
    collection: Collection,
    digest: str,
    *,
    ledger: Ledger | None = None,
    written: Sequence[Mapping[str, Any]] = (),
    area: geopandas.GeoDataFrame | None = None,
    repairs: Mapping[str, Any] | None = None,
) -> Record:
    """A new record, written at once.

    Parameters
    ----------
    url : str
    pipeline : Pipeline
    collection : Collection
    digest : str
    ledger : Ledger, optional
        Where the run writes down what fails.
    written : sequence of mapping
        What is said of the outputs that are there already.
    area : GeoDataFrame, optional
        What the cube is cropped to, where no file of the pipeline says it.
    repairs : mapping, optional
        What is known of repairs of a store that is there already.
    """
    more = _area(pipeline, area)
    if repairs is not None:
        more["repairs"] = dict(repairs)
    if ledger is not None:
        more["ledger"] = {"url": ledger.url, "run": ledger.run}
    return runs.begin(
        url,
        runs.PIPELINE,
        collection,
        digest=digest,
        pipeline=unsigned(pipeline.model_dump(mode="json", exclude_none=True)),
        outputs=list(written),
        **more,
    )


def unbegun(
    url: str,
    pipeline: Pipeline,
    error: BaseException,
    area: geopandas.GeoDataFrame | None = None,
) -> Record:
    """The record of a run that ended before it had a collection."""
    said = unsigned(pipeline.model_dump(mode="json", exclude_none=True))
    return runs.unbegun(url, error, pipeline=said, **_area(pipeline, area))


def _area(pipeline: Pipeline, area: geopandas.GeoDataFrame | None) -> dict[str, Any]:
    return {} if area is None else {"area": said_of_area(area, _used(pipeline, area))}


def vectors_of(record: Record) -> Vectors:
    """The vector files of a recorded pipeline, and the area of a unit of `foreach`.

    Raises
    ------
    ConfigError
        One is not there any more.
    """
    pipeline = validate(Pipeline, record.document["pipeline"])
    return open_vectors(pipeline, area_of(record.document.get("area")))


def said_of_area(area: geopandas.GeoDataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """An area as a record has it, to the last bit: whoever reads it back crops as this run did."""
    return {
        # For people, and readers of before; it has not the last bits of numbers near 0.
        "wkt": area.geometry.to_wkt().tolist(),
        "wkb": shapely.to_wkb(area.geometry.to_numpy(), hex=True).tolist(),
        "crs": area.crs.to_json_dict(),
        "columns": {name: area[name].tolist() for name in columns},
    }


def area_of(area: Mapping[str, Any] | None) -> geopandas.GeoDataFrame | None:
    """The area of a unit of `foreach` from what its record says; None for None."""
    if area is None:
        return None
    if "wkb" not in area:  # of before
        shapes = geopandas.GeoSeries.from_wkt(area["wkt"], crs=area["crs"])
    else:
        shapes = geopandas.GeoSeries.from_wkb(area["wkb"], crs=CRS.from_json_dict(area["crs"]))
    return geopandas.GeoDataFrame(area.get("columns", {}), geometry=shapes)


def lost_of(before: Record, pipeline: Pipeline) -> bool:
    """Whether the store of all variables was whole once and is gone: with it goes what was known of its holes."""
    said = {one["url"] for one in before.document["outputs"]}
    return any(
        outputs.is_whole_zarr(one)
        and unsigned(outputs.url_of(one)) in said
        and not outputs.is_there(one)
        for one in pipeline.outputs
    )


def kept_of(before: Record, pipeline: Pipeline) -> list[dict[str, Any]]:
    """What a run before said of the outputs that it wrote whole, and that still are there; those made of a store that has been mended
    since are behind it."""
    stale = before.document.get("stale", False)
    there = {
        unsigned(outputs.url_of(one))
        for one in pipeline.outputs
        if outputs.is_there(one) and (outputs.is_whole_zarr(one) or not stale)
    }
    return [
        {**said, "computed": 0} if "computed" in said else dict(said)
        for said in before.document["outputs"]
        if said["url"] in there
    ]


def digest_of(
    pipeline: Pipeline, collection: Collection, vectors: Vectors, package: str | None = None
) -> str:
    """Equal for equal results: of the pipeline, the snapshots and the vector files.

    Parameters
    ----------
    pipeline, collection, vectors
    package : str, optional
        Version of this package; the one that runs by default.
    """
    said = pipeline.model_dump(mode="json", exclude={"name", "description", "record", "foreach"})
    shapes = {
        name: _identity(frame, _used(pipeline, frame) if name == "table" else ())
        for name, frame in vectors.items()
    }
    package = version("rasteret-dask") if package is None else package
    others = [_chosen(step.stack) for step in pipeline.steps if isinstance(step, StackStep)]
    text = json.dumps([package, said, shapes, snapshot_of(collection), *others])
    return hashlib.sha256(text.encode()).hexdigest()


def _used(pipeline: Pipeline, frame: geopandas.GeoDataFrame) -> list[str]:
    """The columns that get into the result, as far as they are there."""
    columns = tables.columns_of(pipeline.steps[-1]) if pipeline.steps else ()
    return [column for column in columns if column in frame.columns]


def _identity(frame: geopandas.GeoDataFrame, columns: Sequence[str]) -> str:
    """A hash of geometries, of where they lie, and of some columns."""
    found = [frame[column].tolist() for column in columns]
    # As it is once it has been written down and read: some change by that, and no more by the next time.
    crs = None if frame.crs is None else CRS.from_json(frame.crs.to_json()).to_json()
    shapes = shapely.to_wkb(frame.geometry.to_numpy(), hex=True).tolist()
    return hashlib.sha256(json.dumps([crs, shapes, found], default=str).encode()).hexdigest()


def _chosen(stack: Stack) -> dict[str, Any]:
    """Which rows of another collection are stacked; a vector file may have chosen them."""
    other, subset = stacked(stack), stack.collection.subset
    by_file = subset is not None and subset.geometries is not None
    return snapshot_of(other) | ({"items": ids_of(other)} if by_file else {})
