"""What catalogues say of bands, written into the headers of rows: beside rows of other collections no catalogue speaks for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import columns, schema
from rasteret_dask.model import BandInfo
from rasteret_dask.tiff.held import holds

_SCALING: Final = ("scale", "offset")
_FIELDS: Final = {"nodata": pa.float64(), "nodata_text": pa.string()} | dict.fromkeys(
    _SCALING, pa.float64()
)


def agreed(
    said: Sequence[Mapping[str, BandInfo]], whose: Sequence[str]
) -> tuple[tuple[BandInfo, ...], list[list[BandInfo]]]:
    """What is known of the bands of several collections together, and what each one's rows must say themselves.

    Parameters
    ----------
    said : sequence of mapping of str to BandInfo
        What each collection says of each of its bands.
    whose : sequence of str
        Names of the collections, for messages.

    Returns
    -------
    tuple of BandInfo
        As the first collection says that says anything, without numbers on which they do not agree.
    list of list of BandInfo
        For `tell`, of each collection: all that it says of a band on whose numbers they do not agree.

    Raises
    ------
    ArgumentError
        They do not decode a band alike, which no row can say.
    """
    known: dict[str, BandInfo] = {}
    told: list[list[BandInfo]] = [[] for _ in said]
    for band in dict.fromkeys(band for infos in said for band in infos):
        mine = {k: infos[band] for k, infos in enumerate(said) if band in infos}
        _check_decoders(band, [(whose[k], info.decode) for k, info in mine.items()])
        told_of = [info for info in mine.values() if info != BandInfo(name=band, asset=band)]
        if not told_of:
            continue
        classes = any(info.categorical for info in told_of)
        known[band] = replace(told_of[0], categorical=classes)
        if len({repr((info.nodata, info.scale, info.offset)) for info in mine.values()}) > 1:
            known[band] = replace(known[band], nodata=None, scale=None, offset=None)
            for k, info in mine.items():
                told[k].append(info)
    return tuple(known.values()), told


def _check_decoders(band: str, decoders: Sequence[tuple[str, str | None]]) -> None:
    if len({how for _, how in decoders}) > 1:
        shown = "; ".join(f"{name or 'one'}: {how or 'not'}" for name, how in decoders)
        raise ArgumentError(
            f"the collections do not decode the band alike ({shown})",
            band=band,
            hint="read them apart, or give the band a name of its own in one of them",
        )


def with_fields(headers: pa.StructType) -> pa.StructType:
    """The type of a band's headers with the fields that `tell` writes; tables of others may lack them."""
    lacking = [(n, kind) for n, kind in _FIELDS.items() if headers.get_field_index(n) < 0]
    return pa.struct([*headers, *(pa.field(name, kind) for name, kind in lacking)])


def needs_assets(told: Sequence[BandInfo], names: Sequence[str]) -> bool:
    """Whether `tell` must know of these columns what STAC says of the assets."""
    scaled = (info for info in told if info.scale is not None or info.offset is not None)
    return any(schema.band_column(info.name) in names for info in scaled)


def tell(table: pa.Table, told: Sequence[BandInfo]) -> pa.Table:
    """Rows whose headers say what catalogues do.

    A catalogue's nodata stands above the file's, and takes its place; its scale and offset are written where neither the file nor STAC
    gives one of them, as a reader would take them.

    Parameters
    ----------
    table : pyarrow.Table
        With the column of assets, where `needs_assets` says so.
    told : sequence of BandInfo
        What comes later stands above what comes before.
    """
    for info in told:
        at = table.schema.get_field_index(schema.band_column(info.name))
        if at >= 0 and len(table):
            column = columns.one_array(table.column(at))
            table = table.set_column(at, table.schema.field(at), _told(table, column, info))
    return table


def _told(table: pa.Table, column: pa.StructArray, info: BandInfo) -> pa.StructArray:
    values: dict[str, pa.Array] = {}
    if info.nodata is not None:
        whole = float(info.nodata).is_integer()
        text = repr(int(info.nodata) if whole else float(info.nodata))
        holding = pa.array(_holding(column, info.nodata))
        values["nodata_text"] = pa.repeat(text, len(column))
        # Where no pixel can have it, what the file calls so is still what its sparse tiles hold.
        values["nodata"] = pc.if_else(
            holding, pa.scalar(info.nodata, pa.float64()), column.field("nodata")
        )
    scaling = {n: getattr(info, n) for n in _SCALING if getattr(info, n) is not None}
    silent = pa.array(_silent(table, column, info)) if scaling else None
    for name, value in scaling.items():
        values[name] = pc.if_else(silent, pa.scalar(value, pa.float64()), column.field(name))
    arrays = [values.get(field.name, column.field(k)) for k, field in enumerate(column.type)]
    return pa.StructArray.from_arrays(arrays, fields=list(column.type), mask=column.is_null())


def _holding(column: pa.StructArray, nodata: float) -> npt.NDArray[np.bool_]:
    """Of which rows the type can hold a catalogue's nodata, or the file has none of its own."""
    types = columns.texts(column, "dtype")
    holding = {name: name is None or holds(name, nodata) for name in set(types)}
    silent = np.isnan(columns.floats(column, "nodata"))
    return np.array([holding[name] for name in types], bool) | silent


def _silent(table: pa.Table, column: pa.StructArray, info: BandInfo) -> npt.NDArray[np.bool_]:
    """Of which rows neither the file nor STAC gives a scale or an offset."""
    known = np.zeros(len(column), dtype=bool)
    for name in _SCALING:
        known |= ~np.isnan(columns.floats(column, name))
    assets = columns.one_array(table.column(schema.ASSETS))
    asset = columns.asset_of(assets, (info.name, info.asset))
    if asset is None or not columns.has(asset, schema.RASTER_BANDS):
        return ~known
    lists = pc.struct_field(asset, schema.RASTER_BANDS)
    if not pa.types.is_struct(lists.type.value_type):
        return ~known
    some = pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False)
    here = np.flatnonzero(some.to_numpy(zero_copy_only=False))
    first = pc.list_element(lists.filter(some), 0)
    for name in _SCALING:
        known[here] |= ~np.isnan(columns.floats(first, name))
    return ~known
