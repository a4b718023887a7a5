"""What a step means: first on paper, then on a lazy cube.

Every kind of step is an entry of `STEPS`: a function that says what the variables are after it,
refusing what cannot mean anything, and a function that does it without computing anything. Steps
that end in a table are in `tables`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.pipeline import chips, indices, similarity, stack
from rasteret_dask.pipeline import expression as language
from rasteret_dask.pipeline.reductions import REDUCTIONS, by_rows, extreme_index
from rasteret_dask.pipeline.shape import Shape, finish, like
from rasteret_dask.pipeline.work import (
    ChipsStep,
    CompositeStep,
    CustomStep,
    ExpressionStep,
    IndexStep,
    Points,
    ReduceStep,
    ResampleStep,
    SampleStep,
    SimilarityStep,
    StackStep,
    Statistic,
    Step,
    Zonal,
    ZonalStep,
)

# Statistics that need all times of a pixel at once; the others do too here, but are cheap to
# recombine.
WHOLE_TIME = ("median", "percentile")


@dataclass(frozen=True, slots=True)
class StepKind:
    """How one kind of step is checked and done."""

    check: Callable[[Any, Shape, str], Shape]
    apply: Callable[[Any, xr.Dataset], xr.Dataset]


def apply(dataset: xr.Dataset, steps: tuple[Step, ...]) -> xr.Dataset:
    """Do all steps lazily; one that ends in a table is left to `tables`."""
    for step in steps:
        dataset = STEPS[type(step)].apply(step, dataset)
    return dataset


def needs_whole_time(steps: tuple[Step, ...]) -> bool:
    """Whether a statistic over time follows that wants every time of a pixel in one chunk."""
    return any(
        isinstance(step, CompositeStep)
        or (isinstance(step, ReduceStep) and step.reduce.how in WHOLE_TIME)
        or (isinstance(step, ResampleStep) and step.resample.how in WHOLE_TIME)
        for step in steps
    )


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
    # Blocks are paired by number: arrays that are not chunked alike would be paired wrongly, and broadcast.
    arrays: Any = xr.unify_chunks(*xr.broadcast(*(dataset[name] for name in expression.bands)))
    dtype = expression(*(np.zeros((0,), dtype=array.dtype) for array in arrays)).dtype
    values = [array.data for array in arrays]
    if any(array.chunks is not None for array in arrays):
        data = da.map_blocks(expression, *values, token="expression", **like(dtype, arrays[0].ndim))
    else:
        data = expression(*values)
    return finish(data, arrays[0], dataset[expression.bands[0]])


# --- indices -------------------------------------------------------------------------------------
def _check_indices(step: IndexStep, shape: Shape, path: str) -> Shape:
    shape.require(step.keep, f"{path}.keep")
    for role, variable in step.bands.items():
        if role not in indices.ROLES:
            raise ConfigError(
                f"no role {role!r}",
                path=f"{path}.bands.{role}",
                hint=f"there are {', '.join(indices.ROLES)}",
            )
        shape.require_one(variable, f"{path}.bands.{role}")
    for position, name in enumerate(step.indices):
        here = f"{path}.indices[{position}]"
        if name in step.keep or name in step.indices[:position]:
            raise ConfigError("is made or kept twice", path=here)
        _, missing = indices.expand(name, shape.variables, step.bands)
        if missing:
            raise ConfigError(
                f"{name} is {indices.INDICES[name]}, and nothing here is {missing}",
                path=here,
                hint=f"read such a band, or say which it is: bands: {{{missing}: NAME}}",
            )
    return Shape((*step.keep, *step.indices), shape.time)


def _apply_indices(step: IndexStep, dataset: xr.Dataset) -> xr.Dataset:
    names = [str(name) for name in dataset.data_vars]
    made = {}
    for name in step.indices:
        expression, missing = indices.expand(name, names, step.bands)
        if expression is None:
            raise ConfigError(f"{name} needs {missing}", path="indices")
        made[name] = _compute(expression, dataset)
    return dataset.assign(made)[[*step.keep, *step.indices]]


# --- reduce --------------------------------------------------------------------------------------
def _check_reduce(step: ReduceStep, shape: Shape, path: str) -> Shape:
    shape.require_time(path)
    looks = step.reduce.looks
    if looks in shape.variables:
        raise ConfigError("is the name of a variable already", path=f"{path}.reduce.looks")
    return Shape((*shape.variables, *([looks] if looks else [])), time=False)


def _apply_reduce(step: ReduceStep, dataset: xr.Dataset) -> xr.Dataset:
    along = _along(step.reduce, dataset)
    reduced = {str(name): _reduce(along, array) for name, array in dataset.data_vars.items()}
    if step.reduce.looks is not None:
        first = next(iter(dataset.data_vars))
        counts = Along("count", along.axis, None)
        reduced[step.reduce.looks] = _reduce(counts, dataset[first])
    return xr.Dataset(reduced, attrs=dataset.attrs)


def _along(statistic: Statistic, dataset: xr.Dataset) -> Along:
    first = next(iter(dataset.data_vars.values()))
    return Along(statistic.how, int(first.get_axis_num("time")), statistic.q)


def _reduce(along: Along, array: xr.DataArray) -> xr.DataArray:
    array = _as_float(array)
    if array.chunks is None:
        data = along(array.data)
    else:
        data = _over_whole_time(along, along.axis, array.chunk({"time": -1}))
    return finish(data, array.isel(time=0, drop=True), array)


def _as_float(array: xr.DataArray) -> xr.DataArray:
    """Counts and classes as floats, as in expressions: a statistic of none of them is NaN, and a mean no whole number."""
    if array.dtype.kind not in "biu":
        return array
    return array.astype(np.result_type(array.dtype, np.float32))


def _over_whole_time(function: Any, axis: int, *arrays: xr.DataArray) -> da.Array:
    """Call a function with blocks that hold every time, and get one without that axis.

    Told to drop an axis, `map_blocks` brings the blocks along it into one, which for one block is a
    copy of it, held beside the block for as long as the function works.
    """
    inner = tuple(range(arrays[0].ndim))
    outer = tuple(dim for dim in inner if dim != axis)
    pairs = [part for array in arrays for part in (array.data, inner)]
    kind = like(arrays[0].dtype, len(outer))
    return da.blockwise(
        Only(function), outer, *pairs, concatenate=False, token=function.how, **kind
    )


@dataclass(frozen=True, slots=True)
class Only:
    """Calls a function with blocks, each of which Dask hands over as the only one of a list; picklable."""

    function: Any

    def __call__(self, *blocks: Any) -> Any:
        """Unpack them."""
        return self.function(*(only for [only] in blocks))


@dataclass(frozen=True, slots=True)
class Along:
    """A reduction of `reductions.REDUCTIONS` over one axis of a block; picklable."""

    how: str
    axis: int
    q: float | None

    def __call__(self, block: Any) -> Any:
        """Reduce one block."""
        options = {} if self.q is None else {"q": self.q}
        reduction = partial(REDUCTIONS[self.how], **options)
        return by_rows(reduction, np.moveaxis(block, self.axis, -1))


# --- composite -----------------------------------------------------------------------------------
def _check_composite(step: CompositeStep, shape: Shape, path: str) -> Shape:
    shape.require_time(path)
    shape.require_one(step.composite.by, f"{path}.composite.by")
    return Shape(shape.variables, time=False)


def _apply_composite(step: CompositeStep, dataset: xr.Dataset) -> xr.Dataset:
    some = any(array.chunks is not None for array in dataset.data_vars.values())
    # Bands of several resolutions are not chunked alike.
    whole = dataset.unify_chunks().chunk({"time": -1}) if some else dataset
    by = _as_float(whole[step.composite.by])
    axis = int(by.get_axis_num("time"))
    pick = Pick(step.composite.how, axis)
    made = {}
    for name, given in whole.data_vars.items():
        array = _as_float(given)
        if array.chunks is None:
            data = pick(array.data, by.data)
        else:
            data = _over_whole_time(pick, axis, array, by)
        made[name] = finish(data, array.isel(time=0, drop=True), array)
    return xr.Dataset(made, attrs=dataset.attrs)


@dataclass(frozen=True, slots=True)
class Pick:
    """Of a block the values where another block is extreme along an axis; picklable.

    The first of equals is taken. Where the other block is nothing at all times, so is the result.
    """

    how: str
    axis: int

    def __call__(self, block: Any, by: Any) -> Any:
        """Pick from one block."""
        return by_rows(self._pick, *(np.moveaxis(b, self.axis, -1) for b in (block, by)))

    def _pick(self, block: Any, by: Any) -> Any:
        index, known = extreme_index(by, self.how)
        picked = np.take_along_axis(block, index[..., None], axis=-1)[..., 0]
        return np.where(known, picked, block.dtype.type(np.nan))


# --- resample ------------------------------------------------------------------------------------
def _check_resample(step: ResampleStep, shape: Shape, path: str) -> Shape:
    shape.require_time(path)
    return shape


def _apply_resample(step: ResampleStep, dataset: xr.Dataset) -> xr.Dataset:
    times = pd.DatetimeIndex(dataset["time"].values)
    groups = pd.Series(np.arange(len(times)), index=times).resample(step.resample.period)
    found = [(label, np.sort(rows.to_numpy())) for label, rows in groups if len(rows)]
    along = _along(step.resample, dataset)
    periods = []
    for _, rows in found:
        part = dataset.isel(time=rows)
        periods.append({name: _reduce(along, part[name]) for name in dataset.data_vars})
    labels = np.array([label for label, _ in found], dtype="datetime64[ns]")
    # pandas calls weeks by their last day, all other periods by their first.
    if step.resample.period.endswith("W"):
        labels -= np.timedelta64(7 * int(step.resample.period[:-1]) - 1, "D")
    time = xr.Variable("time", labels, {"standard_name": "time", "long_name": "start of period"})
    made = {}
    for name, array in dataset.data_vars.items():
        stacked = xr.concat([period[name] for period in periods], dim="time").assign_coords(
            time=time
        )
        made[name] = finish(stacked.data, stacked, array)
    return xr.Dataset(made, attrs=dataset.attrs)


# --- custom --------------------------------------------------------------------------------------
def _check_custom(step: CustomStep, shape: Shape, path: str) -> Shape:
    return Shape(step.custom.variables, step.custom.time and shape.time)


def _apply_custom(step: CustomStep, dataset: xr.Dataset) -> xr.Dataset:
    named = step.custom.function
    module, _, attribute = named.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{named} cannot be imported: {error}", path="custom.function") from None
    result = function(dataset, **step.custom.options)
    if not isinstance(result, xr.Dataset) or tuple(result.data_vars) != step.custom.variables:
        given = list(result.data_vars) if isinstance(result, xr.Dataset) else type(result).__name__
        raise PipelineError(
            f"{named} gave {given}; custom.variables promises {list(step.custom.variables)}"
        )
    return result


# --- what ends in a table, or in files ------------------------------------------------------------------------
def _check_table(step: ZonalStep | SampleStep, shape: Shape, path: str) -> Shape:
    rows: Zonal | Points
    if isinstance(step, ZonalStep):
        key, rows = "zonal", step.zonal
        made = {f"{name}_{stat}" for name in shape.variables for stat in step.zonal.stats}
    else:
        key, rows, made = "sample", step.sample, set(shape.variables)
    made |= {"geometry", *(["time"] if shape.time else [])}
    if rows.id is not None:
        _refuse_taken((rows.id,), made, f"{path}.{key}.id")
    others = [name for name in rows.keep if name != rows.id]
    _refuse_taken(others, made | {rows.id or "id"}, f"{path}.{key}.keep")
    return Shape(shape.variables, shape.time, table=True)


def _check_chips(step: ChipsStep, shape: Shape, path: str) -> Shape:
    others = [name for name in step.chips.keep if name != step.chips.id]
    _refuse_taken(others, set(chips.COLUMNS), f"{path}.chips.keep")
    return Shape(shape.variables, shape.time, chips=True)


def _refuse_taken(names: Sequence[str], made: Set[str], path: str) -> None:
    for name in names:
        if name in made:
            raise ConfigError(
                f"the result has a column {name!r} of its own",
                path=path,
                hint="say id: id" if name == "id" else "name the file's column otherwise",
            )


def _as_it_is(step: Any, dataset: xr.Dataset) -> xr.Dataset:
    return dataset


STEPS: Mapping[type, StepKind] = {
    ExpressionStep: StepKind(_check_expression, _apply_expression),
    IndexStep: StepKind(_check_indices, _apply_indices),
    ReduceStep: StepKind(_check_reduce, _apply_reduce),
    CompositeStep: StepKind(_check_composite, _apply_composite),
    ResampleStep: StepKind(_check_resample, _apply_resample),
    CustomStep: StepKind(_check_custom, _apply_custom),
    StackStep: StepKind(stack.check, stack.apply),
    SimilarityStep: StepKind(similarity.check, similarity.apply),
    ZonalStep: StepKind(_check_table, _as_it_is),
    SampleStep: StepKind(_check_table, _as_it_is),
    ChipsStep: StepKind(_check_chips, _as_it_is),
}
