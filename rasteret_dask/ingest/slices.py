"""The unit of a build: a slice of the search becomes one immutable part. All of this runs on
workers.

A slice never raises. Its part is written under a name made of the slice and its content, which is
all the journal there is: a slice whose part is there is neither searched nor fetched again, by
whoever runs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import EmptySelectionError, RasteretError
from rasteret_dask.index import own, schema
from rasteret_dask.index.commit import PARTS, STATS_COLUMNS, SUFFIX, Part, part_file
from rasteret_dask.index.place import Place
from rasteret_dask.index.rows import HeaderBand
from rasteret_dask.ingest.cells import Cell, search_cell
from rasteret_dask.ingest.disagree import Disagreement, contradictions
from rasteret_dask.ingest.headers import FIRST_READ, fetch_headers
from rasteret_dask.ingest.parts import JOURNAL, content_hash, describe, make_table, write_part
from rasteret_dask.ingest.records import (
    AS_THEY_ARE,
    Links,
    Record,
    make_record,
    reprocessed,
    sort_records,
)
from rasteret_dask.ingest.report import Failure
from rasteret_dask.model import BandInfo, StorageOptions
from rasteret_dask.storage.counters import Counters, snapshot
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.regions import region_of
from rasteret_dask.tiff.model import TiffHeader


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
    links : Links
        Which links are taken, for slices that search.
    """

    place: Place
    bands: tuple[BandInfo, ...]
    document: Mapping[str, Any]
    storage: StorageOptions = field(default_factory=StorageOptions)
    first_read: int = FIRST_READ
    reuse: bool = True
    links: Links = AS_THEY_ARE

    @property
    def schema(self) -> pa.Schema:
        """Of the parts."""
        return schema.make_schema([band.name for band in self.bands], self.document)

    def record(self, item: Mapping[str, Any]) -> Record:
        """A STAC item as a record of this build."""
        return make_record(item, self.bands, self.links, own.declared(self.document))


@dataclass(frozen=True, slots=True)
class Slice:
    """Some items of a build, known or still to be searched.

    Parameters
    ----------
    key : str
        Position and hash of the content: the same items, or the same search, for the same
        collection have the same key.
    records : tuple of Record
        In the order of the rows.
    cell : Cell, optional
        The search that finds them.
    """

    key: str
    records: tuple[Record, ...] = ()
    cell: Cell | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a slice.

    Parameters
    ----------
    key : str
    part : Part, optional
        The part; None when it could not be written, or there is nothing to write.
    assets, headers : int
    failures, disagreements, warnings : tuple
    ids : bytes
        Eight bytes of hash for each item of a slice that searched.
    process : str
        Which process did it.
    before, after : Counters
        That process's counts when it began and ended.
    reused : bool
        The part was there already.
    region : str, optional
        Where the files lie that were read, if that is known.
    error : str, optional
        Why there is no part.
    """

    key: str
    part: Part | None = None
    assets: int = 0
    headers: int = 0
    failures: tuple[Failure, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    warnings: tuple[str, ...] = ()
    ids: bytes = b""
    process: str = ""
    before: Counters = field(default_factory=Counters)
    after: Counters = field(default_factory=Counters)
    reused: bool = False
    region: str | None = None
    error: str | None = None


def work(slices: Sequence[Slice], recipe: Recipe) -> list[Outcome]:
    """Index the slices of one partition of the bag."""
    return [index_slice(one, recipe) for one in slices]


def index_slice(one: Slice, recipe: Recipe) -> Outcome:
    """Fetch the headers of a slice and write its part, unless it is there."""

    def job() -> Outcome:
        done = journal(recipe.place, one.key) if recipe.reuse else None
        return _index(one, recipe) if done is None else done

    outcome = guarded(one.key, job)
    return outcome if one.cell is not None else replace(outcome, ids=b"")


def guarded(key: str, job: Callable[[], Outcome]) -> Outcome:
    """The outcome of a slice, which never raises, and what it cost."""
    process, before = process_name(), snapshot()
    try:
        outcome = job()
    except EmptySelectionError:
        outcome = Outcome(key)
    except (RasteretError, OSError, pa.ArrowException) as error:
        outcome = Outcome(key, error=told_of(error))
    return replace(outcome, process=process, before=before, after=snapshot())


def process_name() -> str:
    """This process, among all of a cluster."""
    return f"{socket.gethostname()}:{os.getpid()}"


def told_of(error: Exception) -> str:
    """One line on an error."""
    message = error.message if isinstance(error, RasteretError) else str(error)
    return f"{type(error).__name__}: {message}"


def journal(place: Place, key: str) -> Outcome | None:
    """The outcome of a former run, if it finished this slice and nothing in it is worth another
    try."""
    for name in sorted(place.list(f"{PARTS}/{key}")):
        if not name.endswith(SUFFIX):
            continue
        content = name.removesuffix(SUFFIX)
        data = place.read(part_file(key, content))
        if data is None or content_hash(data) != content:
            continue
        table = pq.read_table(pa.BufferReader(data), columns=list(STATS_COLUMNS))
        told = json.loads(table.schema.metadata[JOURNAL])
        failures = tuple(Failure(**f) for f in told["failures"])
        if not any(f.passing for f in failures):
            return Outcome(
                key,
                describe(key, data, table),
                told["assets"],
                told["headers"],
                failures,
                tuple(Disagreement(**d) for d in told["disagreements"]),
                tuple(told.get("warnings", ())),
                hashes(table.column(schema.ID).to_pylist()),
                reused=True,
            )
    return None


def hashes(ids: Iterable[str]) -> bytes:
    """Eight bytes for each id."""
    return b"".join(hashlib.blake2b(one.encode(), digest_size=8).digest() for one in ids)


def _index(one: Slice, recipe: Recipe) -> Outcome:
    if one.cell is None:
        return index_records(one.key, one.records, recipe)
    items = search_cell(one.cell)
    records = sort_records(map(recipe.record, items))
    # Elsewhere the client sees all records at once.
    return index_records(one.key, records, recipe, reprocessed(records))


def index_records(
    key: str, records: Sequence[Record], recipe: Recipe, warnings: Sequence[str] = ()
) -> Outcome:
    """Fetch the headers of records and write them as the part of a slice.

    Parameters
    ----------
    key : str
        Of the slice.
    records : sequence of Record
    recipe : Recipe
        How headers are read, and where parts go.
    warnings : sequence of str
        On the search that found the records.

    Raises
    ------
    CollectionError
        The part could not be written.
    """
    refs = [(record, ref) for record in records for ref in record.assets]
    urls = list(dict.fromkeys(ref.url for _, ref in refs))
    found = run(fetch_headers(urls, options=recipe.storage, first_read=recipe.first_read))
    headers = dict(zip(urls, found, strict=True))
    failures: list[Failure] = []
    bands: dict[tuple[str, str], HeaderBand] = {}
    for record, ref in refs:
        try:
            bands[record.id, ref.band] = header_band(headers[ref.url], ref.index)
        except RasteretError as error:
            failures.append(Failure.of(error, record.id, ref.band, ref.url))
    denied = disagreements(records, headers)
    told = {
        "assets": len(refs),
        "headers": len(bands),
        "failures": [asdict(f) for f in failures],
        "disagreements": [asdict(d) for d in denied],
        "warnings": list(warnings),
    }
    table = make_table(records, recipe.schema, bands)
    return Outcome(
        key,
        write_part(recipe.place, key, table, told),
        len(refs),
        len(bands),
        tuple(failures),
        tuple(denied),
        tuple(warnings),
        hashes(record.id for record in records),
        region=region_of(urls[0], recipe.storage) if urls else None,
    )


def header_band(found: TiffHeader | RasteretError, band_index: int) -> HeaderBand:
    """One band of what a fetch gave.

    Raises
    ------
    RasteretError
        What it gave is an error, or a file without that band.
    """
    if isinstance(found, RasteretError):
        raise found
    return HeaderBand(found, band_index)


def disagreements(records: Sequence[Record], headers: Mapping[str, Any]) -> list[Disagreement]:
    """What STAC says of files and the files deny; each file once, however many bands."""
    known: dict[int, list[tuple[Mapping[str, Any], list[tuple[str, str, str]]]]] = {}
    found: list[Disagreement] = []
    for record in records:
        for key, ref in {ref.key: ref for ref in record.assets}.items():
            header = headers[ref.url]
            if not isinstance(header, TiffHeader):
                continue
            # Of files that are alike the same is mostly said, and need not be compared again.
            before = known.setdefault(id(header.like or header), [])
            parts = next((parts for said, parts in before if said == ref.said), None)
            if parts is None:
                parts = contradictions(ref.said, ref.said, header)
                before[:] = [(ref.said, parts), *before[:3]]
            found += [Disagreement(record.id, key, *part) for part in parts]
    return found
