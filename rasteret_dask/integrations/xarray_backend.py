"""``xr.open_dataset(path, engine="rasteret_dask", bands=…, bbox=…)``: a collection as any other file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from rasteret_dask.api import load
from rasteret_dask.errors import ArgumentError
from rasteret_dask.facade.reads import CUBE_OPTIONS, prepare_cube
from rasteret_dask.plan.chunks import BandPlan
from rasteret_dask.read.assemble import assemble
from rasteret_dask.read.cube import plan_cube
from rasteret_dask.read.indices import cover, pick
from rasteret_dask.read.tasks import Reading


class PlannedArray(BackendArray):
    """An array that fetches what it is indexed with; xarray wraps it, lazily, in whatever was asked for.

    Parameters
    ----------
    plan : BandPlan
    """

    def __init__(self, plan: BandPlan) -> None:
        self.plan = plan
        t, y, x = (sum(c) for c in plan.chunks)
        self.shape = (t, y, x)
        self.dtype = np.dtype(plan.output.dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, index: tuple[Any, ...]) -> Any:
        t, y, x, rest = cover(index, self.shape)
        whole = tuple(slice(None) for _ in range(3))
        if any(low >= high for low, high in (t, y, x)):
            sizes = [high - low for low, high in (t, y, x)]
            return pick(np.zeros(sizes, dtype=self.dtype), rest)
        plan = self.plan.window(*(slice(low, high) for low, high in (t, y, x)))
        return pick(Reading(plan, whole).finish(), rest)


class RasteretBackend(BackendEntrypoint):
    """Open a collection as a lazy cube.

    Every argument of :meth:`rasteret_dask.Collection.get_xarray` but ``chunks`` may be given; ``chunks`` is xarray's own, and ``chunks={}``
    takes the chunks that ``get_xarray`` would. Keys of chunks follow the path and the arguments: what is persisted of a collection stays
    what it was when the collection grows.
    """

    description: ClassVar[str] = "Lazy cubes from rasteret collections"
    url: ClassVar[str] = "https://rasteret-dask.readthedocs.io"
    # xarray would look at the signature and refuse its **more.
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "geometries",
        "bands",
        "bbox",
        "geometry_crs",
        "options",
        *sorted(CUBE_OPTIONS - {"chunks"}),
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        geometries: Any = None,
        bands: Any = None,
        bbox: Any = None,
        geometry_crs: Any = None,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> xr.Dataset:
        """Plan the cube; nothing is fetched.

        Parameters
        ----------
        filename_or_obj : str
            URL or path of a collection, or a dataset id.
        drop_variables : str or sequence of str, optional
            Bands to leave out.
        geometries, bands, bbox, geometry_crs
            As in ``get_xarray``.
        options : dict, optional
            The other arguments of ``get_xarray``; they may be given by name as well.

        Raises
        ------
        ArgumentError
            Failed reads are to be recorded: xarray names the arrays by the path and these arguments alone, so that a hole which is held on
            a cluster would be taken for an equal read.
        """
        given = {**(options or {}), **more}
        if given.get("on_error", "raise") != "raise" or given.get("ledger") is not None:
            raise ArgumentError(
                "xarray's engine cannot record reads that fail",
                hint="open the collection with rasteret_dask.load, and use get_xarray",
            )
        collection = load(os.fspath(filename_or_obj))
        bands = [bands] if isinstance(bands, str) else bands
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        names = [b for b in (bands or collection.bands) if b not in dropped]
        table, request = prepare_cube(collection, geometries, names, bbox, geometry_crs, given)
        plan = plan_cube(table, request)
        arrays = {
            asked: indexing.LazilyIndexedArray(PlannedArray(band))
            for asked, band in plan.bands.items()
        }
        dataset = assemble(
            plan.items, plan.grid, arrays, plan.nodata, request, plan.levels, plan.source_crs
        )
        for asked, band in plan.bands.items():
            chunks = dict(zip(("time", "y", "x"), band.chunks))
            dataset[asked].encoding["preferred_chunks"] = chunks
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it looks like a collection."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        return os.path.isdir(os.path.join(os.fspath(filename_or_obj), "_rasteret"))
