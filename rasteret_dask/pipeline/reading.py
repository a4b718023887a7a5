"""From the keys of a pipeline to a collection and a lazy cube."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import geopandas
import pandas as pd
import xarray as xr
from dask.utils import parse_bytes

from rasteret_dask import api
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ConfigError, EmptySelectionError
from rasteret_dask.pipeline import steps, tables
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.sources import Build, Chunks, Cube, Source, Subset
from rasteret_dask.plan.explain import Explanation

# Bytes of a chunk that a median sorts; it holds some six times as much while it does.
_SORTED_CHUNK = 16 * 2**20
_PLAIN = (
    "groupby",
    "mosaic",
    "sortby",
    "overviews",
    "missing",
    "nodata",
    "fill_value",
    "harmonize",
    "bbox",
    "crs",
    "resolution",
)
Vectors = Mapping[str, geopandas.GeoDataFrame]


# --- collection ----------------------------------------------------------------------------------
def open_collection(source: Source, vectors: Vectors) -> tuple[Collection, int]:
    """The collection after its subset, and how many headers were read for it.

    Raises
    ------
    EmptySelectionError
        No item is left.
    """
    if source.load is not None:
        collection, headers = api.load(source.load), 0
    else:
        assert source.build is not None  # Source holds exactly one of the two
        collection, headers = build(source.build)
    chosen = _subset(collection, source.subset, vectors)
    if len(chosen) == 0:
        raise EmptySelectionError(
            "no item of the collection is left", path="collection", hint=_widen(source.subset)
        )
    return chosen, headers


def build(what: Build) -> tuple[Collection, int]:
    """Build a collection, or find it built; also say how many headers were read just now."""
    arguments = what.model_dump(exclude_none=True)
    dataset = arguments.pop("dataset", None)
    if dataset is None:
        collection = api.build_from_stac(**arguments)
    else:
        collection = api.build(dataset, **arguments)
    report = collection.report
    return collection, report.headers if report is not None and report.requests else 0


def _subset(collection: Collection, subset: Subset | None, vectors: Vectors) -> Collection:
    if subset is None:
        return collection
    arguments = subset.model_dump(exclude_none=True)
    if "subset" in vectors:
        arguments["geometries"] = vectors["subset"]
    return collection.subset(**arguments)


def _widen(subset: Subset | None) -> str:
    if subset is None:
        return "the search or the collection is empty"
    given = ", ".join(f"{k}={v}" for k, v in subset.model_dump(exclude_none=True).items())
    return f"collection.subset says {given}"


# --- vector files --------------------------------------------------------------------------------
def open_vectors(pipeline: Pipeline) -> dict[str, geopandas.GeoDataFrame]:
    """Vector files that the pipeline names, read before anything else runs: `cube`, `subset`, and
    `table` for the step that ends in a table."""
    subset = pipeline.collection.subset
    named: dict[str, tuple[str | None, str]] = {
        "cube": (pipeline.cube.geometries, "cube.geometries"),
        "subset": (subset.geometries if subset else None, "collection.subset.geometries"),
    }
    for index, step in enumerate(pipeline.steps):
        needed = tables.vector_of(step)
        if needed is not None:
            named["table"] = (needed[0], f"steps[{index}].{needed[1]}")
    return {key: read_vector(url, path) for key, (url, path) in named.items() if url is not None}


def read_vector(url: str, path: str) -> geopandas.GeoDataFrame:
    """A vector file or GeoParquet, with geometries and a CRS.

    Raises
    ------
    ConfigError
        `path` names the key.
    """
    frame = read_rows(url, path)
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.empty or frame.crs is None:
        raise ConfigError(f"{url} has no geometries, or no CRS", path=path)
    return frame


def read_rows(url: str, path: str) -> pd.DataFrame:
    """A table with or without geometries: Parquet, CSV, or any vector file."""
    if "://" not in url and not Path(url).exists():
        raise ConfigError(f"{url}: no such file", path=path)
    suffix = Path(url).suffix.lower()
    try:
        if suffix == ".csv":
            return pd.read_csv(url, dtype=str)
        if suffix in (".parquet", ".geoparquet"):
            return _parquet(url)
        frame: pd.DataFrame = geopandas.read_file(url)
        return frame
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{url} is no vector file: {error}", path=path) from None


def _parquet(url: str) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = geopandas.read_parquet(url)
        return frame
    except ValueError:  # Parquet without geometries
        return pd.read_parquet(url)


# --- cube ----------------------------------------------------------------------------------------
def open_cube(collection: Collection, pipeline: Pipeline, vectors: Vectors) -> xr.Dataset:
    """The lazy cube, before any step."""
    with _chunk_size(pipeline):
        return collection.get_xarray(**_arguments(pipeline, vectors))


def explain(collection: Collection, pipeline: Pipeline, vectors: Vectors) -> Explanation:
    """What reading the cube will cost."""
    with _chunk_size(pipeline):
        return collection.explain(**_arguments(pipeline, vectors))


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
