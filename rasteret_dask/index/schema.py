"""The columns of a collection: the only place where their names and types are written.

A collection is GeoParquet 1.1 and a superset of rasteret 0.4.1's contract, so both libraries, and
any reader of Parquet, open it. `docs/formats.md` describes every column for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from rasteret_dask.errors import ArgumentError, SchemaVersionError
from rasteret_dask.index import own
from rasteret_dask.model import BandInfo

VERSION: Final = 2
"""Version of the columns; a reader refuses what is newer and knows how to read what is older.

1: no columns but ours. 2: the document's ``columns`` names others, which a reader of version 1 would leave out of what it appends.
"""

METADATA_KEY: Final = b"rasteret_dask"
"""Key of our own JSON document among a Parquet file's metadata."""

# --- columns of an item --------------------------------------------------------------------------
ID: Final = "id"
COLLECTION: Final = "collection"
DATETIME: Final = "datetime"
START: Final = "start_datetime"
END: Final = "end_datetime"
GEOMETRY: Final = "geometry"
BBOX: Final = "bbox"
ASSETS: Final = "assets"
EPSG: Final = "proj:epsg"
CRS: Final = "crs"
YEAR: Final = "year"
MONTH: Final = "month"
CLOUD_COVER: Final = "eo:cloud_cover"
BASELINE: Final = "s2:processing_baseline"
DATATAKE: Final = "s2:datatake_id"
GENERATION_TIME: Final = "s2:generation_time"
BOA_OFFSET_APPLIED: Final = "earthsearch:boa_offset_applied"
ORBIT_STATE: Final = "sat:orbit_state"
RELATIVE_ORBIT: Final = "sat:relative_orbit"
GRID_CODE: Final = "grid:code"
PROPERTIES: Final = "properties"
"""JSON text of the STAC properties that have no column of their own."""

# rasteret writes naive timestamps that mean UTC, and so do we.
TIMESTAMP: Final = pa.timestamp("us")

PROPERTY_TYPES: Final[Mapping[str, pa.DataType]] = {
    CLOUD_COVER: pa.float64(),
    "eo:snow_cover": pa.float64(),
    "platform": pa.string(),
    "constellation": pa.string(),
    "gsd": pa.float64(),
    "created": pa.string(),
    "updated": pa.string(),
    "view:sun_azimuth": pa.float64(),
    "view:sun_elevation": pa.float64(),
    "view:off_nadir": pa.float64(),
    ORBIT_STATE: pa.string(),
    RELATIVE_ORBIT: pa.int32(),
    GRID_CODE: pa.string(),
    "s2:mgrs_tile": pa.string(),
    "s2:product_uri": pa.string(),
    BASELINE: pa.string(),
    DATATAKE: pa.string(),
    GENERATION_TIME: pa.string(),
    "s2:nodata_pixel_percentage": pa.float64(),
    BOA_OFFSET_APPLIED: pa.bool_(),
    "landsat:wrs_path": pa.string(),
    "landsat:wrs_row": pa.string(),
    "landsat:scene_id": pa.string(),
    "landsat:collection_category": pa.string(),
    "landsat:cloud_cover_land": pa.float64(),
}
"""STAC properties that get a typed column; present, perhaps null, in every collection."""

BBOX_TYPE: Final = pa.struct([(n, pa.float64()) for n in ("xmin", "ymin", "xmax", "ymax")])

RASTER_BANDS: Final = "raster:bands"
ASSET_TYPE: Final = pa.struct(
    [
        ("href", pa.string()),
        ("band_index", pa.int32()),
        ("key", pa.string()),
        (
            RASTER_BANDS,
            pa.list_(
                pa.struct(
                    [
                        ("data_type", pa.string()),
                        ("nodata", pa.float64()),
                        ("scale", pa.float64()),
                        ("offset", pa.float64()),
                        ("unit", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
"""What STAC says of the asset behind a band; rasteret reads ``href`` and ``band_index``."""

# --- the struct of a band ------------------------------------------------------------------------
_TILES: Final = pa.list_(pa.int64())

LEVEL_TYPE: Final = pa.struct(
    [
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("tile_width", pa.int32()),
        ("tile_height", pa.int32()),
        ("layout", pa.string()),
        ("tile_offsets", _TILES),
        ("tile_byte_counts", _TILES),
    ]
)
"""An overview, or a mask; null for a level without one. ``layout`` is JSON of what differs from
full resolution."""

BAND_TYPE: Final = pa.struct(
    [
        # rasteret's contract
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("tile_width", pa.int32()),
        ("tile_height", pa.int32()),
        ("dtype", pa.string()),
        ("transform", pa.list_(pa.float64())),
        ("predictor", pa.int32()),
        ("compression", pa.int32()),
        ("tile_offsets", _TILES),
        ("tile_byte_counts", _TILES),
        ("pixel_scale", pa.list_(pa.float64())),
        ("tiepoint", pa.list_(pa.float64())),
        ("nodata", pa.float64()),
        ("samples_per_pixel", pa.int32()),
        ("planar_configuration", pa.int32()),
        ("photometric", pa.int32()),
        ("extra_samples", pa.list_(pa.int32())),
        # ours
        ("band_index", pa.int32()),
        ("crs", pa.string()),
        ("bits_per_sample", pa.int32()),
        ("little_endian", pa.bool_()),
        ("strips", pa.bool_()),
        ("fill_order", pa.int32()),
        ("subsampling", pa.list_(pa.int32())),
        ("codec_tables", pa.binary()),
        ("nodata_text", pa.string()),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("last_modified", pa.string()),
        ("levels", pa.list_(LEVEL_TYPE)),
        ("masks", pa.list_(LEVEL_TYPE)),
        ("extras", pa.string()),
    ]
)
"""One band of one item: rasteret's fields, then ours. ``levels`` holds the overviews; ``masks``
one entry a level."""

_SUFFIX: Final = "_metadata"


def band_column(band: str) -> str:
    """Name of the column that holds a band's headers."""
    return f"{band}{_SUFFIX}"


def band_names(schema: pa.Schema) -> tuple[str, ...]:
    """Bands that a schema has columns for, in its order."""
    return tuple(
        field.name.removesuffix(_SUFFIX)
        for field in schema
        if field.name.endswith(_SUFFIX)
        and pa.types.is_struct(field.type)
        and field.type.get_field_index("tile_offsets") >= 0
    )


def item_fields() -> list[pa.Field]:
    """The fields that come before the bands, without ``assets``, whose type depends on the
    bands."""
    return [
        pa.field(ID, pa.string(), nullable=False),
        pa.field(COLLECTION, pa.string()),
        pa.field(DATETIME, TIMESTAMP),
        pa.field(START, TIMESTAMP),
        pa.field(END, TIMESTAMP),
        pa.field(GEOMETRY, pa.binary()),
        pa.field(BBOX, BBOX_TYPE),
        pa.field(EPSG, pa.int32()),
        pa.field(CRS, pa.string()),
        pa.field(YEAR, pa.int32()),
        pa.field(MONTH, pa.int32()),
        *(pa.field(name, kind) for name, kind in PROPERTY_TYPES.items()),
        pa.field(PROPERTIES, pa.string()),
    ]


def make_schema(bands: Iterable[str], document: Mapping[str, Any] | None = None) -> pa.Schema:
    """Schema of a collection with these bands.

    Parameters
    ----------
    bands : iterable of str
        Canonical band names.
    document : mapping, optional
        Further entries of our JSON document (name, bands, dataset …); must be the same for the same
        input. Its ``columns`` are those that the collection has beside ours.

    Raises
    ------
    ArgumentError
        There are no bands.
    """
    names = list(bands)
    if not names:
        raise ArgumentError("a collection needs at least one band")
    fields = item_fields()
    fields += [pa.field(name, kind) for name, kind in own.declared(document or {}).items()]
    fields.append(pa.field(ASSETS, pa.struct([(name, ASSET_TYPE) for name in names])))
    fields += [pa.field(band_column(name), BAND_TYPE) for name in names]
    ours = {"schema_version": VERSION, **(document or {})}
    metadata = {METADATA_KEY: json.dumps(ours, sort_keys=True).encode(), b"geo": _geo().encode()}
    for key in ("name", "data_source"):  # rasteret looks for these
        if ours.get(key):
            metadata[key.encode()] = str(ours[key]).encode()
    return pa.schema(fields, metadata=metadata)


def _geo() -> str:
    covering = {n: [BBOX, n] for n in ("xmin", "ymin", "xmax", "ymax")}
    column = {"encoding": "WKB", "geometry_types": [], "covering": {"bbox": covering}}
    return json.dumps(
        {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}},
        sort_keys=True,
    )


def document(schema: pa.Schema, *, url: str | None = None) -> dict[str, Any]:
    """Our JSON document of a schema; empty for a table that another library wrote.

    Raises
    ------
    SchemaVersionError
        It was written by a newer version of this package.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return {}
    found: dict[str, Any] = json.loads(raw)
    check_version(found.get("schema_version", 1), VERSION, "the columns of this collection", url)
    return found


def band_infos(document: Mapping[str, Any]) -> tuple[BandInfo, ...]:
    """The bands that a JSON document describes."""
    return tuple(
        BandInfo(**{**band, "aliases": tuple(band.get("aliases", ()))})
        for band in document.get("bands", ())
    )


def check_version(found: Any, known: int, what: str, url: str | None = None) -> None:
    """Refuse a version that is newer than ours.

    Parameters
    ----------
    found
        What the document says.
    known : int
        The newest that is understood.
    what : str
        Of which the version is, for the error.
    url : str, optional
        Where it lies.

    Raises
    ------
    SchemaVersionError
        ``found`` is newer, or no number.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise SchemaVersionError(f"{what}: {found!r} is no version number", url=url)
    if found > known:
        raise SchemaVersionError(
            f"{what}: version {found} is newer than {known}, the newest this package knows",
            url=url,
            hint="install a newer rasteret-dask to read it",
        )


# --- how Parquet is written ----------------------------------------------------------------------
_WIDE: Final = {ID, GEOMETRY, PROPERTIES}
_COVERING: Final = tuple(f"{BBOX}.{n}" for n in ("xmin", "ymin", "xmax", "ymax"))


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Pinned options of ``pyarrow.parquet.ParquetWriter``: the same rows give the same bytes.

    Opening a part costs time for each of its hundreds of leaf columns, more than its rows do: so
    there are no dictionaries (a page and a decoder each), no copy of the Arrow schema (half of the
    footer), and statistics only where queries prune by them. Whole numbers and short texts hardly
    vary within a part; delta encodings leave next to nothing of them, so that they need no
    compression. Tile ranges are 64-bit numbers that differ little in their high bytes: split into
    byte streams and compressed they take less than 6 bytes a tile (``benchmarks.ranges``).
    """
    encodings: dict[str, str] = {}
    levels: dict[str, int] = {}
    leaves = [pair for field in schema for pair in _leaves(field.name, field.type)]
    flat = set(schema.names)
    for leaf, kind in leaves:
        encoding = _encoding(leaf, kind)
        if encoding is not None:
            encodings[leaf] = encoding
        if encoding is None or encoding == "BYTE_STREAM_SPLIT" or leaf.endswith(".href"):
            levels[leaf] = 6
    return {
        "version": "2.6",
        "compression": {leaf: "zstd" if leaf in levels else "none" for leaf, _ in leaves},
        "compression_level": levels,
        "use_dictionary": False,
        "column_encoding": encodings,
        "write_statistics": [leaf for leaf, _ in leaves if leaf in flat or leaf in _COVERING],
        "data_page_size": 1024 * 1024,
        "store_schema": False,
    }


def _encoding(leaf: str, kind: pa.DataType) -> str | None:
    if ".tile_offsets." in leaf or ".tile_byte_counts." in leaf:
        return "BYTE_STREAM_SPLIT"
    if leaf in _WIDE:
        return None
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return "DELTA_BINARY_PACKED"
    return "DELTA_BYTE_ARRAY" if pa.types.is_string(kind) else None


def _leaves(path: str, kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [(path, kind)]
