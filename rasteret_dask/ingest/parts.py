"""Records and their headers as the rows of an immutable Parquet part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import CollectionError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Part, part_stats
from rasteret_dask.index.place import Place
from rasteret_dask.index.rows import HeaderBand, band_array
from rasteret_dask.ingest.records import AssetRef, Record

ROWS_PER_GROUP: Final = 512
"""Rows that are read or passed over together; each group costs a reader some milliseconds."""

JOURNAL: Final = b"rasteret_dask:slice"
"""Key of a slice's own account among the metadata of its part."""

Bands = Mapping[tuple[str, str], HeaderBand]
"""Headers by item and band."""


def make_table(records: Sequence[Record], made: pa.Schema, bands: Bands) -> pa.Table:
    """Rows of a part, in the order of the records."""
    found = {
        name: [bands.get((record.id, name)) for record in records]
        for name in schema.band_names(made)
    }
    # The file is the truth about its CRS; STAC speaks only where no file does.
    crs = [
        crs_columns(next((b.header.crs for b in row if b and b.header.crs), record.crs))
        for record, row in zip(records, zip(*found.values(), strict=True), strict=True)
    ]
    refs = [{ref.band: ref for ref in record.assets} for record in records]
    arrays = {
        schema.ASSETS: _assets(refs, made.field(schema.ASSETS).type),
        **{schema.band_column(name): band_array(column) for name, column in found.items()},
        **{n: pa.array([row[n] for row in crs], made.field(n).type) for n in crs_columns(None)},
    }
    for field in made:
        if field.name not in arrays:
            values = [record.columns.get(field.name) for record in records]
            arrays[field.name] = pa.array(values, field.type)
    return pa.Table.from_arrays([arrays[field.name] for field in made], schema=made)


def crs_columns(crs: str | None) -> dict[str, Any]:
    """The columns that say what CRS an item has."""
    code = None if crs is None else crs.removeprefix("EPSG:")
    epsg = int(code) if code is not None and code.isdigit() else None
    return {schema.CRS: crs, schema.EPSG: epsg}


def _assets(rows: Sequence[Mapping[str, AssetRef]], kind: pa.StructType) -> pa.StructArray:
    """The column of links: a field for each band, null where an item lacks it."""
    columns = [_links([row.get(field.name) for row in rows], field.type) for field in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _links(refs: Sequence[AssetRef | None], kind: pa.StructType) -> pa.StructArray:
    values = {
        "href": [ref and ref.url for ref in refs],
        "band_index": [ref and ref.index for ref in refs],
        "key": [ref and ref.key for ref in refs],
        schema.RASTER_BANDS: [ref and _claims(ref) for ref in refs],
    }
    arrays = [pa.array(values[field.name], field.type) for field in kind]
    missing = pa.array([ref is None for ref in refs])
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=missing)


def _claims(ref: AssetRef) -> list[dict[str, Any]]:
    claims = {
        "data_type": _maybe(ref.claims.get("data_type"), str),
        "nodata": _maybe(ref.claims.get("nodata"), float),
        "scale": _maybe(ref.claims.get("scale"), float),
        "offset": _maybe(ref.claims.get("offset"), float),
        "unit": _maybe(ref.claims.get("unit"), str),
    }
    return [claims] if any(value is not None for value in claims.values()) else []


def _maybe(value: Any, kind: type[str] | type[float]) -> Any:
    if value is None:
        return None
    try:
        return kind(value)  # "nan" and "inf" are floats too
    except (TypeError, ValueError):
        return None


def write_part(place: Place, key: str, table: pa.Table, told: Mapping[str, Any]) -> Part:
    """Write rows as the part of a slice; one that is there already must be the same, as its name
    says.

    Parameters
    ----------
    place : Place
    key : str
        Of the slice; the part's name is made of it.
    table : pyarrow.Table
    told : mapping
        What the part says of itself besides, as JSON.

    Raises
    ------
    CollectionError
        It is there and differs.
    """
    data = _parquet(table, told)
    part = describe(key, data, table)
    if not place.create(part.file, data) and place.read(part.file) != data:
        raise CollectionError(
            "a part that is there differs from what is to be written",
            url=place.join(part.file),
            hint="it is damaged: remove it and build again",
        )
    return part


def _parquet(table: pa.Table, told: Mapping[str, Any]) -> bytes:
    journal = json.dumps(told, sort_keys=True, ensure_ascii=False).encode()
    metadata = {**(table.schema.metadata or {}), JOURNAL: journal}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **schema.writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata(metadata)  # the Arrow schema, which is left out, held them
    data: bytes = sink.getvalue().to_pybytes()
    return data


def content_hash(data: bytes) -> str:
    """What a part is named by."""
    return hashlib.sha256(data).hexdigest()[:16]


def describe(key: str, data: bytes, table: pa.Table) -> Part:
    """What a commit says of a part."""
    whole = hashlib.sha256(data).hexdigest()
    return Part(f"{key}-{whole[:16]}", table.num_rows, len(data), whole, part_stats(table))
