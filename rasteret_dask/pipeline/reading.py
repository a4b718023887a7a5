"""From the keys of a pipeline to a collection and a lazy cube."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask
import geopandas
import xarray as xr
from dask.utils import parse_bytes

from rasteret_dask.collection import Collection
from rasteret_dask.errors import ConfigError
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline import stack, steps, tables
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.inputs import find_collection, read_vector
from rasteret_dask.pipeline.sources import Chunks, Cube, Source
from rasteret_dask.pipeline.work import StackStep
from rasteret_dask.plan.explain import Explanation
from rasteret_dask.read.ledger import new_run

# Bytes of a chunk that a median sorts; it holds some six times as much while it does.
_SORTED_CHUNK = 16 * 2**20
_PLAIN = (
    "groupby",
    "mosaic",
    "mosaic_mask",
    "early_exit",
    "sortby",
    "overviews",
    "missing",
    "nodata",
    "fill_value",
    "harmonize",
    "bbox",
    "crs",
    "resolution",
    "anchor",
    "dtype",
    "offsets",
    "on_error",
    "ledger",
)
Vectors = Mapping[str, geopandas.GeoDataFrame]


# --- collection ----------------------------------------------------------------------------------
def open_collection(
    source: Source, vectors: Vectors, pinned: Collection | None = None
) -> tuple[Collection, int]:
    """The collection after its subset, and how many headers were read for it."""
    return find_collection(source, vectors.get("subset"), pinned=pinned)


# --- vector files --------------------------------------------------------------------------------
def open_vectors(
    pipeline: Pipeline, area: geopandas.GeoDataFrame | None = None
) -> dict[str, geopandas.GeoDataFrame]:
    """Vector files that the pipeline names, read before anything else runs: `cube`, `subset`, and
    `table` for the step that ends in a table.

    Parameters
    ----------
    pipeline : Pipeline
    area : GeoDataFrame, optional
        What the cube is cropped to, in place of ``cube.geometries``; the zone of a zonal step that
        names none.

    Raises
    ------
    ConfigError
        `path` names the key whose file is no vector file.
    """
    subset = pipeline.collection.subset
    named: dict[str, tuple[str | None, str]] = {
        "cube": (pipeline.cube.geometries, "cube.geometries"),
        "subset": (subset.geometries if subset else None, "collection.subset.geometries"),
    }
    for index, step in enumerate(pipeline.steps):
        needed = tables.vector_of(step)
        if needed is not None:
            named["table"] = (needed[0], f"steps[{index}].{needed[1]}")
            if needed[0] is None and area is None and needed[1] == "zonal.polygons":
                raise ConfigError(
                    "is missing", path=named["table"][1], hint="or run it over a table, by foreach"
                )
    found = {key: read_vector(url, path) for key, (url, path) in named.items() if url is not None}
    if area is not None:
        found = (
            {"table": area, **found, "cube": area} if "table" in named else found | {"cube": area}
        )
    return found


# --- cube ----------------------------------------------------------------------------------------
def open_cube(
    collection: Collection, pipeline: Pipeline, vectors: Vectors, ledger: Ledger | None = None
) -> xr.Dataset:
    """The lazy cube, before any step; `ledger` is the run's own, where it keeps one.

    Parameters
    ----------
    collection : Collection
    pipeline : Pipeline
    vectors : mapping of str to GeoDataFrame
    ledger : Ledger, optional
        The run's own; a new one where it has none yet.
    """
    arguments = _arguments(pipeline, vectors)
    if pipeline.cube.ledger is not None:
        arguments["ledger"] = new_run(pipeline.cube.ledger) if ledger is None else ledger
    with _chunk_size(pipeline):
        return collection.get_xarray(**arguments)


def explain(collection: Collection, pipeline: Pipeline, vectors: Vectors) -> Explanation:
    """What reading the cube will cost."""
    with _chunk_size(pipeline):
        cost = collection.explain(**_arguments(pipeline, vectors))
    stacked = [step.stack for step in pipeline.steps if isinstance(step, StackStep)]
    if stacked:
        cube = open_cube(collection, pipeline, vectors)
        for one in stacked:
            more = stack.explain(one, cube).bands
            # A band of the cube that an expression has taken up may have the same name.
            named = {f"{n} (stack)" if n in cost.bands else n: each for n, each in more.items()}
            cost = Explanation({**cost.bands, **named})
    return cost


def _arguments(pipeline: Pipeline, vectors: Vectors) -> dict[str, Any]:
    cube = pipeline.cube
    resampling = cube.resampling
    arguments: dict[str, Any] = {
        "bands": list(cube.bands),
        "chunks": _chunks(cube, pipeline),
        "resampling": dict(resampling) if isinstance(resampling, Mapping) else resampling,
        "properties": list(cube.properties),
        "masked": pipeline.masked,
        "scale": cube.scale,
        "decode": cube.decode,
    }
    arguments |= {key: v for key in _PLAIN if (v := getattr(cube, key)) is not None}
    if isinstance(cube.groupby, tuple):
        arguments["groupby"] = list(cube.groupby)
    if cube.mask is not None:
        mask = cube.mask.model_dump(exclude_none=True)
        arguments["mask"] = {k: list(v) if isinstance(v, tuple) else v for k, v in mask.items()}
    area = vectors.get("cube")
    if area is not None:
        arguments |= {
            "geometries": list(area.geometry),
            "geometry_crs": area.crs.to_wkt(),
            "all_touched": cube.all_touched,
        }
    return arguments


def _chunks(cube: Cube, pipeline: Pipeline) -> Any:
    if isinstance(cube.chunks, Chunks):
        return cube.chunks.model_dump(exclude_none=True)
    if cube.chunks == "auto" and steps.needs_whole_time(pipeline.steps):
        return {"time": -1}
    return cube.chunks


@contextmanager
def _chunk_size(pipeline: Pipeline) -> Iterator[None]:
    """Smaller chunks under a median: it sorts whole columns of time, and cores share the area."""
    if pipeline.cube.chunks != "auto" or not steps.needs_whole_time(pipeline.steps):
        yield
        return
    usual = parse_bytes(dask.config.get("array.chunk-size"))
    with dask.config.set({"array.chunk-size": min(usual, _SORTED_CHUNK)}):
        yield
