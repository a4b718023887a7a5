"""The record of a pipeline's run: see `rasteret_dask.runs.record`, and ``docs/formats.md``, "Run record"."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

import geopandas
import shapely

from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors, open_vectors
from rasteret_dask.pipeline.stack import stacked
from rasteret_dask.pipeline.work import StackStep
from rasteret_dask.runs import record as runs
from rasteret_dask.runs.record import Record, snapshot_of, unsigned


def begin(
    url: str,
    pipeline: Pipeline,
    collection: Collection,
    digest: str,
    *,
    ledger: Ledger | None = None,
) -> Record:
    """A new record, written at once."""
    more: dict[str, Any] = {}
    if ledger is not None:
        more["ledger"] = {"url": ledger.url, "run": ledger.run}
    return runs.begin(
        url,
        runs.PIPELINE,
        collection,
        digest=digest,
        pipeline=unsigned(pipeline.model_dump(mode="json", exclude_none=True)),
        outputs=[],
        **more,
    )


def unbegun(url: str, pipeline: Pipeline, error: BaseException) -> Record:
    """The record of a run that ended before it had a collection."""
    said = unsigned(pipeline.model_dump(mode="json", exclude_none=True))
    return runs.unbegun(url, error, pipeline=said)


def vectors_of(record: Record) -> Vectors:
    """The vector files of a recorded pipeline, and the area of a unit of `foreach`.

    Raises
    ------
    ConfigError
        One is not there any more.
    """
    pipeline = validate(Pipeline, record.document["pipeline"])
    area = record.document.get("area")
    if area is None:
        return open_vectors(pipeline)
    shapes = geopandas.GeoSeries.from_wkt(area["wkt"], crs=area["crs"])
    return open_vectors(pipeline, geopandas.GeoDataFrame(geometry=shapes))


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
        name: hashlib.sha256(b"".join(shapely.to_wkb(frame.geometry.to_numpy()))).hexdigest()
        for name, frame in vectors.items()
    }
    package = version("rasteret-dask") if package is None else package
    others = [stacked(step.stack) for step in pipeline.steps if isinstance(step, StackStep)]
    snapshots = [snapshot_of(one) for one in (collection, *others)]
    text = json.dumps([package, said, shapes, *snapshots])
    return hashlib.sha256(text.encode()).hexdigest()
