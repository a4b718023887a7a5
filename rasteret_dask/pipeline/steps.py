"""What a step means: first on paper, then on a lazy cube.

Every kind of step is an entry of `STEPS`: a function that says what the variables are after it,
refusing what cannot mean anything, and a function that does it without computing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import expression as language
from rasteret_dask.pipeline.config import ExpressionStep, ReduceStep, Step
from rasteret_dask.pipeline.reductions import REDUCTIONS

# Statistics that need all times of a pixel at once; the others do too here, but are cheap to
# recombine.
WHOLE_TIME = ("median", "percentile")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a cube before it exists.

    Parameters
    ----------
    variables : tuple of str
        Names of its variables, in order.
    time : bool
        Whether it has a time dimension.
    """

    variables: tuple[str, ...]
    time: bool

    def require(self, names: tuple[str, ...], path: str) -> None:
        """Refuse names that are no variables here."""
        for index, name in enumerate(names):
            if name not in self.variables:
                raise ConfigError(
                    f"no band or variable {name!r} at this point",
                    path=f"{path}[{index}]",
                    hint=f"there are {', '.join(self.variables)}",
                )


@dataclass(frozen=True, slots=True)
class StepKind:
    """How one kind of step is checked and done."""

    check: Callable[[Any, Shape, str], Shape]
    apply: Callable[[Any, xr.Dataset], xr.Dataset]


def apply(dataset: xr.Dataset, steps: tuple[Step, ...]) -> xr.Dataset:
    """Do all steps lazily."""
    for step in steps:
        dataset = STEPS[type(step)].apply(step, dataset)
    return dataset


def needs_whole_time(steps: tuple[Step, ...]) -> bool:
    """Whether a statistic over time follows that wants every time of a pixel in one chunk."""
    return any(isinstance(step, ReduceStep) and step.reduce.how in WHOLE_TIME for step in steps)


# --- expression ----------------------------------------------------------------------------------
def _check_expression(step: ExpressionStep, shape: Shape, path: str) -> Shape:
    shape.require(step.keep, f"{path}.keep")
    known = list(shape.variables)
    for name, text in step.expression.items():
        here = f"{path}.expression.{name}"
        for used in language.parse(text, path=here).bands:
            if used not in known:
                raise ConfigError(
                    f"{used!r} in {text!r} is no band or variable",
                    path=here,
                    hint=f"there are {', '.join(known)}; bands come from cube.bands",
                )
        if name in step.keep:
            raise ConfigError("is kept and computed under one name", path=here)
        known.append(name)
    return Shape((*step.keep, *step.expression), shape.time)


def _apply_expression(step: ExpressionStep, dataset: xr.Dataset) -> xr.Dataset:
    wide = dataset
    for name, text in step.expression.items():
        wide = wide.assign({name: _compute(language.parse(text), wide)})
    return wide[[*step.keep, *step.expression]]


def _compute(expression: language.Expression, dataset: xr.Dataset) -> xr.DataArray:
    """One Dask layer for the whole expression, over all its bands."""
    arrays = xr.broadcast(*(dataset[name] for name in expression.bands))
    dtype = expression(*(np.zeros((0,), dtype=array.dtype) for array in arrays)).dtype
    values = [array.data for array in arrays]
    if any(array.chunks is not None for array in arrays):
        data = da.map_blocks(
            expression, *values, token="expression", **_like(dtype, arrays[0].ndim)
        )
    else:
        data = expression(*values)
    return _finish(data, arrays[0], dataset[expression.bands[0]])


def _like(dtype: Any, ndim: int) -> dict[str, Any]:
    """Told what comes out, Dask does not try the function on empty blocks."""
    return {"dtype": dtype, "meta": np.empty((0,) * ndim, dtype=dtype)}


# --- reduce --------------------------------------------------------------------------------------
def _check_reduce(step: ReduceStep, shape: Shape, path: str) -> Shape:
    if not shape.time:
        raise ConfigError(
            "there is no time dimension left: an earlier step has reduced it", path=path
        )
    return Shape(shape.variables, time=False)


def _apply_reduce(step: ReduceStep, dataset: xr.Dataset) -> xr.Dataset:
    reduced = {name: _reduce(step, array) for name, array in dataset.data_vars.items()}
    return xr.Dataset(reduced, attrs=dataset.attrs)


def _reduce(step: ReduceStep, array: xr.DataArray) -> xr.DataArray:
    axis = array.get_axis_num("time")
    reduce = Along(step.reduce.how, axis, step.reduce.q)
    if array.chunks is None:
        data = reduce(array.data)
    else:
        data = da.map_blocks(
            reduce,
            array.chunk({"time": -1}).data,
            drop_axis=axis,
            token=step.reduce.how,
            **_like(array.dtype, array.ndim - 1),
        )
    return _finish(data, array.isel(time=0, drop=True), array)


@dataclass(frozen=True, slots=True)
class Along:
    """A reduction of `reductions.REDUCTIONS` over one axis of a block; picklable."""

    how: str
    axis: int
    q: float | None

    def __call__(self, block: Any) -> Any:
        """Reduce one block."""
        last = np.moveaxis(block, self.axis, -1)
        options = {} if self.q is None else {"q": self.q}
        return REDUCTIONS[self.how](last, **options)


def _finish(data: Any, like: xr.DataArray, source: xr.DataArray) -> xr.DataArray:
    """New values in an old frame: where the pixels lie stays, and NaN is nothing."""
    result = xr.DataArray(data, coords=like.coords, dims=like.dims)
    mapping = source.encoding.get("grid_mapping", source.attrs.get("grid_mapping"))
    if mapping is not None:
        result.encoding["grid_mapping"] = mapping
    result.encoding["_FillValue"] = np.array(np.nan, dtype=result.dtype)[()]
    return result


STEPS: Mapping[type, StepKind] = {
    ExpressionStep: StepKind(_check_expression, _apply_expression),
    ReduceStep: StepKind(_check_reduce, _apply_reduce),
}
