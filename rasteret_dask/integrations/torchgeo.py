"""Training straight from a collection: a TorchGeo dataset whose chips need no header.

Needs the extra ``torchgeo``. Works with TorchGeo 0.8 (Python 3.11) and 0.10 (3.12 and later).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torchgeo.datasets import GeoDataset

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import crs_text
from rasteret_dask.grid.tiles import Window
from rasteret_dask.integrations import chipindex
from rasteret_dask.integrations.chipplot import draw
from rasteret_dask.integrations.labels import PolygonLabels
from rasteret_dask.integrations.pairs import Intersection, Union
from rasteret_dask.integrations.tilecache import TileCache
from rasteret_dask.integrations.windows import (
    Chip,
    PixelSize,
    Windows,
    item_spans,
    one_value,
    query_window,
    window_bounds,
)

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection

log = logging.getLogger(__name__)

Sample = dict[str, Any]
Transforms = Callable[[Sample], Sample]

CACHE = 256 * 1024 * 1024
"""Bytes of tiles that each process keeps, unless told otherwise."""

_TENSOR_BOUNDS = hasattr(GeoDataset, "_slice_to_tensor")
"""TorchGeo from 0.9: samples hold tensors alone."""


class CollectionDataset(GeoDataset):
    """The chips of a collection; made by :meth:`rasteret_dask.Collection.to_torchgeo_dataset`.

    Samples have ``image`` (or ``mask``), ``bounds``, ``crs`` or ``transform`` as TorchGeo's own, and ``label`` and ``mask`` where labels
    were given. Several chips asked for at once (``__getitems__``, as a ``DataLoader`` does) are fetched together.

    Parameters
    ----------
    source : chipindex.Source
        Rows and request.
    chip_size : (int, int), optional
        Rows and columns of every chip.
    is_image : bool
    transforms : callable, optional
    label_field : str, optional
        A column of the collection.
    polygons : PolygonLabels, optional
    cache_bytes : int
    """

    def __init__(
        self,
        source: chipindex.Source,
        *,
        chip_size: tuple[int, int] | None = None,
        is_image: bool = True,
        transforms: Transforms | None = None,
        label_field: str | None = None,
        polygons: PolygonLabels | None = None,
        cache_bytes: int = CACHE,
    ) -> None:
        self.paths: list[str] = []
        self.transforms = transforms
        self.is_image = is_image
        self.chip_size = chip_size
        self.label_field = label_field
        self.polygons = polygons
        self.cache = TileCache(cache_bytes)
        self._source = source
        self._spans = item_spans(source.table, source.request.groupby)
        self._labels = chipindex.labels(source.table, label_field)
        self._planned: dict[Any, Any] = {}
        if source.request.grid.crs is None:
            self._source = source.with_crs(self.windows.grid.crs)
        self.index = chipindex.make_index(self._source, self._spans)

    def __getstate__(self) -> dict[str, Any]:
        # Plans are made anew in another process: quicker than to send them.
        return {**self.__dict__, "_planned": {}}

    # --- the grid ------------------------------------------------------------------------------
    @property
    def windows(self) -> Windows:
        """The collection on the dataset's grid."""
        return self._windows(None)

    def _windows(self, resolution: tuple[float, float] | None) -> Windows:
        found: Windows | None = self._planned.get(resolution)
        if found is None:
            request = self._source.request
            if resolution is not None:
                request = replace(request, grid=replace(request.grid, resolution=resolution))
            found = Windows(self._source.table, request, self._spans, self._source.series)
            self._planned[resolution] = found
        return found

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels, as they were asked for."""
        return tuple(asked for asked, _ in self._source.request.bands)

    @property
    def run(self) -> str | None:
        """With ``on_error="record"``: the run's name in the ledger; steps and pixels there are those of ``windows.grid``."""
        ledger = self._source.request.ledger
        return None if ledger is None else ledger.run

    @property
    def crs(self) -> Any:
        """Of the index and of the chips; setting it moves both (``&`` and ``|`` do)."""
        return self.index.crs

    @crs.setter
    def crs(self, new: Any) -> None:
        text = crs_text(new)
        if text == self._source.request.grid.crs:
            return
        log.info("chips are warped to %s", text[:60])
        self._source = self._source.with_crs(text)
        self._planned = {}
        self.index = chipindex.make_index(self._source, self._spans)

    @property
    def res(self) -> PixelSize:
        """Size of a pixel in units of the CRS, ``(x, y)``; setting it resamples (``&`` and ``|`` do)."""
        grid = self.windows.grid
        return PixelSize((grid.xres, grid.yres), (grid.left, grid.top))

    @res.setter
    def res(self, new: float | tuple[float, float]) -> None:
        x, y = new if isinstance(new, (tuple, list)) else (new, new)
        # Another collection's pixels, not only their size, when it is another collection's.
        anchor = getattr(new, "anchor", None)
        if anchor is None:
            if (x, y) == self.res:
                return
            anchor = self._source.request.grid.anchor
        self.on_grid((float(x), float(y)), anchor)

    def on_grid(self, resolution: tuple[float, float], anchor: tuple[float, float] | None) -> None:
        """Take over a resolution and a corner of pixels, so that chips of two datasets lie pixel on pixel."""
        request = self._source.request
        grid = replace(request.grid, resolution=resolution, anchor=anchor)
        self._source = replace(self._source, request=replace(request, grid=grid))
        self._planned = {}

    # --- samples -------------------------------------------------------------------------------
    def __getitem__(self, query: Any, /) -> Sample:
        """Return one chip.

        Parameters
        ----------
        query : slices
            ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax]`` in the dataset's CRS.

        Raises
        ------
        IndexError
            If no item meets it.
        RasteretError
            If it cannot be read, with item, band, URL and tile.
        """
        return self.__getitems__([query])[0]

    def __getitems__(self, queries: Sequence[Any]) -> list[Sample]:
        """Return several chips, whose tiles are fetched together, each once."""
        found = self.samples(queries)
        for query, sample in zip(queries, found):
            if sample is None:
                raise IndexError(f"query: {query} not found in index with bounds: {self.bounds}")
        return found  # type: ignore[return-value]  # None is ruled out above

    def samples(self, queries: Sequence[Any]) -> list[Sample | None]:
        """Return several chips; None for those that no item meets."""
        planned = [self._chip(self._whole(query)) for query in queries]
        chips = [entry[1] for entry in planned if entry is not None]
        arrays = iter(self._read(chips, [entry[0] for entry in planned if entry is not None]))
        out: list[Sample | None] = []
        for entry in planned:
            if entry is None:
                out.append(None)
                continue
            windows, chip, times = entry
            sample = self._sample(windows, chip, next(arrays), times)
            out.append(sample if self.transforms is None else self.transforms(sample))
        return out

    def _read(self, chips: Sequence[Chip], windows: Sequence[Windows]) -> list[Any]:
        # Nearly always one grid; queries with resolutions of their own are read grid by grid.
        arrays: list[Any] = [None] * len(chips)
        for grid in dict.fromkeys(windows):
            numbers = [k for k, w in enumerate(windows) if w is grid]
            for k, array in zip(numbers, grid.read([chips[k] for k in numbers], self.cache)):
                arrays[k] = array
        return arrays

    def _whole(self, query: Any) -> tuple[slice, slice, slice]:
        parts = (query,) if isinstance(query, slice) else tuple(query)
        if len(parts) == 3 and all(p.start is not None and p.stop is not None for p in parts):
            x, y, t = parts
            return x, y, t
        found: tuple[slice, slice, slice] = self._disambiguate_slice(query)
        return found

    def snapped(self, query: Any) -> tuple[slice, slice, slice]:
        """Return a query moved to the pixels that its chip has, for a dataset that is read beside this one."""
        x, y, t = self._whole(query)
        windows, window = self._place(x, y)
        across, down = window_bounds(windows.grid, window)
        return slice(*across, x.step), slice(*down, y.step), t

    def _place(self, x: slice, y: slice) -> tuple[Windows, Window]:
        own = self.res
        step = (own[0] if x.step is None else x.step, own[1] if y.step is None else y.step)
        near = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(step, own))
        windows = self.windows if near else self._windows((float(step[0]), float(step[1])))
        return windows, query_window(windows.grid, x, y, self.chip_size)

    def _chip(self, query: tuple[slice, slice, slice]) -> tuple[Windows, Chip, slice] | None:
        x, y, t = query
        if t.step not in (None, 1):
            raise ArgumentError(f"a query has a step of {t.step} in time; chips take every date")
        windows, window = self._place(x, y)
        first, last = (pd.Timestamp(v).value for v in (t.start, t.stop))
        chip = windows.chip(window, first, last)
        return None if chip is None else (windows, chip, t)

    def _sample(self, windows: Windows, chip: Chip, array: Any, t: slice) -> Sample:
        grid = windows.grid
        (left, right), (bottom, top) = window_bounds(grid, chip.window)
        x, y = slice(left, right, grid.xres), slice(bottom, top, grid.yres)
        sample: Sample
        if _TENSOR_BOUNDS:
            affine = (grid.xres, 0.0, left, 0.0, -grid.yres, top, 0.0, 0.0, 1.0)
            sample = {"bounds": self._slice_to_tensor((x, y, t)), "transform": torch.tensor(affine)}
        else:
            sample = {"crs": self.crs, "bounds": (x, y, t)}
        pixels = torch.from_numpy(array)
        if self.is_image:
            sample["image"] = pixels
        else:
            sample["mask"] = pixels.squeeze(-3) if len(self.bands) == 1 else pixels
        if self._source.series:
            sample["time"] = torch.from_numpy(chip.times.astype("datetime64[ns]").astype(np.int64))
        if self.polygons is not None:
            painter = self._planned.get(grid)
            if painter is None:
                painter = self._planned[grid] = self.polygons.on(grid)
            sample["mask"] = torch.from_numpy(painter.paint(chip.window))
        if self.label_field is not None:
            value = one_value([self._labels[item] for item in chip.items], self.label_field)
            sample["label"] = value if isinstance(value, str) else torch.tensor(value)
        return sample

    # --- with others ---------------------------------------------------------------------------
    def __and__(self, other: Any) -> Intersection:
        """Return chips of both where both are; another collection is read on this one's grid, pixel on pixel."""
        return Intersection(self, other)

    def __or__(self, other: Any) -> Union:
        """Return chips of this one, completed by the other."""
        return Union(self, other)

    def plot(
        self, sample: Mapping[str, Any], show_titles: bool = True, suptitle: str | None = None
    ) -> Any:
        """Draw a sample: its image (the first date of a series) and its mask.

        Returns
        -------
        matplotlib.figure.Figure
        """
        rgb = chipindex.rgb(self._source)
        gaps = [plan.output.fill for plan in self.windows.bands]
        return draw(sample, rgb, gaps, show_titles, suptitle)


def to_torchgeo_dataset(
    collection: Collection,
    bands: Sequence[str] | str | None = None,
    *,
    chip_size: int | tuple[int, int] | None = None,
    time_series: bool = False,
    label_field: str | None = None,
    split: str | Sequence[str] | None = None,
    split_column: str = "split",
    geometries: Any = None,
    geometry_crs: Any = None,
    all_touched: bool = False,
    background: float | int = 0,
    target_crs: Any = None,
    resolution: float | tuple[float, float] | None = None,
    allow_resample: bool = False,
    is_image: bool = True,
    transforms: Transforms | None = None,
    cache_bytes: int = CACHE,
    **options: Any,
) -> CollectionDataset:
    """Return the dataset; see :meth:`rasteret_dask.Collection.to_torchgeo_dataset`.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str, optional
        Channels, in this order; all by default.
    chip_size : int or (rows, columns), optional
        Pixels of every chip, about the middle of what is queried; otherwise a query says how large it is.
    time_series : bool
        ``[T, C, H, W]``, one step for each date (``groupby=``) on which an item meets the chip, and ``time`` in nanoseconds since 1970.
        Otherwise ``[C, H, W]``: the items that the query's time meets become one image, the first valid pixel in the order of time and id.
    label_field : str, optional
        A column of ``geometries``: its values are painted into ``mask``. Else a column of the collection: it becomes ``label``.
    split, split_column : optional
        Rows of a split.
    geometries, geometry_crs : optional
        Where chips are drawn from.
    all_touched, background : optional
        How polygons are painted, and what is where there is none.
    target_crs : optional
        Of the chips. Needed when the items' CRSs differ; ``"native"`` takes the most frequent.
    resolution : float or (x, y), optional
        In units of the CRS.
    allow_resample : bool
        Whether bands or items of different resolution may be brought to the finest one.
    is_image : bool
        ``image``; otherwise ``mask``, without channels when there is one band.
    transforms : callable, optional
        Of each sample.
    cache_bytes : int
        Tiles kept by each process; 0 keeps none.
    **options
        Of :meth:`~rasteret_dask.Collection.get_xarray`: ``groupby``, ``mosaic``, ``sortby``, ``resampling``, ``overviews``, ``dtype``,
        ``masked``, ``scale``, ``harmonize``, ``mask``, ``nodata``, ``fill_value``, ``missing``, ``storage``, ``on_error`` and
        ``ledger``. Others are filters of ``subset``.

    Raises
    ------
    ArgumentError
        If CRSs or resolutions differ and nothing says what to do about it, or ``label_field`` is no column.
    """
    if isinstance(chip_size, int):
        chip_size = (chip_size, chip_size)
    if chip_size is not None and min(chip_size) < 1:
        raise ArgumentError(f"chip_size is {chip_size}; it must be positive")
    if split is not None:
        collection = collection.select_split(split, split_column)
    areas, polygons, column = chipindex.labelled(
        collection, label_field, geometries, geometry_crs, all_touched, background
    )
    source = chipindex.make_source(
        collection,
        bands,
        areas=areas,
        one_area=polygons is not None,
        crs=target_crs,
        resolution=resolution,
        allow_resample=allow_resample,
        series=time_series,
        label=column,
        options=options,
    )
    return CollectionDataset(
        source,
        chip_size=chip_size,
        is_image=is_image,
        transforms=transforms,
        label_field=column,
        polygons=polygons,
        cache_bytes=cache_bytes,
    )
