"""Any window of a collection's common grid, many at a time: what chips for training are read from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rasteret_dask.errors import ArgumentError, NodataError
from rasteret_dask.grid.geobox import TOLERANCE, Grid
from rasteret_dask.grid.tiles import Window
from rasteret_dask.grid.warp import AxisMap
from rasteret_dask.index import schema
from rasteret_dask.integrations.tilecache import Failure, TileCache
from rasteret_dask.plan.chunks import BandPlan, ReadPlan
from rasteret_dask.plan.steps import TimeSteps
from rasteret_dask.read.cube import CubePlan, plan_cube
from rasteret_dask.read.engine import Load
from rasteret_dask.read.grouping import item_times, make_steps, together
from rasteret_dask.read.holes import note_failures
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.read.tasks import Job, fuse, loads_of, plan_jobs

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_CHUNK = 2048
"""Of the plan, in pixels; it only bounds how many coordinates are computed at once, as chips cut their own windows."""


class PixelSize(tuple[float, float]):
    """The size of a grid's pixels that remembers where they lie.

    TorchGeo brings two datasets together by ``second.res = first.res``, and size alone would leave them up to half a pixel apart.

    Parameters
    ----------
    values : (x, y)
    anchor : (x, y)
        A corner of a pixel.
    """

    anchor: tuple[float, float]

    def __new__(cls, values: Sequence[float], anchor: tuple[float, float]) -> PixelSize:
        """Make one."""
        made = super().__new__(cls, values)
        made.anchor = anchor
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.anchor


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One window and some time, planned.

    Parameters
    ----------
    window : tuple of int
        ``(row0, row1, col0, col1)`` of the grid; it may overhang.
    plans : tuple of ReadPlan
        One for each band.
    items : tuple of str
        Whose pixels may be in it.
    times : ndarray of datetime64[ns], shape (steps,)
        Labels of the time steps; empty without a time axis.
    steps : ndarray of int64
        Which steps of the collection the chip's are.
    """

    window: Window
    plans: tuple[ReadPlan, ...]
    items: tuple[str, ...]
    times: npt.NDArray[np.datetime64]
    steps: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """When each item counts as taken: the span of its time step.

    Parameters
    ----------
    first, last : ndarray of int64, shape (items,)
        Nanoseconds since 1970, both inclusive.
    """

    first: Ints
    last: Ints


def item_spans(table: pa.Table, groupby: Any) -> Spans:
    """Return each item's span, of its moment and its interval as a search for dates takes them; items of one time step share theirs."""
    steps: TimeSteps = make_steps(table, groupby)
    moments = item_times(table).astype("datetime64[ns]")
    # A map of a year has a moment too, which is that of its beginning; fmin and fmax pass over what is not told.
    starts = np.fmin(moments, _told(table, schema.START)).astype(np.int64)
    ends = np.fmax(moments, _told(table, schema.END)).astype(np.int64)
    first = np.full(len(steps), np.iinfo(np.int64).max)
    last = np.full(len(steps), np.iinfo(np.int64).min)
    np.minimum.at(first, steps.steps, starts)
    np.maximum.at(last, steps.steps, ends)
    return Spans(first[steps.steps], last[steps.steps])


def _told(table: pa.Table, name: str) -> npt.NDArray[np.datetime64]:
    if name not in table.column_names:
        return np.full(len(table), "NaT", dtype="datetime64[ns]")
    values: npt.NDArray[np.datetime64] = table.column(name).to_numpy(zero_copy_only=False)
    return values.astype("datetime64[ns]")


class Windows:
    """A collection on one grid, from which chips are cut.

    Parameters
    ----------
    table : pyarrow.Table
        Rows with the columns that a cube needs.
    request : CubeRequest
    spans : Spans
        Of the table's rows.
    series : bool
        Keep time steps apart; otherwise everything that a chip meets becomes one mosaic.
    """

    def __init__(self, table: pa.Table, request: CubeRequest, spans: Spans, series: bool) -> None:
        asked = replace(
            request,
            chunks={"time": -1, "y": _CHUNK, "x": _CHUNK},
            groupby=request.groupby if series else together,
        )
        self.cube: CubePlan = plan_cube(table, asked)
        self.grid: Grid = self.cube.grid
        self.series = series
        self.bands: tuple[BandPlan, ...] = tuple(self.cube.bands.values())
        self.dtype: np.dtype[Any] = np.result_type(*(plan.output.dtype for plan in self.bands))
        rows = {item: k for k, item in enumerate(table.column(schema.ID).to_pylist())}
        numbers = [np.array([rows[i] for i in p.table.items], dtype=np.int64) for p in self.bands]
        self._spans = [Spans(spans.first[n], spans.last[n]) for n in numbers]

    def chip(self, window: Window, first: int, last: int) -> Chip | None:
        """Plan a chip; None when no item meets it.

        Parameters
        ----------
        window : tuple of int
        first, last : int
            Nanoseconds since 1970, both inclusive.

        Raises
        ------
        NodataError
            If a part of it has no source and nothing says what to write there.
        """
        hits = [
            _hits(plan, spans, window, first, last) for plan, spans in zip(self.bands, self._spans)
        ]
        if not any(len(h) for h in hits):
            return None
        seen = np.unique(np.concatenate([p.table.steps[h] for p, h in zip(self.bands, hits)]))
        count = len(seen) if self.series else 1
        plans = []
        for plan, rows in zip(self.bands, hits):
            steps = np.searchsorted(seen, plan.table.steps[rows]) if self.series else rows * 0
            plans.append(cut(plan, rows, steps, count, window))
        items = dict.fromkeys(s.item for plan in plans for s in plan.sources)
        if not items:
            return None
        times = self.cube.items.steps.labels[seen] if self.series else np.zeros(0, "datetime64[ns]")
        return Chip(window, tuple(plans), tuple(items), times, seen)

    def read(self, chips: Sequence[Chip], cache: TileCache) -> list[Array]:
        """Read chips together: all their tiles are under way at once, and each is decoded once.

        Returns
        -------
        list of ndarray
            ``[C, H, W]``, or ``[T, C, H, W]`` for a series.
        """
        arrays: list[Array] = []
        open_: list[tuple[ReadPlan, list[Job], Array, Window]] = []
        later: list[tuple[Array, Array]] = []
        loads: list[Load] = []
        for chip in chips:
            steps, height, width = chip.plans[0].shape
            array = np.empty((steps, len(chip.plans), height, width), dtype=self.dtype)
            arrays.append(array if self.series else array[0])
            for number, plan in enumerate(chip.plans):
                out = array[:, number]
                if plan.output.dtype != self.dtype.name:
                    out = np.empty(plan.shape, dtype=plan.output.dtype)
                    later.append((array[:, number], out))
                out[...] = plan.output.gap
                jobs = plan_jobs(plan, out, chip.window, range(steps))
                loads += [load for job in jobs for load in loads_of(plan, job)]
                open_.append((plan, jobs, out, chip.window))
        recording = self.bands[0].ledger is not None
        failures = cache.load(loads, self.bands[0].storage, recording=recording)
        if failures:
            for chip, plans in zip(chips, _by_chip(open_, len(self.bands))):
                self._note(chip, plans, failures)
        for plan, jobs, out, window in open_:
            fuse(plan, jobs, out, window, 0)
        for target, found in later:
            target[...] = found
        return arrays

    def _note(
        self,
        chip: Chip,
        plans: Sequence[tuple[ReadPlan, list[Job], Array, Window]],
        failures: Sequence[Failure],
    ) -> None:
        """Write down what a chip lacks, by the steps of the cube that the dataset's grid and dates make."""
        for plan, jobs, _, _ in plans:
            for step in range(plan.shape[0]):
                own = [job for job in jobs if job.source.step == step]
                filled = [(job.pixels, job.mask_pixels, job.inner_pixels) for job in own]
                arrays = {id(array) for found in filled for array in found if array is not None}
                lost = [
                    (replace(use, users=users), error)
                    for use, error in failures
                    if (users := [u for u in use.users if id(getattr(u[0], "out", None)) in arrays])
                ]
                if lost:
                    real = int(chip.steps[step]) if self.series else 0
                    note_failures(replace(plan, first_step=real - step), own, lost)


def _by_chip(flat: Sequence[Any], bands: int) -> list[Sequence[Any]]:
    return [flat[k : k + bands] for k in range(0, len(flat), bands)]


def _hits(plan: BandPlan, spans: Spans, window: Window, first: int, last: int) -> Ints:
    w = plan.table.windows
    hit = (w[:, 0] < window[1]) & (w[:, 1] > window[0]) & (w[:, 2] < window[3])
    hit &= (w[:, 3] > window[2]) & (spans.first <= last) & (spans.last >= first)
    return np.flatnonzero(hit)


def query_window(grid: Grid, x: slice, y: slice, size: tuple[int, int] | None) -> Window:
    """Return the pixels of a query: each takes the value of the source pixel in which its centre falls.

    Parameters
    ----------
    grid : Grid
    x, y : slice
        From left to right and from bottom to top, in the grid's CRS.
    size : (rows, columns), optional
        About the middle of the query; otherwise what the query measures, rounded.
    """
    height, width = size or (
        max(1, round((y.stop - y.start) / grid.yres)),
        max(1, round((x.stop - x.start) / grid.xres)),
    )
    middle = (
        (grid.top - (y.start + y.stop) / 2) / grid.yres,
        ((x.start + x.stop) / 2 - grid.left) / grid.xres,
    )
    r0, c0 = (
        math.floor(m - count / 2 + 0.5 + TOLERANCE) for m, count in zip(middle, (height, width))
    )
    return r0, r0 + height, c0, c0 + width


def window_bounds(grid: Grid, window: Window) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a window lies: left and right, bottom and top."""
    r0, r1, c0, c1 = window
    left, top = grid.left + c0 * grid.xres, grid.top - r0 * grid.yres
    return (left, left + (c1 - c0) * grid.xres), (top - (r1 - r0) * grid.yres, top)


def cut(plan: BandPlan, rows: Ints, steps: Ints, count: int, window: Window) -> ReadPlan:
    """Return the plan of one window of one band.

    Parameters
    ----------
    plan : BandPlan
    rows : ndarray of int64, shape (n,)
        Sources that meet the window.
    steps : ndarray of int64, shape (n,)
        The time step of each within the chip.
    count : int
        Time steps of the chip.
    window : tuple of int

    Raises
    ------
    NodataError
        If a part has no source and nothing says what to write there.
    """
    table = plan.table
    sources = []
    for k, step in zip(rows.tolist(), steps.tolist()):
        w = table.windows[k].tolist()
        part = (
            max(w[0], window[0]),
            min(w[1], window[1]),
            max(w[2], window[2]),
            min(w[3], window[3]),
        )
        found = plan.source(k, step, part, None)
        if found is not None:
            sources.append(found)
    r0, r1, c0, c1 = window
    shape = (count, r1 - r0, c1 - c0)
    if plan.output.fill is None:
        _check_whole(plan, sources, shape, window)
    return ReadPlan(
        shape,
        (r0, c0),
        tuple(sources),
        plan.output,
        plan.storage,
        plan.mask,
        ledger=plan.ledger,
    )


def _check_whole(
    plan: BandPlan, sources: Sequence[Any], shape: tuple[int, int, int], window: Window
) -> None:
    covered = np.zeros(shape, dtype=bool)
    for source in sources:
        if isinstance(source.map, AxisMap):
            r0, r1, c0, c1 = source.window
            top, left = window[0], window[2]
            covered[source.step, r0 - top : r1 - top, c0 - left : c1 - left] = True
    if not covered.all():
        raise NodataError(
            "a chip has pixels that no item covers, and neither the files nor the caller name a nodata value",
            band=plan.output.band,
            hint="give fill_value=, or masked=True for NaN",
        )


def one_value(values: Sequence[Any], name: str) -> Any:
    """Return what all of them are.

    Raises
    ------
    ArgumentError
        If they differ.
    """
    found = list(dict.fromkeys(values))
    if len(found) != 1:
        raise ArgumentError(
            f"a chip meets items whose {name!r} differs ({', '.join(map(repr, found[:4]))})",
            hint="sample chips from single items (smaller, or one date at a time), or clean the column",
        )
    return found[0]
