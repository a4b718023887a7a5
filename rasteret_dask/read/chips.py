"""Windows of single items, on each item's own grid: as one NumPy array, or as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask
import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from rasteret_dask.errors import ArgumentError, EmptySelectionError, NodataError
from rasteret_dask.grid.aoi import Areas
from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.grid.shapes import outside
from rasteret_dask.grid.tiles import Window, pieces
from rasteret_dask.index import schema
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.client import active_client
from rasteret_dask.read.cut import Chip, batches, check_any, plan_chips
from rasteret_dask.read.doubt import BANDS, check_stored
from rasteret_dask.read.engine import Load, run_loads
from rasteret_dask.read.gather import Items, items_by_id, raw_sources
from rasteret_dask.read.inner import inner_masks
from rasteret_dask.read.later import now
from rasteret_dask.read.near import Places, near
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.read.values import Meaning, meaning
from rasteret_dask.tiff.held import holds

Array = npt.NDArray[Any]


def read_chips(
    chips: Sequence[Chip],
    bands: Sequence[str],
    *,
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
) -> Array:
    """Read chips of one shape into one array.

    Parameters
    ----------
    chips : sequence of Chip
    bands : sequence of str
        For messages.
    fill : number, optional
        For pixels outside polygons; None takes each source's own nodata.
    all_touched : bool
    storage : StorageOptions

    Returns
    -------
    ndarray, shape (chips, bands, rows, columns)

    Raises
    ------
    ArgumentError
        If the chips differ in shape.
    NodataError
        If a polygon masks and nothing says with what.
    """
    shapes = {chip.shape for chip in chips}
    if len(shapes) > 1:
        shown = ", ".join(f"{h}×{w}" for h, w in sorted(shapes)[:4])
        raise ArgumentError(
            f"the results differ in shape ({shown}{' …' if len(shapes) > 4 else ''}), and one array needs one",
            hint="read geometries one by one, use get_gdf for ragged results, or get_xarray for one grid",
        )
    dtype = np.result_type(*{kind for chip in chips for kind in _dtypes(chip)})
    out = np.empty((len(chips), len(bands), *chips[0].shape), dtype=dtype)
    if active_client() is None:
        _fill(chips, bands, [list(one) for one in out], fill, all_touched, storage)
        return out
    for one, arrays in zip(out, read_ragged(chips, bands, fill, all_touched, storage, dtype)):
        one[...] = arrays
    return out


def read_ragged(
    chips: Sequence[Chip],
    bands: Sequence[str],
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
    dtype: np.dtype[Any] | None = None,
) -> list[list[Array]]:
    """Read chips of any shape, on the active cluster in tasks of some tiles, else here and all at once.

    Parameters
    ----------
    chips, bands, fill, all_touched, storage
        As in `read_chips`.
    dtype : numpy.dtype, optional
        Of all arrays, where they will be one; by default what the numbers of each file become.

    Returns
    -------
    list of list of ndarray
        For each chip an array for each band.
    """
    if active_client() is None:
        return _read_batch(chips, tuple(bands), fill, all_touched, storage, dtype)
    task = dask.delayed(_read_batch, pure=False)
    cuts = batches(chips)
    lazy = [
        task([chips[k] for k in cut], tuple(bands), fill, all_touched, storage, dtype)
        for cut in cuts
    ]
    out: list[list[Array]] = [[] for _ in chips]
    for cut, part in zip(cuts, dask.compute(*lazy)):
        for k, arrays in zip(cut, part):
            out[k] = arrays
    return out


def _read_batch(
    chips: Sequence[Chip],
    bands: tuple[str, ...],
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
    dtype: np.dtype[Any] | None = None,
) -> list[list[Array]]:
    kinds = [_dtypes(chip) if dtype is None else [dtype] * len(chip.reads) for chip in chips]
    out = [[np.empty(c.shape, dtype=kind) for kind in each] for c, each in zip(chips, kinds)]
    _fill(chips, bands, out, fill, all_touched, storage)
    return out


def _dtypes(chip: Chip) -> list[np.dtype[Any]]:
    pairs = zip(chip.reads, chip.meanings)
    return [meant.dtype(np.dtype(read.layout.dtype)) for read, meant in pairs]


def _fill(
    chips: Sequence[Chip],
    bands: Sequence[str],
    out: Sequence[Sequence[Array]],
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
) -> None:
    """Decode straight into the results where types agree; all chips at once, so that no tile is fetched twice."""
    loads, converted = [], []
    for chip, targets in zip(chips, out):
        each = zip(chip.reads, chip.meanings, targets, bands)
        for number, (read, meant, result, band) in enumerate(each):
            target = result
            if not meant.stored or read.layout.dtype != result.dtype.name:
                target = np.empty(chip.shape, dtype=read.layout.dtype)
                converted.append((chip, number, result, target))
            loads.append(_load(chip, read, target, band))
    seen = _inner_loads(chips, bands)
    run_loads([*loads, *seen.values()], storage)
    for chip, number, result, target in converted:
        read, meant = chip.reads[number], chip.meanings[number]
        if meant.doubted is not None:
            inner = chip.inner[number] if chip.inner else None
            shown = None if inner is None else now(seen[_key(chip, inner)].out)
            check_stored(read, meant.doubted, target, shown)
        result[...] = meant.apply(target, read.nodata, read.scale, read.add)
    _hide(chips, bands, out, fill, seen)
    _mask(chips, bands, out, fill, all_touched)


def _load(chip: Chip, read: SourceRead, target: Array, band: str) -> Load:
    found = pieces(chip.window, read.layout.height, read.layout.width)
    return Load(read, found, target, band)


_Seen = dict[tuple[str, int, int, Window], Load]


def _key(chip: Chip, read: SourceRead) -> tuple[str, int, int, Window]:
    # The bands of one file have one mask, and so have equal windows of it.
    return read.url, int(read.offsets.ravel()[0]), read.sample, chip.window


def _inner_loads(chips: Sequence[Chip], bands: Sequence[str]) -> _Seen:
    """Loads of what the files themselves say of which pixels hold anything, each once."""
    seen: _Seen = {}
    for chip in chips:
        for read, band in zip(chip.inner, bands):
            if read is not None and _key(chip, read) not in seen:
                shown = np.empty(chip.shape, dtype=read.layout.dtype)
                seen[_key(chip, read)] = _load(chip, read, shown, band)
    return seen


def _hide(
    chips: Sequence[Chip],
    bands: Sequence[str],
    out: Sequence[Sequence[Array]],
    fill: Number,
    seen: _Seen,
) -> None:
    """Put nothing where the files themselves see nothing."""
    for chip, targets in zip(chips, out):
        each = zip(chip.inner, chip.reads, chip.meanings, targets, bands)
        for inner, read, meant, result, band in each:
            if inner is None:
                continue
            hidden = now(seen[_key(chip, inner)].out) == 0
            if hidden.any():
                result[hidden] = _nothing(result, read, meant, fill, band, "that the file masks")


def _nothing(
    result: Array, read: SourceRead, meant: Meaning, fill: Number, band: str, which: str
) -> float | int:
    """The value for what holds nothing, of the result's type."""
    own = read.nodata if meant.stored else float("nan")
    value = own if fill is None else fill
    if value is not None and holds(result.dtype.name, value):
        return value
    why = "neither the file nor the caller names one"
    if value is not None:
        why = f"{result.dtype.name} cannot hold {value}"
    raise NodataError(
        f"pixels {which} need a value, and {why}",
        item=read.item,
        band=band,
        hint="give fill_value=",
    )


def _mask(
    chips: Sequence[Chip],
    bands: Sequence[str],
    out: Sequence[Sequence[Array]],
    fill: Number,
    all_touched: bool,
) -> None:
    painted: dict[tuple[bytes, Window], npt.NDArray[np.bool_]] = {}
    for chip, targets in zip(chips, out):
        if chip.shapes is None:
            continue
        key = (chip.shapes, chip.window)
        if key not in painted:
            # The dates of one tile share grid and polygon.
            painted[key] = outside(chip.shapes, chip.window, all_touched)
        hidden = painted[key]
        if not hidden.any():
            continue
        for read, meant, result, band in zip(chip.reads, chip.meanings, targets, bands):
            result[hidden] = _nothing(result, read, meant, fill, band, "outside the geometry")


def get_numpy(
    table: pa.Table,
    request: CubeRequest,
    areas: Areas | None,
    bounds: Bounds | None,
    crs: str,
    places: Places | None,
) -> Array:
    """Return windows of items; see :meth:`rasteret_dask.Collection.get_numpy`.

    Raises
    ------
    EmptySelectionError
        No item is left, or none meets.
    """
    if not len(table):
        raise EmptySelectionError(
            "no item is left to read", hint="widen the area, the dates or the filters"
        )
    items = items_by_id(table, request)
    raws = [raw_sources(items, band, request) for _, band in request.bands]
    meanings = _meanings(items, raws, request)
    inners = _inners(items, raws, request)
    chips = plan_chips(raws, areas, bounds, crs, meanings, inners, near(table, places))
    check_any(chips)
    found = read_chips(
        chips,
        [asked for asked, _ in request.bands],
        fill=request.fill_value,
        all_touched=request.all_touched,
        storage=request.storage,
    )
    return found[:, 0] if len(request.bands) == 1 else found


def _meanings(items: Items, raws: Sequence[RawSources], request: CubeRequest) -> list[Meaning]:
    found = []
    for (asked, band), raw in zip(request.bands, raws):
        # As for a cube.
        doubted = asked if items.offsets is not None and band in BANDS else None
        found.append(replace(meaning(asked, raw, request), doubted=doubted))
    return found


def _inners(
    items: Items, raws: Sequence[RawSources], request: CubeRequest
) -> list[RawSources | None]:
    return [inner_masks(items, band, raw, request) for (_, band), raw in zip(request.bands, raws)]


_OWN = ("geometry_id", "geometry", "record_id", "datetime", "cloud_cover", "collection", "crs")


def get_gdf(
    table: pa.Table,
    request: CubeRequest,
    areas: Areas,
    places: Places | None,
    *,
    name: str = "",
    per: str = "item",
) -> geopandas.GeoDataFrame:
    """Return a row for each geometry and item; see :meth:`rasteret_dask.Collection.get_gdf`."""
    names = [asked for asked, _ in request.bands]
    made = ("band", "data") if per == "band" else tuple(names)
    _check_columns(areas.columns, (*_OWN, "transform", *made))
    items = items_by_id(table, request)
    raws = [raw_sources(items, band, request) for _, band in request.bands]
    meanings = _meanings(items, raws, request)
    inners = _inners(items, raws, request)
    # A box crops and does not mask.
    masks, bounds = (None, areas.bounds) if areas.boxes else (areas, None)
    met = near(table, places)
    how = (request.fill_value, request.all_touched, request.storage)
    if per == "item":
        chips = plan_chips(raws, masks, bounds, areas.crs, meanings, inners, met)
        check_any(chips)
        arrays = read_ragged(chips, names, *how)
        columns: dict[str, list[Any]] = {
            band: [found[b] for found in arrays] for b, band in enumerate(names)
        }
    else:
        planned = [
            (band, chip)
            for band, raw, meant, inner in zip(names, raws, meanings, inners)
            for chip in plan_chips([raw], masks, bounds, areas.crs, [meant], [inner], met)
        ]
        planned.sort(key=lambda p: (p[1].area, p[1].item, names.index(p[0])))
        chips = [chip for _, chip in planned]
        check_any(chips)
        # All bands at once, so that bands of one file share its tiles.
        arrays = read_ragged(chips, ["data"], *how)
        columns = {"band": [band for band, _ in planned], "data": [found[0] for found in arrays]}
    return _frame(chips, columns, table, areas, name)


def _check_columns(columns: pa.Table | None, made: Sequence[str]) -> None:
    both = sorted(set(made) & set([] if columns is None else columns.column_names))
    if both:
        raise ArgumentError(
            f"the table's columns {', '.join(both)} are called as columns of the result",
            hint="rename them, or give a table without them",
        )


def _frame(
    chips: Sequence[Chip],
    columns: dict[str, list[Any]],
    table: pa.Table,
    areas: Areas,
    name: str,
) -> geopandas.GeoDataFrame:
    rows = pa.array([chip.item for chip in chips], pa.int64())
    which = np.array([chip.area for chip in chips], dtype=np.int64)

    def of_item(column: str, default: Any) -> Any:
        if column not in table.column_names:
            return [default] * len(chips)
        return table.column(column).take(rows).to_pandas()

    shapes = np.empty(len(areas.geometries), dtype=object)
    shapes[:] = areas.geometries
    data: dict[str, Any] = {
        "geometry_id": which + 1,
        "record_id": of_item(schema.ID, ""),
        "datetime": of_item(schema.DATETIME, None),
        "cloud_cover": of_item(schema.CLOUD_COVER, None),
        "collection": of_item(schema.COLLECTION, name),
        "crs": [chip.crs for chip in chips],
        "transform": [chip.transform for chip in chips],
    }
    for key, values in columns.items():
        data[key] = pd.Series(values, dtype=object) if key != "band" else values
    if areas.columns is not None:
        own = areas.columns.take(pa.array(which)).to_pandas()
        data |= {column: own[column] for column in own.columns}
    return geopandas.GeoDataFrame(data, geometry=shapes[which], crs=areas.crs)
