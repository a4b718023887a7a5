"""The step that brings in another collection: its bands, on the grid of the cube."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from rasteret_dask.collection import Collection
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.inputs import find_collection, read_vector
from rasteret_dask.pipeline.shape import Shape
from rasteret_dask.pipeline.work import Stack, StackStep
from rasteret_dask.plan.explain import Explanation
from rasteret_dask.read.grouping import together


def check(step: StackStep, shape: Shape, path: str) -> Shape:
    """What the variables are afterwards.

    Raises
    ------
    ConfigError
        The cube still has dates, or a band's name is taken.
    """
    if shape.time:
        raise ConfigError(
            "the cube still has dates here, and what is added has none",
            path=path,
            hint="add a step such as - reduce: {how: median, dim: time} before it",
        )
    for position, band in enumerate(step.stack.bands):
        if band in shape.variables or band in step.stack.bands[:position]:
            raise ConfigError(f"{band} is there already", path=f"{path}.stack.bands[{position}]")
    return Shape((*shape.variables, *step.stack.bands), time=False)


def apply(step: StackStep, dataset: xr.Dataset) -> xr.Dataset:
    """Open the other collection on the grid of `dataset`, lazily, and add its bands."""
    arguments = _arguments(step.stack, dataset)
    cube = stacked(step.stack).get_xarray(**arguments).isel(time=0, drop=True)
    # As bare variables: both grids are one, and labels are the cube's own.
    added = {band: cube[band].variable for band in step.stack.bands}
    return dataset.assign(added)


def explain(step: Stack, dataset: xr.Dataset) -> Explanation:
    """What reading the bands on the grid of `dataset` will cost."""
    return stacked(step).explain(**_arguments(step, dataset))


def stacked(step: Stack) -> Collection:
    """The other collection, after its subset."""
    subset = step.collection.subset
    area = None
    if subset is not None and subset.geometries is not None:
        area = read_vector(subset.geometries, "stack.collection.subset.geometries")
    return find_collection(step.collection, area, "stack.collection")[0]


def _arguments(step: Stack, dataset: xr.Dataset) -> dict[str, Any]:
    resampling = step.resampling
    arguments: dict[str, Any] = {
        "bands": list(step.bands),
        "like": dataset,
        "chunks": _chunks(dataset),
        "groupby": together,
        "mosaic": step.mosaic,
        "resampling": dict(resampling) if isinstance(resampling, Mapping) else resampling,
        "overviews": step.overviews,
        "scale": step.scale,
        "masked": True,
        "missing": step.missing,
    }
    return arguments if step.nodata is None else {**arguments, "nodata": step.nodata}


def _chunks(dataset: xr.Dataset) -> dict[str, Any]:
    """Those of the cube, so that nothing is cut anew."""
    # Array by array: bands of several resolutions are not chunked alike.
    each = [one.chunksizes for one in dataset.data_vars.values() if one.chunks is not None]
    return {dim: max(max(sizes[dim]) for sizes in each) for dim in ("y", "x")} if each else {}
