"""``ds.rasteret``: what a cube will cost, and a quick look at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from dask._task_spec import Alias, DataNode, Task, _execute_subgraph
from dask.array.chunk import getitem
from dask.array.core import getter
from dask.array.optimization import optimize

from rasteret_dask.errors import ArgumentError
from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.plan.costs import BandCost
from rasteret_dask.plan.count import Box, Known, count_plan, count_reads
from rasteret_dask.plan.explain import Explanation
from rasteret_dask.read.graph import BlockRead, plan_of
from rasteret_dask.read.indices import cover


@xr.register_dataset_accessor("rasteret")  # type: ignore[no-untyped-call]  # xarray says none
class RasteretAccessor:
    """Methods of datasets that ``get_xarray`` made.

    Parameters
    ----------
    dataset : xarray.Dataset
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def explain(self) -> Explanation:
        """Say what computing the dataset would fetch, before anything is fetched.

        Raises
        ------
        ArgumentError
            If a variable is more than a read, or a slice of one: what arithmetic needs of its inputs only Dask knows.
        """
        costs: dict[str, BandCost] = {}
        known: Known = {}
        for name, array in self._dataset.data_vars.items():
            if array.chunks is None:
                raise ArgumentError(f"{name!r} is in memory: nothing is left to fetch")
            plan = plan_of(array.data)
            if plan is not None:
                costs[str(name)] = count_plan(plan, known)
            else:
                costs[str(name)] = count_reads(_reads(str(name), array))
        return Explanation(costs)

    def quicklook(
        self,
        rgb: Sequence[str] | None = None,
        *,
        time: int = 0,
        size: int = 512,
        bounds: Any = None,
    ) -> np.ndarray[Any, Any]:
        """Compute a small picture of one time step, thinned to at most ``size`` pixels a side.

        Parameters
        ----------
        rgb : sequence of three str, optional
            Bands for red, green and blue; the first band in grey by default.
        time : int
            Which step, of a dataset that still has several.
        size : int
            Pixels of the longer side at most.
        bounds : (low, high), optional
            What becomes black and white; the 2nd and 98th percentile by default.

        Returns
        -------
        ndarray of uint8, shape (rows, columns, 3)
            Black where there is nothing; ``plt.imshow`` takes it as it is.

        Raises
        ------
        ArgumentError
            `rgb` does not name three bands of the dataset, there is no such step, or `size` is not positive.
        """
        there = [str(name) for name in self._dataset.data_vars]
        bands = list(rgb) if rgb is not None else there[:1] * 3
        if len(bands) != 3:
            raise ArgumentError(f"rgb needs three bands, not {len(bands)}")
        unknown = [band for band in bands if band not in there]
        if unknown:
            raise ArgumentError(f"no band {unknown[0]!r}", hint=f"there are {', '.join(there)}")
        if size < 1:
            raise ArgumentError(f"size is {size}; a positive number of pixels is needed")
        chosen = self._dataset[list(dict.fromkeys(bands))]
        if "time" in chosen.dims:
            steps = chosen.sizes["time"]
            if not -steps <= time < steps:
                raise ArgumentError(f"no step {time}", hint=f"there are {steps}, from 0")
            chosen = chosen.isel(time=time)
        thin = slice(None, None, -(-max(chosen.sizes["y"], chosen.sizes["x"]) // size))
        values = chosen.isel(y=thin, x=thin).compute()
        return np.stack([_stretch(values[band], bounds) for band in bands], axis=-1)


def _stretch(array: xr.DataArray, bounds: Any) -> np.ndarray[Any, Any]:
    values = array.values.astype(np.float64)
    nodata = array.attrs.get("_FillValue")
    if nodata is not None:
        values = np.where(values == nodata, np.nan, values)
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = bounds if bounds is not None else np.percentile(known, [2, 98])
    scaled = (values - low) / max(high - low, 1e-12)
    picture: np.ndarray[Any, Any] = np.nan_to_num(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return picture


def _reads(name: str, array: xr.DataArray) -> Iterator[tuple[ReadPlan, Box]]:
    """Yield every read of a variable's graph with the box that is left of it after its slices."""
    graph = optimize(array.data.dask, array.data.__dask_keys__())
    for task in _tasks(graph.values()):
        if isinstance(task, (Alias, DataNode)):
            continue
        if not isinstance(task, Task) or task.func not in (getter, getitem):
            raise ArgumentError(
                f"{name!r} is no longer a read or a slice of one",
                hint="explain the cube before computing with it, or use Collection.explain",
            )
        block, index = (a.value if isinstance(a, DataNode) else a for a in task.args[:2])
        if isinstance(block, BlockRead):
            (t, y, x, _) = cover(index if isinstance(index, tuple) else (index,), block.shape)
            yield block.plan, (slice(*t), slice(*y), slice(*x))


def _tasks(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Task) and value.func is _execute_subgraph:
            yield from _tasks(value.args[0].values())
        else:
            yield value
