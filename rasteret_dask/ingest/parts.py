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
from rasteret_dask.ingest.records import AssetRef, Record

ROWS_PER_GROUP: Final = 512
"""Rows that are read or passed over together; each group costs a reader some milliseconds."""

JOURNAL: Final = b"rasteret_dask:slice"
"""Key of a slice's own account among the metadata of its part."""

Structs = Mapping[tuple[str, str], Mapping[str, Any]]
"""Values of `schema.BAND_TYPE` by item and band."""


def make_table(records: Sequence[Record], made: pa.Schema, structs: Structs) -> pa.Table:
    """Rows of a part, in the order of the records."""
    bands = schema.band_names(made)
    rows = [_row(record, bands, structs) for record in records]
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in made]
    return pa.Table.from_arrays(columns, schema=made)


def _row(record: Record, bands: Sequence[str], structs: Structs) -> dict[str, Any]:
    row = dict(record.columns)
    row[schema.ASSETS] = {ref.band: _asset(ref) for ref in record.assets}
    mine = {band: structs.get((record.id, band)) for band in bands}
    row.update({schema.band_column(name): struct for name, struct in mine.items()})
    # The file is the truth about its CRS; STAC speaks only where no file does.
    said = [s["crs"] for s in mine.values() if s is not None and s["crs"]]
    row.update(crs_columns(said[0] if said else record.crs))
    return row


def crs_columns(crs: str | None) -> dict[str, Any]:
    """The columns that say what CRS an item has."""
    code = None if crs is None else crs.removeprefix("EPSG:")
    epsg = int(code) if code is not None and code.isdigit() else None
    return {schema.CRS: crs, schema.EPSG: epsg}


def _asset(ref: AssetRef) -> dict[str, Any]:
    claims = {
        "data_type": _maybe(ref.claims.get("data_type"), str),
        "nodata": _maybe(ref.claims.get("nodata"), float),
        "scale": _maybe(ref.claims.get("scale"), float),
        "offset": _maybe(ref.claims.get("offset"), float),
        "unit": _maybe(ref.claims.get("unit"), str),
    }
    said = any(value is not None for value in claims.values())
    return {
        "href": ref.url,
        "band_index": ref.index,
        "key": ref.key,
        schema.RASTER_BANDS: [claims] if said else [],
    }


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
