"""STAC items, old and new, as records: the columns of a row, and the files whose headers it
needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from pyproj import CRS
from pyproj.exceptions import CRSError

from rasteret_dask.errors import ArgumentError, DuplicateItemError
from rasteret_dask.index import own, schema
from rasteret_dask.index.dedupe import acquisition
from rasteret_dask.index.times import parse_instant
from rasteret_dask.ingest.bands import bands_of_asset, find_asset
from rasteret_dask.ingest.footprints import footprint
from rasteret_dask.model import BandInfo
from rasteret_dask.storage.urls import unsigned

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AssetRef:
    """One band of one item: where it is, and what STAC claims of it.

    Parameters
    ----------
    band : str
        Canonical name.
    index : int
        Which band of the file.
    key : str
        The asset's key.
    url : str
        Unsigned.
    claims : mapping
        ``nodata``, ``scale``, ``offset``, ``data_type`` and ``unit`` of the band, as far as STAC
        gives them.
    said : mapping
        What STAC says of the whole file and a header can contradict: the asset's ``proj:shape``,
        ``proj:transform``, ``proj:code`` and bands.
    """

    band: str
    index: int
    key: str
    url: str
    claims: Mapping[str, Any]
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One item, ready for its headers.

    Parameters
    ----------
    id : str
    columns : mapping
        Values of the item's columns but for those that headers decide.
    crs : str, optional
        What STAC says; the file's own is preferred.
    assets : tuple of AssetRef
        One for each band that the item has.
    """

    id: str
    columns: Mapping[str, Any]
    crs: str | None
    assets: tuple[AssetRef, ...]


@dataclass(frozen=True, slots=True)
class Links:
    """Which of an asset's links are taken, and what becomes of them.

    Parameters
    ----------
    prefer : str, optional
        Scheme or name of the alternate link to take, as ``s3``.
    rewrite : mapping of str to str
        Beginnings of links → what they become; the longest that fits.
    """

    prefer: str | None = None
    rewrite: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """As JSON: part of a build's identity."""
        rewrite = dict(sorted(self.rewrite.items()))
        return {"prefer": self.prefer, **({"url_rewrite_patterns": rewrite} if rewrite else {})}

    def of(self, asset: Json) -> str | None:
        """An asset's link, unsigned; None when it has none."""
        href = asset.get("href")
        alternates: Mapping[str, Json] = asset.get("alternate") or {}
        if self.prefer is not None and not str(href).startswith(f"{self.prefer}:"):
            for key, other in alternates.items():
                if key == self.prefer or str(other.get("href", "")).startswith(f"{self.prefer}:"):
                    href = other.get("href") or href
                    break
        if not href:
            return None
        fitting = [old for old in self.rewrite if str(href).startswith(old)]
        if fitting:
            old = max(fitting, key=len)
            href = self.rewrite[old] + str(href)[len(old) :]
        return unsigned(str(href))


AS_THEY_ARE = Links()
NO_MORE: own.Columns = MappingProxyType({})
"""A collection with no columns but ours."""


def make_record(
    item: Json,
    bands: Sequence[BandInfo],
    links: Links = AS_THEY_ARE,
    columns: own.Columns = NO_MORE,
) -> Record:
    """A STAC item as a record.

    Parameters
    ----------
    item : mapping
        The item; hrefs absolute.
    bands : sequence of BandInfo
        The bands of the collection.
    links : Links
        Which links are taken.
    columns : mapping of str to pyarrow.DataType
        Properties that have a column beside ours.

    Raises
    ------
    ArgumentError
        The item has no id, or no time at all, or a property does not go into its column.
    """
    name = item.get("id")
    if not name:
        raise ArgumentError("an item has no id")
    properties = dict(item.get("properties") or {})
    crs, epsg = _item_crs(properties)
    assets: Mapping[str, Json] = item.get("assets") or {}
    refs = []
    for band in bands:
        key = find_asset(assets, band)
        href = None if key is None else links.of(assets[key])
        if key is not None and href:
            asset = assets[key]
            declared = [_of_band(asset, one) for one in bands_of_asset(asset)]
            known = band.index < len(declared)
            claims = declared[band.index] if known else _of_band(asset, {})
            said = _said(asset, properties, epsg, declared)
            refs.append(AssetRef(band.name, band.index, key, href, claims, said))
    values = {
        schema.ID: str(name),
        schema.COLLECTION: item.get("collection"),
        **_times(str(name), properties),
        **footprint(item),
        **_properties(properties, columns),
        **_own(str(name), properties, columns),
    }
    return Record(str(name), values, crs, tuple(refs))


def sort_records(records: Iterable[Record]) -> list[Record]:
    """In the order (datetime, id), equal ones once.

    Raises
    ------
    DuplicateItemError
        Two different items have one id.
    """
    known: dict[str, Record] = {}
    for record in records:
        other = known.setdefault(record.id, record)
        if other is not record and other != record:
            raise DuplicateItemError("two different items have the same id", item=record.id)
    return sorted(known.values(), key=lambda r: (r.columns[schema.DATETIME], r.id))


def reprocessed(records: Iterable[Record]) -> list[str]:
    """One line for each acquisition that is there more than once; `Collection.dedupe` keeps one."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for record in records:
        key = acquisition(record.columns)
        if key is not None:
            groups.setdefault(key, []).append(record.id)
    return [
        f"the same acquisition {len(ids)} times: {', '.join(ids[:5])}{' …' * (len(ids) > 5)}"
        for ids in groups.values()
        if len(ids) > 1
    ]


# --- times and places ----------------------------------------------------------------------------
def _times(item: str, properties: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, datetime | None] = {}
    for name in (schema.DATETIME, schema.START, schema.END):
        value = properties.get(name)
        try:
            found[name] = None if value in (None, "") else parse_instant(value)
        except ArgumentError as error:
            raise error.located(item=item) from None
    moment = found[schema.DATETIME] or found[schema.START]
    if moment is None:
        raise ArgumentError("an item has neither datetime nor start_datetime", item=item)
    found[schema.DATETIME] = moment
    return {**found, schema.YEAR: moment.year, schema.MONTH: moment.month}


def _item_crs(properties: Json) -> tuple[str | None, int | None]:
    """The CRS that STAC names, as ``EPSG:n`` or WKT2, and its EPSG code."""
    for name in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"):
        value = properties.get(name)
        if value in (None, "", {}):
            continue
        code = str(value).upper().removeprefix("EPSG:")
        if code.isdigit():  # by far the most common, and pyproj takes its time
            return f"EPSG:{int(code)}", int(code)
        try:
            crs = CRS.from_user_input(value)
        except CRSError:
            continue
        epsg = crs.to_epsg() if name not in ("proj:wkt2", "proj:projjson") else crs.to_epsg(100)
        return (f"EPSG:{epsg}" if epsg else crs.to_wkt("WKT2_2019")), epsg
    return None, None


def own_properties(items: Iterable[Json]) -> dict[str, pa.DataType]:
    """Properties of items that get a column: people's own, which have no colon in their names, are flat, and of one type."""
    kinds: dict[str, set[type]] = {}
    for item in items:
        for name, value in (item.get("properties") or {}).items():
            if value is not None and ":" not in name:
                kinds.setdefault(name, set()).add(type(value))
    taken = {field.name for field in schema.item_fields()} | {schema.ASSETS}
    columns = {}
    for name in sorted(kinds.keys() - taken):
        found = next((kind for types, kind in _KINDS if kinds[name] <= types), None)
        if found is not None and not name.endswith(schema.band_column("")):
            columns[name] = found
    return columns


_KINDS: tuple[tuple[set[type], pa.DataType], ...] = (
    ({bool}, pa.bool_()),
    ({int}, pa.int64()),
    ({int, float}, pa.float64()),
    ({str}, pa.string()),
)


def _own(item: str, properties: Json, columns: own.Columns) -> dict[str, Any]:
    """Values of columns beside ours."""
    found = {}
    for name, kind in columns.items():
        try:
            value = own.fitting(properties.get(name), kind)
        except ArgumentError as error:
            raise ArgumentError(f"the property {name!r}: {error.message}", item=item) from None
        found[name] = unsigned(value) if isinstance(value, str) and "://" in value else value
    return found


def _properties(properties: dict[str, Any], columns: own.Columns) -> dict[str, Any]:
    rest = {
        k: v for k, v in properties.items() if k not in schema.PROPERTY_TYPES and k not in columns
    }
    typed = {}
    for name, kind in schema.PROPERTY_TYPES.items():
        value = properties.get(name)
        typed[name] = None if value is None else _as_type(value, kind)
        if value is not None and typed[name] is None:
            rest[name] = value
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, default=str)
    return {**typed, schema.PROPERTIES: text}


def _as_type(value: Any, kind: pa.DataType) -> Any:
    """A property as its column wants it; None when it is something else."""
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}.get(str(value).lower())
    if pa.types.is_string(kind):
        return (
            value
            if isinstance(value, str)
            else None
            if isinstance(value, (dict, list))
            else str(value)
        )
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if pa.types.is_integer(kind):
        return int(number) if number.is_integer() and abs(number) < 2**31 else None
    return number


# --- assets --------------------------------------------------------------------------------------
_BAND_CLAIMS = tuple((n, f"raster:{n}") for n in ("data_type", "nodata", "scale", "offset", "unit"))


def _of_band(asset: Json, band: Json) -> dict[str, Any]:
    """What is said of a band, by itself or by its asset for all; 1.1 calls two of them
    ``raster:``."""
    found = {}
    for name, spelled in _BAND_CLAIMS:
        for source in (band, asset):
            value = source.get(spelled)
            if value is None:
                value = source.get(name)
            if value is not None:
                found[name] = value
                break
    return found


def _said(
    asset: Json, properties: Json, epsg: int | None, declared: list[dict[str, Any]]
) -> dict[str, Any]:
    found = {
        name: asset.get(name, properties.get(name)) for name in ("proj:shape", "proj:transform")
    }
    own = _item_crs(asset)[1] or epsg
    found["proj:code"] = None if own is None else f"EPSG:{own}"
    found["raster:bands"] = declared or None
    return {name: value for name, value in found.items() if value is not None}
