"""Run a pipeline: collection → cube → steps → outputs, every pixel read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import geopandas
import xarray as xr
from dask.utils import parse_bytes
from distributed import Client, wait

from rasteret_dask import api
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ConfigError, EmptySelectionError
from rasteret_dask.pipeline import outputs, steps
from rasteret_dask.pipeline.account import Meter, Progress, RunAccount, Silence, Stopwatch, watch
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.config import Build, Chunks, Cube, Pipeline, Subset, ZarrOutput

# A result of at most so many bytes is held in memory while its outputs are written.
_SMALL = 512 * 2**20
# Bytes of a chunk that a median sorts; it holds some six times as much while it does.
_SORTED_CHUNK = 16 * 2**20


def run(
    pipeline: Pipeline, *, client: Client | None = None, progress: Progress | None = None
) -> RunAccount:
    """Run a pipeline to its end.

    Parameters
    ----------
    pipeline : Pipeline
        From `config.from_file` or `config.from_mapping`.
    client : distributed.Client, optional
        Where to compute. Without one: the active client if there is one, else Dask's threads.
    progress : Progress, optional
        Told of stages and finished tasks.

    Returns
    -------
    RunAccount
        What it cost and where the outputs are.

    Raises
    ------
    ConfigError
        The pipeline makes no sense, or names a file that is not there; nothing has run.
    EmptySelectionError
        No item is left.
    RasteretError
        Whatever went wrong with a file, with its item, band and URL.
    """
    check(pipeline)
    areas = _areas(pipeline)
    listener: Progress = Silence() if progress is None else progress
    where = _current_client() if client is None else client
    clock, meter = Stopwatch(), Meter(where)
    with watch(where, listener) as count:
        listener.stage("collection")
        collection, headers = _collection(pipeline)
        collection = _subset(collection, pipeline.collection.subset, areas)
        items = len(collection)
        if items == 0:
            raise EmptySelectionError(
                "no item of the collection is left", path="collection", hint=_widen(pipeline)
            )
        listener.stage("cube")
        cube = _open(collection, pipeline, areas.get("cube"))
        result = steps.apply(cube, pipeline.steps)
        urls = _write_all(pipeline, result, where, listener)
    spent = meter.read()
    return RunAccount(
        pipeline=pipeline.name,
        items=items,
        headers=headers,
        requests=spent.requests,
        bytes=spent.bytes,
        retries=spent.retries,
        tasks=count.tasks,
        seconds=clock.read(),
        outputs=tuple(urls),
    )


def _current_client() -> Client | None:
    try:
        return Client.current()
    except ValueError:
        return None


# --- collection ----------------------------------------------------------------------------------
def _collection(pipeline: Pipeline) -> tuple[Collection, int]:
    """The collection, and how many headers were read for it."""
    source = pipeline.collection
    if source.load is not None:
        return api.load(source.load), 0
    assert source.build is not None  # Source holds exactly one of the two
    return build(source.build)


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


def _subset(collection: Collection, subset: Subset | None, areas: Mapping[str, Any]) -> Collection:
    if subset is None:
        return collection
    arguments = subset.model_dump(exclude_none=True)
    if "subset" in areas:
        arguments["geometries"] = areas["subset"]
    return collection.subset(**arguments)


def _widen(pipeline: Pipeline) -> str:
    subset = pipeline.collection.subset
    if subset is None:
        return "the search or the collection is empty"
    given = ", ".join(f"{k}={v}" for k, v in subset.model_dump(exclude_none=True).items())
    return f"collection.subset says {given}"


def _areas(pipeline: Pipeline) -> dict[str, geopandas.GeoDataFrame]:
    """Vector files that the pipeline names, read before anything else runs."""
    subset = pipeline.collection.subset
    named = {
        "cube": (pipeline.cube.geometries, "cube.geometries"),
        "subset": (subset.geometries if subset else None, "collection.subset.geometries"),
    }
    return {key: _vector(url, path) for key, (url, path) in named.items() if url is not None}


def _vector(url: str, path: str) -> geopandas.GeoDataFrame:
    if "://" not in url and not Path(url).exists():
        raise ConfigError(f"{url}: no such file", path=path)
    try:
        frame = geopandas.read_file(url)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{url} is no vector file: {error}", path=path) from None
    if frame.empty or frame.crs is None:
        raise ConfigError(f"{url} has no geometries, or no CRS", path=path)
    return frame


# --- cube ----------------------------------------------------------------------------------------
def _open(
    collection: Collection, pipeline: Pipeline, area: geopandas.GeoDataFrame | None
) -> xr.Dataset:
    with _chunk_size(pipeline):
        return collection.get_xarray(**_cube_arguments(pipeline, area))


def _cube_arguments(pipeline: Pipeline, area: geopandas.GeoDataFrame | None) -> dict[str, Any]:
    cube = pipeline.cube
    arguments: dict[str, Any] = {
        "bands": list(cube.bands),
        "chunks": _chunks(cube, pipeline),
        "groupby": cube.groupby,
        "resampling": cube.resampling,
        "masked": pipeline.masked,
        "scale": cube.scale,
    }
    for key in ("bbox", "crs", "resolution"):
        if getattr(cube, key) is not None:
            arguments[key] = getattr(cube, key)
    if cube.mask is not None:
        mask = cube.mask.model_dump(exclude_none=True)
        arguments["mask"] = {k: list(v) if isinstance(v, tuple) else v for k, v in mask.items()}
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


# --- outputs -------------------------------------------------------------------------------------
def _write_all(
    pipeline: Pipeline, result: xr.Dataset, client: Client | None, progress: Progress
) -> list[str]:
    """Write every output from one computation where that is possible.

    One output streams. A small result is computed once and kept until all are written. A large one
    is written to Zarr first, if Zarr is among the outputs, and the others read that.
    """
    wanted = list(pipeline.outputs)
    if len(wanted) > 1 and result.nbytes <= _SMALL:
        progress.stage("compute")
        result = result.persist()
        if client is not None:
            wait(result)
    elif len(wanted) > 1:
        wanted.sort(key=lambda output: not _whole_zarr(output))
    stored: dict[int, str] = {}
    for output in wanted:
        progress.stage(f"write {outputs.url_of(output)}")
        stored[id(output)] = outputs.write(output, result)
        if result.nbytes > _SMALL and _whole_zarr(output):
            result = xr.open_zarr(outputs.url_of(output), chunks={}, mask_and_scale=True)
    return [stored[id(output)] for output in pipeline.outputs]


def _whole_zarr(output: Any) -> bool:
    return isinstance(output, ZarrOutput) and output.bands is None
