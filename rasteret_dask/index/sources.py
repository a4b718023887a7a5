"""Rows of a collection as arrays of numbers: what planning a read needs of one band at one level.

Nothing here loops over tiles; what is done once for each row is limited to short texts.

State: ``_known`` keeps what was worked out of a table for as long as the table itself is kept: a cube asks for its sources to choose a
grid, and asks for them again when it has one.
"""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import UnknownBandError
from rasteret_dask.index import columns, schema
from rasteret_dask.index.columns import Floats, Ints
from rasteret_dask.index.layouts import layout_columns, layouts
from rasteret_dask.tiff.held import Told, holds
from rasteret_dask.tiff.model import TileLayout


@dataclass(frozen=True, slots=True, eq=False)
class BandSources:
    """One band at one level, for the n rows of a table that have both.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Rows of the table.
    item_ids, urls, etags, crs, dtypes : tuple, length n
        Of each source; etags and crs may be None.
    transforms : ndarray of float64, shape (n, 6)
        ``a, b, c, d, e, f`` of that level, rasterio's order; NaN where the file has no affine
        georeference.
    widths, heights : ndarray of int64, shape (n,)
        Pixels of that level.
    samples, planar, band_index : ndarray of int64, shape (n,)
        Samples per pixel, planar configuration, and which sample the band is.
    layout_ids : ndarray of int64, shape (n,)
        Index into ``layouts``.
    layouts : tuple of TileLayout
        The distinct layouts.
    tile_ptr : ndarray of int64, shape (n + 1,)
        Tiles of source i are ``offsets[tile_ptr[i]:tile_ptr[i + 1]]``, row by row, of the band's
        own plane.
    offsets, counts : ndarray of uint64, shape (m,)
        First byte and number of bytes of each tile; 0 bytes marks a sparse tile.
    nodata : tuple of float or int or None
        The file's, else STAC's.
    scales, adds : ndarray of float64, shape (n,)
        Scale and offset, the file's, else STAC's; NaN where neither gives them.
    overview_resampling : tuple of str or None
        How overviews were made, where the file says so.
    """

    rows: Ints
    item_ids: tuple[str, ...]
    urls: tuple[str, ...]
    etags: tuple[str | None, ...]
    crs: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    transforms: Floats
    widths: Ints
    heights: Ints
    samples: Ints
    planar: Ints
    band_index: Ints
    layout_ids: Ints
    layouts: tuple[TileLayout, ...]
    tile_ptr: Ints
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]
    nodata: tuple[float | int | None, ...]
    scales: Floats
    adds: Floats
    overview_resampling: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.rows)


def band_sources(
    table: pa.Table,
    band: str,
    level: int = 0,
    *,
    mask: bool = False,
    key: str | None = None,
) -> BandSources:
    """Arrays of one band at one level.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of a collection with ``id``, ``assets`` and the band's column; ours or rasteret's.
    band : str
        Canonical name.
    level : int
        0 for full resolution, 1 for the first overview, and so on. Rows without that level are left
        out.
    mask : bool
        The internal mask of that level instead of its pixels.
    key : str, optional
        The asset's key, in tables whose ``assets`` are called as STAC calls them and not as the bands.

    Raises
    ------
    UnknownBandError
        The table has no such band.
    """
    asked = (band, level, mask, key)
    known = _known_of(table)
    found = known.get(asked)
    if found is None:
        found = known[asked] = _worked_out(table, band, level, mask, key)
    return found


_known: dict[int, tuple[weakref.ref[pa.Table], dict[Any, BandSources]]] = {}


def _known_of(table: pa.Table) -> dict[Any, BandSources]:
    """Return what is known of this very table; it has no hash, so that it cannot be a key itself."""
    number = id(table)
    entry = _known.get(number)
    if entry is None or entry[0]() is not table:
        entry = _known[number] = (weakref.ref(table, lambda _: _known.pop(number, None)), {})
    return entry[1]


def _worked_out(table: pa.Table, band: str, level: int, mask: bool, key: str | None) -> BandSources:
    name = schema.band_column(band)
    if name not in table.column_names:
        known = ", ".join(schema.band_names(table.schema)) or "none"
        raise UnknownBandError(f"no band {band!r} in this table", band=band, hint=f"bands: {known}")
    column = columns.one_array(table.column(name))
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    column = _taken(column, rows)
    chosen, picked = _choose(column, level, mask)
    rows, column = rows[picked], _taken(column, picked)
    fields = layout_columns(column, chosen, mask or level > 0)
    ids, distinct = layouts(chosen, fields)
    dtypes = fields["dtype"]
    asset = _asset(table, band, key, rows)
    pointers, offsets, counts = _ranges(chosen)
    widths, heights = columns.ints(chosen, "image_width"), columns.ints(chosen, "image_height")
    scales, adds = _scaling(column, asset)
    return BandSources(
        rows=rows.astype(np.int64),
        item_ids=tuple(table.column(schema.ID).take(pa.array(rows)).to_pylist()),
        urls=tuple(pc.struct_field(asset, "href").to_pylist()),
        etags=columns.texts(column, "etag"),
        crs=_crs(table, column, rows),
        dtypes=tuple(dtypes),
        transforms=_transforms(column, widths, heights),
        widths=widths,
        heights=heights,
        samples=fields["samples_per_pixel"],
        planar=fields["planar_configuration"],
        band_index=_band_index(column, asset),
        layout_ids=ids,
        layouts=distinct,
        tile_ptr=pointers,
        offsets=offsets,
        counts=counts,
        nodata=_nodata(column, asset, dtypes),
        scales=scales,
        adds=adds,
        overview_resampling=_overview_resampling(column),
    )


def _taken(column: pa.Array, rows: Ints) -> pa.Array:
    """Some rows, in their order; a copy of all of them would be the same."""
    return column if len(rows) == len(column) else column.take(pa.array(rows))


def has_masks(table: pa.Table, band: str) -> bool:
    """Whether any file of a band has internal masks; much cheaper than asking :func:`band_sources` for them."""
    column = columns.one_array(table.column(schema.band_column(band)))
    index = column.type.get_field_index("masks")
    if index < 0:
        return False
    lengths = pc.list_value_length(pc.struct_field(column, "masks"))
    return bool(pc.any(pc.greater(lengths, 0)).as_py())


# --- picking a level -----------------------------------------------------------------------------
def _choose(column: pa.StructArray, level: int, mask: bool) -> tuple[pa.StructArray, Ints]:
    """The structs that describe the level, and which of the column's rows have one."""
    everything = np.arange(len(column), dtype=np.int64)
    if level == 0 and not mask:
        return column, everything
    name, position = ("masks", level) if mask else ("levels", level - 1)
    index = column.type.get_field_index(name)
    if index < 0:
        return pa.array([], schema.LEVEL_TYPE), everything[:0]
    lists = pc.struct_field(column, name)
    starts = lists.offsets.to_numpy()
    has = (np.diff(starts) > position) & lists.is_valid().to_numpy(zero_copy_only=False)
    picked = everything[has]
    # `.values` ignores the slice that `.offsets` are relative to the start of, so both count from
    # the same origin.
    values = lists.values.take(pa.array(starts[:-1][has] + position))
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    return values.filter(pa.array(valid)), picked[valid]


def _ranges(
    chosen: pa.StructArray,
) -> tuple[Ints, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    offsets = pc.struct_field(chosen, "tile_offsets")
    counts = pc.struct_field(chosen, "tile_byte_counts")
    lengths = pc.fill_null(pc.list_value_length(offsets), 0).to_numpy(zero_copy_only=False)
    pointers = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(lengths, out=pointers[1:])
    return pointers, _flat(offsets), _flat(counts)


def _flat(lists: pa.Array) -> npt.NDArray[np.uint64]:
    values: Ints = lists.flatten().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values.view(np.uint64)


# --- georeference and radiometry -----------------------------------------------------------------
def _transforms(column: pa.StructArray, widths: Ints, heights: Ints) -> Floats:
    """Affines of the level: that of full resolution, with pixels as much larger as there are
    fewer."""
    out = np.full((len(column), 6), np.nan)
    lists = pc.struct_field(column, "transform")
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    short, whole = lengths == 4, lengths == 6
    for k, at in enumerate((0, 2, 4, 5)):
        out[short, at] = values[starts[short] + k]
    out[short, 1] = out[short, 3] = 0.0
    for k in range(6):
        out[whole, k] = values[starts[whole] + k]
    wider = columns.ints(column, "image_width") / widths
    higher = columns.ints(column, "image_height") / heights
    out[:, (0, 3)] *= wider[:, None]
    out[:, (1, 4)] *= higher[:, None]
    return out


def _asset(table: pa.Table, band: str, key: str | None, rows: Ints) -> pa.StructArray:
    """The asset of each row: ours is named by the band; rasteret's too, or by its STAC key."""
    assets = columns.one_array(table.column(schema.ASSETS))
    found = columns.asset_of(assets, (band, key))
    if found is not None:
        return _taken(found, rows)
    known = ", ".join(field.name for field in assets.type)
    raise UnknownBandError(
        f"the column {schema.ASSETS!r} lacks the band {band!r}", band=band, hint=f"it has {known}"
    )


def _band_index(column: pa.StructArray, asset: pa.StructArray) -> Ints:
    # Rows of other libraries have it with the asset, and may stand beside ours.
    own = columns.ints(column, "band_index", -1)
    return np.where(own < 0, columns.ints(asset, "band_index"), own)


def _crs(table: pa.Table, column: pa.StructArray, rows: Ints) -> tuple[str | None, ...]:
    own = columns.texts(column, "crs")
    if all(value is not None for value in own):
        return own
    rest = _row_crs(table, rows)
    return tuple(a if a is not None else b for a, b in zip(own, rest, strict=True))


def _row_crs(table: pa.Table, rows: Ints) -> list[str | None]:
    taken = pa.array(rows)
    if schema.EPSG in table.column_names:
        codes = table.column(schema.EPSG).take(taken).to_pylist()
        if any(code is not None for code in codes):
            return [None if code is None else f"EPSG:{code}" for code in codes]
    if schema.CRS in table.column_names:
        found: list[str | None] = table.column(schema.CRS).take(taken).to_pylist()
        return found
    return [None] * len(rows)


def _claims(asset: pa.StructArray, name: str) -> Floats:
    """What STAC's first ``raster:bands`` entry of each asset says; NaN for nothing."""
    if not columns.has(asset, schema.RASTER_BANDS):
        return np.full(len(asset), np.nan)
    lists = pc.struct_field(asset, schema.RASTER_BANDS)
    if not _has_field(lists.type.value_type, name):
        return np.full(len(asset), np.nan)
    has = pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False)
    out = np.full(len(asset), np.nan)
    here = has.to_numpy(zero_copy_only=False)
    if here.any():
        first = pc.list_element(lists.filter(has), 0)
        out[here] = pc.struct_field(first, name).to_numpy(zero_copy_only=False).astype(float)
    return out


def _has_field(kind: pa.DataType, name: str) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def _scaling(column: pa.StructArray, asset: pa.StructArray) -> tuple[Floats, Floats]:
    # Scale and offset belong together: a file that gives one of them has spoken for both.
    scales, adds = columns.floats(column, "scale"), columns.floats(column, "offset")
    silent = np.isnan(scales) & np.isnan(adds)
    if silent.any():
        scales = np.where(silent, _claims(asset, "scale"), scales)
        adds = np.where(silent, _claims(asset, "offset"), adds)
    return scales, adds


def _nodata(
    column: pa.StructArray, asset: pa.StructArray, dtypes: npt.NDArray[np.object_]
) -> tuple[float | int | None, ...]:
    texts = columns.texts(column, "nodata_text")
    known: dict[str | None, float | int | None] = {None: None}
    for text in set(texts) - {None}:
        known[text] = _number(str(text))
    values = [known[text] for text in texts]
    odd = {(v, d) for v, d in zip(values, dtypes) if v is not None and not holds(d, v)}
    if odd:
        # As joined rows are told by a catalogue; their number is the file's.
        listed = pc.struct_field(column, "nodata").to_pylist()
        values = [
            _told(v, _fitting(n, d)) if (v, d) in odd else v
            for v, n, d in zip(values, listed, dtypes, strict=True)
        ]
    if any(v is None for v in values):
        # Rows of other libraries have a number alone, and may stand beside ours.
        listed = pc.struct_field(column, "nodata").to_pylist()
        values = [
            _fitting(n, d) if v is None else v
            for v, n, d in zip(values, listed, dtypes, strict=True)
        ]
    if any(v is None for v in values):
        stac = _claims(asset, "nodata").tolist()
        values = [
            _fitting(s, d) if v is None and s == s else v
            for v, s, d in zip(values, stac, dtypes, strict=True)
        ]
    return tuple(values)


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _told(value: float | int | None, own: float | int | None) -> float | int | None:
    return value if value is None or own is None else Told(value, own)


def _fitting(value: float | None, dtype: str) -> float | int | None:
    """A nodata value as the type can hold it; None where it cannot, because then no pixel has
    it."""
    if value is None:
        return None
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return float(value)
    info = np.iinfo(kind)
    whole = value == value and float(value).is_integer()
    return int(value) if whole and info.min <= value <= info.max else None


def _overview_resampling(column: pa.StructArray) -> tuple[str | None, ...]:
    texts = columns.texts(column, "extras")
    known = {t: json.loads(t).get("overview_resampling") for t in set(texts) if t is not None}
    return tuple(None if text is None else known[text] for text in texts)
