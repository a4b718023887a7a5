"""The unit of a build: a slice of the search becomes one immutable part. All of this runs on
workers.

A slice never raises. Its part is written under a name made of the slice and its content, which is
all the journal there is: a slice whose part is there is not fetched again, by whoever runs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import CollectionError, RasteretError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import PARTS, STATS_COLUMNS, SUFFIX, Part, part_file, part_stats
from rasteret_dask.index.place import Place
from rasteret_dask.index.rows import header_to_struct
from rasteret_dask.ingest.disagree import Disagreement, compare
from rasteret_dask.ingest.headers import FIRST_READ, fetch_headers
from rasteret_dask.ingest.records import AssetRef, Record
from rasteret_dask.ingest.report import Failure
from rasteret_dask.model import BandInfo, StorageOptions
from rasteret_dask.storage.counters import Counters, snapshot
from rasteret_dask.storage.loop import run
from rasteret_dask.tiff.model import TiffHeader

ROWS_PER_GROUP: Final = 256
SLICE_ASSETS: Final = 1024
"""Headers of a slice, about: a second or two of work."""

_JOURNAL: Final = b"rasteret_dask:slice"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every slice of a build has in common.

    Parameters
    ----------
    place : Place
        The collection.
    bands : tuple of BandInfo
    document : mapping
        The JSON document of the schema.
    storage : StorageOptions
        How the rasters are reached.
    first_read : int
        Bytes of the first request for a header.
    reuse : bool
        Whether parts of former runs are good enough.
    """

    place: Place
    bands: tuple[BandInfo, ...]
    document: Mapping[str, Any]
    storage: StorageOptions = field(default_factory=StorageOptions)
    first_read: int = FIRST_READ
    reuse: bool = True

    @property
    def schema(self) -> pa.Schema:
        """Of the parts."""
        return schema.make_schema([band.name for band in self.bands], self.document)


@dataclass(frozen=True, slots=True)
class Slice:
    """Some items of a build.

    Parameters
    ----------
    key : str
        Position and hash of the content: the same items for the same collection have the same key.
    records : tuple of Record
        In the order of the rows.
    """

    key: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a slice.

    Parameters
    ----------
    key : str
    part : Part, optional
        The part; None when it could not be written.
    assets, headers : int
    failures, disagreements : tuple
    process : str
        Which process did it.
    before, after : Counters
        That process's counts when it began and ended.
    reused : bool
        The part was there already.
    error : str, optional
        Why there is no part.
    """

    key: str
    part: Part | None = None
    assets: int = 0
    headers: int = 0
    failures: tuple[Failure, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    process: str = ""
    before: Counters = field(default_factory=Counters)
    after: Counters = field(default_factory=Counters)
    reused: bool = False
    error: str | None = None


def cut(records: Sequence[Record], bands: Sequence[BandInfo], document: Any) -> list[Slice]:
    """Cut sorted records into slices; the same records give the same slices, however many workers
    there are."""
    most = max(1, SLICE_ASSETS // max(1, len(bands)))
    size = min(most, max(2, -(-len(records) // 8)))
    common = json.dumps([document, schema.VERSION], sort_keys=True, default=str)
    out: list[Slice] = []
    for start in range(0, len(records), size):
        chosen = tuple(records[start : start + size])
        key = hashlib.sha256(common.encode())
        for record in chosen:
            key.update(json.dumps(_plain(record), sort_keys=True, default=_text).encode())
        out.append(Slice(f"{len(out):06d}-{key.hexdigest()[:12]}", chosen))
    return out


def _plain(record: Record) -> list[Any]:
    refs = [[r.band, r.index, r.key, r.url, r.claims, r.said] for r in record.assets]
    return [record.id, record.columns, record.crs, refs]


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def work(slices: Sequence[Slice], recipe: Recipe) -> list[Outcome]:
    """Index the slices of one partition of the bag."""
    return [index_slice(one, recipe) for one in slices]


def index_slice(one: Slice, recipe: Recipe) -> Outcome:
    """Fetch the headers of a slice and write its part, unless it is there."""
    process, before = f"{socket.gethostname()}:{os.getpid()}", snapshot()
    try:
        outcome = _journal(one, recipe) if recipe.reuse else None
        if outcome is None:
            outcome = _index(one, recipe)
    except (RasteretError, OSError, pa.ArrowException) as error:
        message = error.message if isinstance(error, RasteretError) else str(error)
        outcome = Outcome(one.key, error=f"{type(error).__name__}: {message}")
    return replace(outcome, process=process, before=before, after=snapshot())


def _journal(one: Slice, recipe: Recipe) -> Outcome | None:
    """The outcome of a former run, if it finished this slice and nothing in it is worth another
    try."""
    for name in sorted(recipe.place.list(f"{PARTS}/{one.key}")):
        if not name.endswith(SUFFIX):
            continue
        content = name.removesuffix(SUFFIX)
        data = recipe.place.read(part_file(one.key, content))
        if data is None or _content(data) != content:
            continue
        table = pq.read_table(pa.BufferReader(data), columns=list(STATS_COLUMNS))
        told = json.loads(table.schema.metadata[_JOURNAL])
        failures = tuple(Failure(**f) for f in told["failures"])
        if not any(f.transient for f in failures):
            return Outcome(
                one.key,
                _part(one.key, data, table),
                told["assets"],
                told["headers"],
                failures,
                tuple(Disagreement(**d) for d in told["disagreements"]),
                reused=True,
            )
    return None


def _index(one: Slice, recipe: Recipe) -> Outcome:
    refs = [(record, ref) for record in one.records for ref in record.assets]
    urls = list(dict.fromkeys(ref.url for _, ref in refs))
    found = run(fetch_headers(urls, options=recipe.storage, first_read=recipe.first_read))
    headers = dict(zip(urls, found, strict=True))
    failures: list[Failure] = []
    structs: dict[tuple[str, str], dict[str, Any]] = {}
    for record, ref in refs:
        try:
            struct = _struct(headers[ref.url], ref.index)
        except RasteretError as error:
            failures.append(Failure.of(error, record.id, ref.band, ref.url))
            continue
        structs[record.id, ref.band] = struct
    disagreements = [d for record in one.records for d in _disagreements(record, headers)]
    told = {
        "assets": len(refs),
        "headers": len(structs),
        "failures": [asdict(f) for f in failures],
        "disagreements": [asdict(d) for d in disagreements],
    }
    table = _table(one, recipe, structs)
    data = _parquet(table, told)
    content = _content(data)
    _keep(recipe.place, part_file(one.key, content), data)
    return Outcome(
        one.key,
        _part(one.key, data, table),
        len(refs),
        len(structs),
        tuple(failures),
        tuple(disagreements),
    )


def _keep(place: Place, name: str, data: bytes) -> None:
    """Write a part; one that is there already must be the same, as its name says."""
    if not place.create(name, data) and place.read(name) != data:
        raise CollectionError(
            "a part that is there differs from what is to be written",
            url=place.join(name),
            hint="it is damaged: remove it and build again",
        )


def _struct(found: TiffHeader | RasteretError, band_index: int) -> dict[str, Any]:
    if isinstance(found, RasteretError):
        raise found
    return header_to_struct(found, band_index)


def _disagreements(record: Record, headers: Mapping[str, Any]) -> list[Disagreement]:
    """What STAC says of a record's files and the files deny; each file once, however many bands."""
    files = {ref.key: ref for ref in record.assets}
    found: list[Disagreement] = []
    for key, ref in files.items():
        header = headers[ref.url]
        if isinstance(header, TiffHeader):
            item = {"id": record.id, "assets": {key: ref.said}}
            found += compare(item, key, header)
    return found


# --- the part ------------------------------------------------------------------------------------
def _table(
    one: Slice, recipe: Recipe, structs: Mapping[tuple[str, str], dict[str, Any]]
) -> pa.Table:
    made = recipe.schema
    rows = [_row(record, recipe, structs) for record in one.records]
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in made]
    return pa.Table.from_arrays(columns, schema=made)


def _row(
    record: Record, recipe: Recipe, structs: Mapping[tuple[str, str], dict[str, Any]]
) -> dict[str, Any]:
    row = dict(record.columns)
    row[schema.ASSETS] = {ref.band: _asset(ref) for ref in record.assets}
    mine = {band.name: structs.get((record.id, band.name)) for band in recipe.bands}
    row.update({schema.band_column(name): struct for name, struct in mine.items()})
    # The file is the truth about its CRS; STAC speaks only where no file does.
    said = [s["crs"] for s in mine.values() if s is not None and s["crs"]]
    crs = said[0] if said else record.crs
    row[schema.CRS] = crs
    code = None if crs is None else crs.removeprefix("EPSG:")
    row[schema.EPSG] = int(code) if code is not None and code.isdigit() else None
    return row


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


def _parquet(table: pa.Table, told: Mapping[str, Any]) -> bytes:
    journal = json.dumps(told, sort_keys=True, ensure_ascii=False).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _JOURNAL: journal})
    sink = pa.BufferOutputStream()
    options = schema.writer_options(table.schema)
    pq.write_table(table, sink, row_group_size=ROWS_PER_GROUP, **options)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _content(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _part(key: str, data: bytes, table: pa.Table) -> Part:
    return Part(
        f"{key}-{_content(data)}",
        table.num_rows,
        len(data),
        hashlib.sha256(data).hexdigest(),
        part_stats(table),
    )
