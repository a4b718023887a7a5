"""Tiles that failed: gaps in the result, and rows of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rasteret_dask.errors import RasteretError
from rasteret_dask.grid.tiles import Piece, Window
from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.plan.halo import affected, unmasked
from rasteret_dask.read import ledger
from rasteret_dask.read.engine import Load
from rasteret_dask.read.later import now
from rasteret_dask.read.sparse import sparse_value
from rasteret_dask.read.wanted import TileUse

if TYPE_CHECKING:
    from rasteret_dask.read.tasks import Job


def note_failures(
    plan: ReadPlan, jobs: Sequence[Job], failures: Sequence[tuple[TileUse, RasteretError]]
) -> None:
    """Make holes where tiles are missing, and write them down before anybody sees the result.

    Parameters
    ----------
    plan : ReadPlan
        With a ledger.
    jobs : sequence of Job
        Their pixels and holes are changed in place.
    failures : sequence of (TileUse, RasteretError)

    Raises
    ------
    RasteretError
        A tile failed that the read cannot do without: one of neither pixels nor a mask.
    """
    assert plan.ledger is not None
    by_array = {id(job.pixels): (job, job.holes) for job in jobs}
    by_array |= {
        id(job.mask_pixels): (job, job.mask_holes) for job in jobs if job.mask_pixels is not None
    }
    by_array |= {
        id(job.inner_pixels): (job, job.holes) for job in jobs if job.inner_pixels is not None
    }
    # Bands that are read along, to be valid together, may be resampled in another way.
    methods = {
        id(other): partner.output.method
        for job in jobs
        for partner, same in job.partners
        for other in same
    }
    rows: list[dict[str, Any]] = []
    for use, error in failures:
        for load, piece in use.users:
            assert isinstance(load, Load)
            assert isinstance(piece, Piece)
            found = by_array.get(id(load.out))
            if found is None:  # neither pixels nor a mask that we know how to do without
                raise error
            job, holes = found
            hole = _box(piece)
            holes.append(hole)
            # What lies there is whatever the memory held.
            now(load.out)[hole] = plan.output.gap if job.direct else sparse_value(load.source)
            method = methods.get(id(job), plan.output.method)
            rows.append(_row(plan, job, load, piece, _box_of(job, load, hole, method), use, error))
    ledger.write_part(plan.ledger, rows)


def _box(piece: Piece) -> tuple[slice, slice]:
    h, w = piece.rows[1] - piece.rows[0], piece.cols[1] - piece.cols[0]
    return slice(piece.top, piece.top + h), slice(piece.left, piece.left + w)


def _box_of(job: Job, load: Load, hole: tuple[slice, slice], method: str) -> Window:
    """A window of the cube that holds every pixel that the tile could have changed."""
    window = (hole[0].start, hole[0].stop, hole[1].start, hole[1].stop)
    mask = job.source.mask
    if load.out is job.mask_pixels and mask is not None and job.mask_where is not None:
        window = unmasked(window, mask, job.mask_where, job.where)
    return affected(window, job.source, job.where, method)


def _row(
    plan: ReadPlan,
    job: Job,
    load: Load,
    piece: Piece,
    box: Window,
    use: TileUse,
    error: RasteretError,
) -> dict[str, Any]:
    row0, row1, col0, col1 = box
    return {
        "band": plan.output.band,
        "source_band": load.band,
        "item": load.source.item,
        "url": error.url,
        "level": load.source.level,
        "tile_row": piece.row,
        "tile_col": piece.col,
        "start": use.start,
        "stop": use.stop,
        "error": type(error).__name__,
        "message": error.message,
        "step": plan.first_step + job.source.step,
        "row0": row0,
        "row1": row1,
        "col0": col0,
        "col1": col1,
    }
