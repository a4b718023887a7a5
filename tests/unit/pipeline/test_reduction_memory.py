"""A reduction over time holds its block and little beside it, and going row by row changes no bit."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rasteret_dask.pipeline import config, steps
from rasteret_dask.pipeline.reductions import REDUCTIONS, SLAB, by_rows, extreme_index

SHAPE = (24, 300, 250)


def block() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=SHAPE).astype(np.float32)
    values[rng.random(SHAPE) < 0.3] = np.nan
    values[:, :3, :7] = np.nan
    return values


class Held:
    """An array that Dask does not copy."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]


@pytest.mark.parametrize("how", sorted(REDUCTIONS))
def test_rows_by_rows_give_the_same_bits(how: str) -> None:
    last = np.moveaxis(block(), 0, -1)
    assert last.nbytes > 3 * SLAB
    reduction = partial(REDUCTIONS[how], q=30) if how == "percentile" else REDUCTIONS[how]
    whole, parts = reduction(last), by_rows(reduction, last)
    assert parts.dtype == whole.dtype
    assert parts.tobytes() == whole.tobytes()


STEPS = {
    "mean": {"reduce": {"how": "mean", "dim": "time"}},
    "median": {"reduce": {"how": "median", "dim": "time"}},
    "std": {"reduce": {"how": "std", "dim": "time"}},
    "greenest": {"composite": {"by": "red", "how": "max"}},
}


@pytest.mark.parametrize("name", sorted(STEPS))
def test_beside_its_block_a_step_takes_less_than_another_block(name: str) -> None:
    document = {
        "version": 1,
        "collection": {"load": "c"},
        "cube": {"bands": ["red"]},
        "steps": [STEPS[name]],
        "outputs": [{"zarr": "o.zarr"}],
    }
    todo = config.from_mapping(document).steps
    values = np.concatenate([block()] * 3, axis=1)
    cube = xr.Dataset({"red": (("time", "y", "x"), da.from_array(Held(values), chunks=-1))})
    steps.apply(cube.isel(y=slice(4)), todo).compute(scheduler="synchronous")
    tracemalloc.start()
    try:
        steps.apply(cube, todo).compute(scheduler="synchronous")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.75 * values.nbytes


@pytest.mark.parametrize(("how", "sign"), [("max", 1.0), ("min", -1.0)])
def test_an_infinite_look_is_better_than_none(how: str, sign: float) -> None:
    nan, inf = np.nan, sign * np.inf
    looks = np.array([[nan, -inf, nan], [-inf, nan, -inf], [nan, nan, nan], [nan, sign, inf]])
    index, known = extreme_index(looks.astype(np.float32), how)
    assert index.tolist() == [1, 0, 0, 2]
    assert known.tolist() == [True, True, False, True]
