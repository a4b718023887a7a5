"""Values of single pixels under points: each tile is fetched and decoded once for all the points in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.given import Points
from rasteret_dask.grid.tiles import TileRect
from rasteret_dask.index import schema
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.layout import TILES
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.plan.table import RawSources, own_read
from rasteret_dask.read.around import around, is_nodata, nearest_valid
from rasteret_dask.read.client import active_client
from rasteret_dask.read.engine import run_loads
from rasteret_dask.read.gather import items_by_id, raw_sources
from rasteret_dask.read.inner import inner_masks
from rasteret_dask.read.near import Places, near
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.read.spots import (
    Floats,
    Order,
    Spots,
    mask_order,
    plan_points,
)
from rasteret_dask.read.values import Meaning, meaning

NEIGHBOURHOODS = ("off", "always", "if_center_nodata")

SCHEMA = pa.schema(
    [
        pa.field("point_index", pa.int64(), nullable=False),
        pa.field("point_x", pa.float64(), nullable=False),
        pa.field("point_y", pa.float64(), nullable=False),
        pa.field("point_crs", pa.int32()),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("datetime", pa.timestamp("us")),
        pa.field("collection", pa.string(), nullable=False),
        pa.field("band", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("raster_crs", pa.int32()),
    ]
)
"""rasteret's columns, so that what is written for one works with the other."""

WINDOW = pa.field("neighbourhood_values", pa.list_(pa.float64()))
"""The square around the pixel, row by row; NaN outside of the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """Pixels wanted of one source.

    Parameters
    ----------
    source : SourceRead
    pieces : tuple of Spots
        One for each tile.
    out : ndarray of float64, shape (pixels,)
        Written in place.
    band : str
        For messages.
    """

    source: SourceRead
    pieces: tuple[Spots, ...]
    out: Floats
    band: str

    def place(self, piece: Spots) -> None:
        """Nowhere: only some pixels are wanted."""

    def take(self, piece: Spots, pixels: npt.NDArray[Any]) -> None:
        """Pick the values of one tile."""
        self.out[piece.into] = pixels[piece.at[0], piece.at[1]]

    def fill(self, piece: Spots, value: Any) -> None:
        """Take one value for all of a sparse tile."""
        self.out[piece.into] = value


# --- reading -------------------------------------------------------------------------------------
def read_orders(
    orders: Sequence[Order], sizes: Sequence[int], storage: StorageOptions
) -> list[Floats]:
    """Return the values of each order; on the active cluster in tasks of some tiles, else here and all at once.

    Parameters
    ----------
    orders : sequence of Order
    sizes : sequence of int
        How many values each has.
    storage : StorageOptions
    """
    jobs = []
    for order, size in zip(orders, sizes):
        # The file's own mask beside the band: an alpha band lies in the same tiles.
        pair = (order, mask_order(order))
        jobs += [(_source(o), o.spots, size, o.band) for o in pair if o is not None]
    client = active_client()
    if client is None:
        found = iter(_read_jobs(jobs, storage))
    else:
        task = dask.delayed(_read_jobs, pure=False)
        threads = max(1, sum(client.nthreads().values()))  # an adaptive cluster begins with none
        lazy = [task(batch, storage) for batch in _batches(jobs, threads)]
        found = iter([values for part in dask.compute(*lazy) for values in part])
    return [_visible(order, found) for order in orders]


def _visible(order: Order, found: Iterator[Floats]) -> Floats:
    """The values of an order, and nothing where the file sees nothing."""
    values = next(found)
    if order.inner is not None:
        values[next(found) == 0] = np.nan if order.nodata is None else float(order.nodata)
    return values


def _read_jobs(jobs: Sequence[tuple[Any, ...]], storage: StorageOptions) -> list[Floats]:
    samplings = [Sampling(source, spots, np.empty(n), band) for source, spots, n, band in jobs]
    run_loads(samplings, storage)
    return [sampling.out for sampling in samplings]


def _batches(jobs: Sequence[tuple[Any, ...]], threads: int) -> list[list[tuple[Any, ...]]]:
    """Cut into three tasks for each thread, of enough tiles to hide latency and few enough to be done again."""
    enough = min(max(TILES, sum(len(job[1]) for job in jobs) // (3 * threads)), 4 * TILES)
    out: list[list[tuple[Any, ...]]] = [[]]
    tiles = 0
    for job in jobs:
        # Bands of one file follow one another and share its tiles, so a file is never torn.
        if tiles >= enough and job[0].url != out[-1][-1][0].url:
            out.append([])
            tiles = 0
        out[-1].append(job)
        tiles += len(job[1])
    return [batch for batch in out if batch]


def _source(order: Order) -> SourceRead:
    raw, k, spots = order.raw, order.k, order.spots
    same = order.place.same
    rows, cols = [s.row for s in spots], [s.col for s in spots]
    rect = TileRect(min(rows), max(rows) + 1, min(cols), max(cols) + 1)
    return own_read(raw, k, (0, same.height, 0, same.width), rect)


# --- the whole -----------------------------------------------------------------------------------
def sample_points(
    table: pa.Table,
    request: CubeRequest,
    points: Points,
    places: Places,
    *,
    name: str = "",
    latest: bool = False,
    max_distance: int = 0,
    neighbourhood: str = "off",
) -> pa.Table:
    """Sample points; see :meth:`rasteret_dask.Collection.sample_points`."""
    made = SCHEMA if neighbourhood == "off" else SCHEMA.append(WINDOW)
    check_names([] if points.columns is None else points.columns.column_names, made)
    items = items_by_id(table, request)
    raws = [(asked, raw_sources(items, band, request)) for asked, band in request.bands]
    inners = [
        inner_masks(items, band, raw, request) for (_, band), (_, raw) in zip(request.bands, raws)
    ]
    _check_types(raws)
    orders = plan_points(raws, points, latest=latest, inners=inners, near=near(table, places))
    values = read_orders(orders, [len(o.points) for o in orders], request.storage)
    windows: list[Any] = [None] * len(orders)
    if max_distance:
        windows = _widen(orders, values, max_distance, neighbourhood, request.storage)
    meanings = {asked: meaning(asked, raw, request) for asked, raw in raws}
    _apply(orders, values, windows, meanings)
    found = _rows(orders, values, table, points, name)
    if neighbourhood != "off":
        found = found.append_column(WINDOW, _window_column(windows, values))
    if points.columns is not None:
        own = points.columns.take(found.column("point_index"))
        for field in own.schema:
            found = found.append_column(field, own.column(field.name))
    return found


def check_names(taken: Iterable[str], made: pa.Schema) -> None:
    """Refuse columns of points that are called as those of the result.

    Raises
    ------
    ArgumentError
    """
    both = sorted(set(taken) & set(made.names) - {"point_index"})
    if both:
        raise ArgumentError(
            f"the points' columns {', '.join(both)} are called as columns of the result",
            hint="rename them, or give a table without them",
        )
    if "point_index" in taken:
        raise ArgumentError("the points have a column 'point_index', which the result makes itself")


def _check_types(raws: Sequence[tuple[str, RawSources]]) -> None:
    for band, raw in raws:
        kinds = {layout.dtype for layout in raw.layouts if np.dtype(layout.dtype).kind == "c"}
        if kinds:
            raise ArgumentError(
                f"the values are {kinds.pop()}, and samples are real numbers", band=band
            )


def _widen(
    orders: Sequence[Order],
    values: Sequence[Floats],
    radius: int,
    neighbourhood: str,
    storage: StorageOptions,
) -> list[Any]:
    """Read squares around the points that need them; put the nearest valid value where there was nodata. Return squares, or None."""
    wanted = []
    for number, (order, found) in enumerate(zip(orders, values)):
        nothing = is_nodata(found, order.nodata)
        chosen = np.arange(len(found)) if neighbourhood == "always" else np.flatnonzero(nothing)
        if len(chosen):
            wanted.append((number, chosen, nothing[chosen], *around(order, chosen, radius)))
    pixels = read_orders([w[3] for w in wanted], [len(w[4]) for w in wanted], storage)
    windows: list[Any] = [None] * len(orders)
    for (number, chosen, nothing, _, inside), read in zip(wanted, pixels):
        squares = np.full((len(chosen), (2 * radius + 1) ** 2), np.nan)
        squares.ravel()[inside] = read
        windows[number] = (chosen, squares)
        if nothing.any():
            holes = chosen[nothing]
            there, value = nearest_valid(orders[number], holes, squares[nothing], radius)
            values[number][holes[there]] = value[there]
    return windows


def _apply(
    orders: Sequence[Order],
    values: list[Floats],
    windows: list[Any],
    meanings: Mapping[str, Meaning],
) -> None:
    """Put what stored numbers mean in their place, once it is decided which pixels are looked at."""
    for number, order in enumerate(orders):
        meant = meanings[order.band]
        if meant.stored:
            continue
        values[number] = _meant(order, values[number], meant)
        if windows[number] is not None:
            chosen, squares = windows[number]
            windows[number] = chosen, _meant(order, squares, meant)


def _meant(order: Order, stored: Floats, meant: Meaning) -> Floats:
    raw, k = order.raw, order.k
    kind = raw.layouts[int(raw.layout_ids[k])].dtype
    scale, add = float(raw.scales[k]), float(raw.adds[k])
    # What lies off the file is NaN, and what it masks is what is called nodata: numbers that its type need not have.
    off = is_nodata(stored, order.nodata)
    # From the file's own type, so that it is to the last bit what a cube holds.
    found = meant.apply(np.where(off, 0.0, stored).astype(kind), order.nodata, scale, add)
    return np.where(off, np.nan, found.astype(np.float64))


def _window_column(windows: Sequence[Any], values: Sequence[Floats]) -> pa.Array:
    lengths, flat = [], []
    for window, found in zip(windows, values):
        size = np.zeros(len(found), dtype=np.int64)
        if window is not None:
            chosen, squares = window
            size[chosen] = squares.shape[1]
            flat.append(squares.ravel())
        lengths.append(size)
    sizes = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    mask = pa.array(sizes == 0)
    pixels = pa.array(np.concatenate(flat) if flat else np.zeros(0))
    return pa.ListArray.from_arrays(pa.array(offsets), pixels, mask=mask)


def _rows(
    orders: Sequence[Order],
    values: Sequence[Floats],
    table: pa.Table,
    points: Points,
    name: str,
) -> pa.Table:
    """One row for each point on each item and band, by item, band and point."""
    counts = [len(order.points) for order in orders]
    each = np.repeat(np.arange(len(orders)), counts)
    index = np.concatenate([o.points for o in orders]) if orders else np.zeros(0, np.int64)
    item_of = np.array([o.item for o in orders], dtype=np.int64)[each]
    bands = pa.array([o.band for o in orders], pa.string())
    crs = pa.array([_code(o.place.same.crs) for o in orders], pa.int32())
    columns = {
        "point_index": pa.array(index),
        "point_x": pa.array(points.x[index]),
        "point_y": pa.array(points.y[index]),
        "point_crs": pa.array([_code(points.crs)], pa.int32()).take(pa.array(np.zeros_like(index))),
        "record_id": _column(table, schema.ID, "").take(pa.array(item_of)),
        "datetime": table.column(schema.DATETIME).cast(pa.timestamp("us")).take(pa.array(item_of)),
        "collection": _column(table, schema.COLLECTION, name).take(pa.array(item_of)),
        "band": bands.take(pa.array(each)),
        "value": pa.array(np.concatenate(values) if values else np.zeros(0)),
        "raster_crs": crs.take(pa.array(each)),
    }
    return pa.table(columns, schema=SCHEMA)


def _column(table: pa.Table, name: str, default: str) -> Any:
    if name not in table.column_names:
        return pa.array([default] * len(table), pa.string())
    return table.column(name).cast(pa.string()).fill_null(default)


def _code(crs: str) -> int | None:
    if crs == "OGC:CRS84":
        return 4326
    authority, _, code = crs.partition(":")
    return int(code) if authority == "EPSG" and code.isdigit() else None
