"""What a worker runs: one plan and one index in, one array out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError, NodataError
from rasteret_dask.grid.kernels import resample
from rasteret_dask.grid.mosaic import Layer, merge, place_first
from rasteret_dask.grid.radiometry import DECODERS, convert, valid_pixels
from rasteret_dask.grid.shapes import outside
from rasteret_dask.grid.tiles import Window
from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.plan.resolve import (
    Coordinates,
    Resolved,
    inner_needs,
    mask_window,
    needed_pieces,
    resolve,
)
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.doubt import check_offset
from rasteret_dask.read.early import fill_in_turn
from rasteret_dask.read.engine import Load, Loading
from rasteret_dask.read.holes import note_failures
from rasteret_dask.read.indices import cover, pick
from rasteret_dask.read.later import Later, Place, now, part
from rasteret_dask.read.together import join, others, valid_in_all
from rasteret_dask.storage.urls import public
from rasteret_dask.tiff.held import holds

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One source of one task: where its pixels are read to, where they go, and the boxes (rows, columns) of both that could not be read;
    and the same item in the bands that it must be valid in as well."""

    source: SourceRead
    where: Resolved
    pixels: Place
    direct: bool
    mask_where: Resolved | None = None
    mask_pixels: Place | None = None
    inner_pixels: Place | None = None
    holes: list[tuple[slice, slice]] = field(default_factory=list)
    mask_holes: list[tuple[slice, slice]] = field(default_factory=list)
    partners: list[tuple[ReadPlan, list[Job]]] = field(default_factory=list)


class Reading:
    """A window of a chunk whose bytes are on their way.

    Parameters
    ----------
    plan : ReadPlan
    index : tuple of int, slice or sequence of int
        As NumPy takes it, for ``(time, y, x)`` of the chunk; only what it covers is fetched.
    ahead : bool
        Nobody waits for it yet (see :class:`~rasteret_dask.read.engine.Loading`).
    out : ndarray, optional
        Where the pixels go, of what the index covers; an array of its own by default.
    """

    def __init__(
        self,
        plan: ReadPlan,
        index: tuple[Any, ...],
        *,
        ahead: bool = False,
        out: Array | None = None,
    ) -> None:
        (t0, t1), (r0, r1), (c0, c1), self._rest = cover(index, plan.shape)
        self._plan = plan
        self._first = t0
        top, left = plan.origin
        self._window = (top + r0, top + r1, left + c0, left + c1)
        shape = (max(0, t1 - t0), max(0, r1 - r0), max(0, c1 - c0))
        self._out = Later.empty(shape, plan.output.dtype) if out is None else out
        self._jobs: list[Job] = []
        if 0 not in shape:
            self._jobs = plan_jobs(plan, self._out, self._window, range(t0, t1))
        # With early exit nothing is fetched before it is known to be needed.
        self._early = plan.output.early and plan.output.mosaic in ("first", "last")
        jobs = [] if self._early else self._jobs
        loads = [load for job in jobs for load in loads_of(plan, job)]
        recording = plan.ledger is not None
        self._loading = Loading(loads, plan.storage, ahead=ahead, recording=recording)

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as that is known."""
        return self._loading.size

    def begin(self) -> None:
        """Say that somebody waits from now on."""
        self._loading.begin()

    def finish(self) -> Array:
        """Return the window.

        Returns
        -------
        ndarray
            Of ``plan.output.dtype``.

        Raises
        ------
        RasteretError
            If a byte cannot be had or a tile not be decoded, with item, band, URL and tile.
        """
        self.begin()
        plan, out = self._plan, now(self._out)
        self._fill(out)
        if not self._early:
            _make_arrays([*self._jobs, *others(self._jobs)])
        self._loading.finish()
        if self._loading.failures:
            note_failures(plan, [*self._jobs, *others(self._jobs)], self._loading.failures)
        if self._early:
            layer = partial(_layer, plan, window=self._window)
            fill_in_turn(plan, self._jobs, out, self._first, loads_of, layer)
        else:
            fuse(plan, self._jobs, out, self._window, self._first)
        if plan.shapes is not None and out.size:
            out[:, outside(plan.shapes, self._window, plan.all_touched)] = plan.output.gap
        return pick(out, self._rest)

    def _fill(self, out: Array) -> None:
        """Write where no source may write. It touches every page; a step that one source covers whole is written by its tiles."""
        whole = {j.source.step for j in self._jobs if j.direct and j.where.target == self._window}
        for k in range(len(out)):
            if self._first + k not in whole:
                out[k] = self._plan.output.gap

    def close(self) -> None:
        """Give it up."""
        self._loading.close()


def plan_jobs(plan: ReadPlan, out: Place | None, window: Window, steps: range) -> list[Job]:
    """Resolve the sources of a window, and decide for each whether it decodes straight into the result, if there is one.

    The others decode into arrays that are made then.
    """
    cache = Coordinates()
    found: dict[int, list[tuple[SourceRead, Resolved]]] = {}
    for source in plan.sources:
        if source.step in steps:
            where = resolve(source, window, cache, plan.output.method)
            if where is not None:
                found.setdefault(source.step, []).append((source, where))
    jobs = []
    for step, group in found.items():
        for number, (source, where) in enumerate(group):
            # By number: sources that lie alike share what is resolved.
            rivals = [other for k, (_, other) in enumerate(group) if k != number]
            alone = not any(_meet(where.target, other.target) for other in rivals)
            place = None
            if out is not None and alone and _is_plain(plan, source, where):
                r0, r1, c0, c1 = where.target
                rows = slice(r0 - window[0], r1 - window[0])
                place = part(out, (step - steps.start, rows, slice(c0 - window[2], c1 - window[2])))
            jobs.append(_job(source, where, place))
    for partner in plan.partners:
        join(jobs, partner, plan_jobs(partner, None, window, steps))
    return jobs


def _job(source: SourceRead, where: Resolved, place: Place | None) -> Job:
    """Return what is read of a source: into `place`, or into an array of its own."""
    pixels = _buffer(source, where) if place is None else place
    mask_where = mask_window(source, where)
    mask_pixels = None
    if source.mask is not None and mask_where is not None:
        mask_pixels = _buffer(source.mask, mask_where)
    inner_pixels = None if source.inner is None else _buffer(source.inner, where)
    return Job(source, where, pixels, place is not None, mask_where, mask_pixels, inner_pixels)


def _make_arrays(jobs: Sequence[Job]) -> None:
    """Make the arrays that jobs are read into, in this thread.

    Made by the threads that help it, where they decode first, they leave what they took to the memory of each: 16 MiB more a worker.
    """
    for job in jobs:
        for place in (job.pixels, job.mask_pixels, job.inner_pixels):
            if place is not None:
                now(place)


_KEEPS_ONE = frozenset(("first", "last", "min", "max", "mean", "median"))
"""Mosaics that give a single source's pixel as it is; a count does not, nor need a caller's own function."""


def _is_plain(plan: ReadPlan, source: SourceRead, where: Resolved) -> bool:
    """Whether the source's pixels are the output's pixels as they stand."""
    output = plan.output
    if output.mosaic not in _KEEPS_ONE:
        return False
    if (
        not where.direct
        or plan.mask is not None
        or plan.partners
        or source.inner is not None
        or source.layout.dtype != output.dtype
    ):
        return False
    if output.decode is not None:
        return False
    if output.scaled and (source.scale != 1.0 or source.add != 0.0):
        return False
    if np.dtype(output.dtype).kind in "fc":
        # NaN is nodata in floats, said or not, and must become the output's nodata: only where that is NaN as well is nothing to do.
        return output.gap != output.gap and (
            source.nodata is None or source.nodata != source.nodata
        )
    return source.nodata is None or source.nodata == output.fill


def _meet(a: Window, b: Window) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _buffer(source: SourceRead, where: Resolved) -> Later:
    r0, r1, c0, c1 = where.pixels
    return Later.empty((r1 - r0, c1 - c0), source.layout.dtype)


def loads_of(plan: ReadPlan, job: Job) -> Sequence[Load]:
    """Return what a job reads: its source's pixels, and those of the mask."""
    loads = [Load(job.source, needed_pieces(job.source, job.where), job.pixels, plan.output.band)]
    if job.source.mask is not None and job.mask_where is not None and job.mask_pixels is not None:
        assert plan.mask is not None
        mask_pieces = needed_pieces(job.source.mask, job.mask_where)
        loads.append(Load(job.source.mask, mask_pieces, job.mask_pixels, plan.mask.band))
    if job.source.inner is not None and job.inner_pixels is not None:
        inner_pieces = inner_needs(job.source, job.where)
        loads.append(Load(job.source.inner, inner_pieces, job.inner_pixels, plan.output.band))
    for partner, same in job.partners:
        loads += [load for other in same for load in loads_of(partner, other)]
    return loads


def fuse(plan: ReadPlan, jobs: Sequence[Job], out: Array, window: Window, first: int) -> None:
    """Put what was read into the result: mask, then warp, then the first valid pixel in the order of the sources."""
    by_step: dict[int, list[Job]] = {}
    for job in jobs:
        if not job.direct:
            by_step.setdefault(job.source.step, []).append(job)
    mosaic = plan.output.mosaic
    for step, group in by_step.items():
        target = out[step - first]
        layers = (_layer(plan, job, window) for job in group)
        if mosaic not in ("first", "last"):
            merge(target, list(layers), mosaic)
            continue
        filled = np.zeros(target.shape, dtype=bool) if len(group) > 1 else None
        for box, values, valid in layers:
            place_first(target[box], None if filled is None else filled[box], values, valid)


def _layer(plan: ReadPlan, job: Job, window: Window) -> Layer:
    values, valid = warped(plan, job)
    valid = valid_in_all(job, valid, warped)
    r0, r1, c0, c1 = job.where.target
    box = (slice(r0 - window[0], r1 - window[0]), slice(c0 - window[2], c1 - window[2]))
    if plan.output.mosaic == "count":
        return box, values, valid
    return box, _converted(plan, job.source, values, valid), valid


def _converted(
    plan: ReadPlan, source: SourceRead, values: Array, valid: npt.NDArray[np.bool_] | None
) -> Array:
    """Return a source's values in the output's type and scale.

    Raises
    ------
    ArgumentError, NodataError
        If a valid value does not fit the type, or would read as nodata in the output though its own file calls another value so.
    """
    output = plan.output
    where = {"item": source.item, "band": output.band, "url": public(source.url)}
    scale, add = (source.scale, source.add) if output.scaled else (1.0, 0.0)
    try:
        out = convert(values, np.dtype(output.dtype), scale, add, valid)
    except ArgumentError as error:
        raise error.located(**where) from None
    fill = output.fill
    if fill is None or fill != fill or source.nodata is None:
        return out
    if source.nodata == fill and scale == 1.0 and add == 0.0:
        return out
    lost = out == fill
    if valid is not None:
        lost &= valid
    if lost.any():
        raise NodataError(
            f"a valid pixel holds {fill}, which is nodata in the cube; its own file's nodata is {source.nodata}",
            hint="give fill_value= a value that no pixel has, or masked=True for NaN",
        ).located(**where)
    return out


def warped(plan: ReadPlan, job: Job) -> tuple[Array, npt.NDArray[np.bool_] | None]:
    """Return a source's values and their validity on the output pixels of its target window."""
    pixels = now(job.pixels)
    valid = valid_pixels(pixels, job.source.nodata)
    if job.holes and valid is None:
        valid = np.ones(pixels.shape, dtype=bool)
    for hole in job.holes:
        assert valid is not None
        valid[hole] = False
    if job.inner_pixels is not None:
        shown = now(job.inner_pixels) != 0
        valid = shown if valid is None else valid & shown
    if plan.output.doubted:
        check_offset(job.source, plan.output.band, pixels, valid)
    if plan.mask is not None:
        kept = _kept(plan, job)
        valid = kept if valid is None else valid & kept
    where = job.where
    if plan.output.decode is not None:
        pixels = DECODERS[plan.output.decode](pixels)
    if where.direct:
        return pixels, valid
    if where.samples is not None:
        found, good = resample(
            pixels, valid, where.samples, plan.output.method, job.source.map.ratio
        )
        return _rounded(found, pixels.dtype, job.source.nodata), good
    index = np.ix_(where.rows, where.cols) if where.rows.ndim == 1 else (where.rows, where.cols)
    values = pixels[index]
    taken = None if valid is None else valid[index]
    if where.inside is not None:
        taken = where.inside if taken is None else taken & where.inside
    return values, taken


def _rounded(values: Array, dtype: np.dtype[Any], nodata: float | int | None) -> Array:
    """Bring weighed values back to the source's type: rounded, clipped where a cubic overshoots, and never by accident the nodata value."""
    if values.dtype == dtype or dtype.kind in "fc":
        return values.astype(dtype, copy=False)
    info = np.iinfo(dtype)
    out = np.clip(np.rint(values), info.min, info.max).astype(dtype)
    if nodata is not None and holds(dtype.name, nodata):
        # As GDAL: one away from it.
        out[out == nodata] = nodata - 1 if nodata == info.max else nodata + 1
    return out


def _kept(plan: ReadPlan, job: Job) -> npt.NDArray[np.bool_]:
    """Return which source pixels the mask keeps; what the mask does not cover is not kept."""
    assert plan.mask is not None
    r0, r1, c0, c1 = job.where.pixels
    kept = np.zeros((r1 - r0, c1 - c0), dtype=bool)
    if job.mask_where is None or job.mask_pixels is None or job.source.mask is None:
        return kept
    mask = job.source.mask
    classes = plan.mask.apply(now(job.mask_pixels), mask.nodata, mask.radius)
    for rows, cols in job.mask_holes:
        # What is not known is as bad as what is dropped, and reaches as far.
        down, across = (math.ceil(r) for r in mask.radius)
        classes[
            max(0, rows.start - down) : rows.stop + down,
            max(0, cols.start - across) : cols.stop + across,
        ] = False
    where = job.mask_where
    r0, r1, c0, c1 = where.target
    top, left = job.where.pixels[0], job.where.pixels[2]
    kept[r0 - top : r1 - top, c0 - left : c1 - left] = classes[np.ix_(where.rows, where.cols)]
    return kept
