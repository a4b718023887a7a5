"""A part whose files are looked at again. All of this runs on workers.

A file is asked for a few bytes; what comes with them (ETag, size, date) says whether it is still
the one whose header was indexed. The part with the headers of those that changed goes beside the
old one, which stays as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import CollectionError, NotFoundError, RasteretError, TransientError
from rasteret_dask.index import columns, schema
from rasteret_dask.index.commit import part_file
from rasteret_dask.index.rows import HeaderBand, band_array
from rasteret_dask.ingest.headers import fetch_headers
from rasteret_dask.ingest.parts import JOURNAL, crs_columns, describe, write_part
from rasteret_dask.ingest.report import Failure
from rasteret_dask.ingest.slices import (
    Outcome,
    Recipe,
    Slice,
    header_band,
    journal,
    process_name,
    told_of,
)
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage.counters import snapshot
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.ranges import is_etag
from rasteret_dask.storage.source import RangeResponse, read_range

GLANCE: Final = 16
"""Bytes that are asked for: some stores answer no request for none."""
_TOGETHER: Final = 64

_Answer = RangeResponse | RasteretError


@dataclass(frozen=True, slots=True)
class _File:
    """One band of one row, and the version that was indexed."""

    row: int
    item: str
    band: str
    index: int
    url: str
    known: bool
    etag: str | None
    size: int | None
    last_modified: str | None


def refresh_parts(parts: Sequence[Slice], recipe: Recipe) -> list[Outcome]:
    """Look at the files of each part; the key of a slice here is the name of the old part."""
    return [_refresh(one.key, recipe) for one in parts]


def _refresh(name: str, recipe: Recipe) -> Outcome:
    before = snapshot()
    try:
        outcome = _looked_at(name, recipe)
    except (RasteretError, OSError, pa.ArrowException) as error:
        outcome = Outcome(name, error=told_of(error))
    return replace(outcome, process=process_name(), before=before, after=snapshot())


def _looked_at(name: str, recipe: Recipe) -> Outcome:
    old_key, _, content = name.rpartition("-")
    data = recipe.place.read(part_file(old_key, content))
    if data is None:
        raise CollectionError("a part is missing", url=recipe.place.join(name))
    table = pq.read_table(pa.BufferReader(data))
    # Parquet alone keeps no Arrow types; its lists and nulls come back in another spelling.
    names = schema.band_names(table.schema)
    made = schema.make_schema(names, schema.document(table.schema, url=recipe.place.url))
    table = table.cast(made.with_metadata(table.schema.metadata))
    told = json.loads(table.schema.metadata[JOURNAL])
    files = _files(table)
    answers = run(_glance([file.url for file in files], recipe.storage))
    changed = [file for file in files if _changed(file, answers[file.url])]
    warnings = [
        f"{file.item} {file.band}: could not be looked at: {answer.message}"
        for file in files
        if file.known and isinstance(answer := answers[file.url], RasteretError)
        if not isinstance(answer, NotFoundError)
    ]
    failures = tuple(Failure(**f) for f in told["failures"])
    if not changed:
        part = describe(old_key, data, table)
        return Outcome(
            name, part, told["assets"], told["headers"], failures, warnings=tuple(warnings)
        )
    key = _key(old_key, name, changed, answers)
    finished = journal(recipe.place, key)
    if finished is not None:
        return replace(finished, ids=b"", warnings=tuple(warnings))
    new, failures = _read_again(table, changed, recipe, warnings)
    account = {**told, "headers": _headers(new), "failures": [asdict(f) for f in failures]}
    if new.equals(table):  # what could not be read still cannot
        part = describe(old_key, data, table)
    else:
        part = write_part(recipe.place, key, new, account)
    return Outcome(
        name, part, told["assets"], account["headers"], failures, warnings=tuple(warnings)
    )


def _headers(table: pa.Table) -> int:
    names = [schema.band_column(band) for band in schema.band_names(table.schema)]
    return sum(len(table) - table.column(name).null_count for name in names)


def _files(table: pa.Table) -> list[_File]:
    """All bands of a part that have a file."""
    out = []
    ids = table.column(schema.ID).to_pylist()
    assets = columns.one_array(table.column(schema.ASSETS))
    for band in schema.band_names(table.schema):
        column = columns.one_array(table.column(schema.band_column(band)))
        asset = assets.field(band)
        told = zip(
            columns.texts(asset, "href"),
            asset.field("band_index").to_pylist(),
            column.is_valid().to_pylist(),
            *(column.field(n).to_pylist() for n in ("etag", "size", "last_modified")),
            strict=True,
        )
        for row, (url, index, known, *version) in enumerate(told):
            if url is not None:
                out.append(_File(row, ids[row], band, index, url, known, *version))
    return out


async def _glance(urls: Sequence[str], options: StorageOptions) -> dict[str, _Answer]:
    gate = asyncio.Semaphore(_TOGETHER)

    async def one(url: str) -> _Answer:
        async with gate:
            try:
                return await read_range(url, 0, GLANCE, options=options)
            except RasteretError as error:
                return error

    distinct = list(dict.fromkeys(urls))
    return dict(zip(distinct, await asyncio.gather(*map(one, distinct)), strict=True))


def _changed(file: _File, answer: _Answer) -> bool:
    """Whether a header must be read: the file is another one, or was never read; one that cannot be
    looked at now is left as it was."""
    if isinstance(answer, RasteretError):
        return isinstance(answer, NotFoundError) or not file.known
    if not file.known:
        return True
    if is_etag(file.etag) and is_etag(answer.etag):
        return file.etag != answer.etag
    pairs = ((file.size, answer.size), (file.last_modified, answer.last_modified))
    known = [(then, now) for then, now in pairs if then is not None and now is not None]
    return not known or any(then != now for then, now in known)


def _key(old_key: str, name: str, changed: Sequence[_File], answers: Mapping[str, _Answer]) -> str:
    """Of the new part: the old one, and the versions that are found now."""
    versions = []
    for file in changed:
        answer = answers[file.url]
        found = (
            [answer.etag, answer.size, answer.last_modified]
            if isinstance(answer, RangeResponse)
            else [type(answer).__name__]
        )
        versions.append([file.item, file.band, *found])
    text = json.dumps([name, versions], sort_keys=True)
    return f"{old_key.partition('-')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _read_again(
    table: pa.Table, changed: Sequence[_File], recipe: Recipe, warnings: list[str]
) -> tuple[pa.Table, tuple[Failure, ...]]:
    """The table with headers that were read now, and those that could not be."""
    urls = list(dict.fromkeys(file.url for file in changed))
    found = run(fetch_headers(urls, options=recipe.storage, first_read=recipe.first_read))
    headers = dict(zip(urls, found, strict=True))
    failures: list[Failure] = []
    fresh: dict[str, dict[int, HeaderBand | None]] = {}
    for file in changed:
        band = None
        try:
            band = header_band(headers[file.url], file.index)
        except RasteretError as error:
            if file.known and isinstance(error, TransientError):
                warnings.append(f"{file.item} {file.band}: could not be read: {error.message}")
                continue  # the header stays; who reads its pixels is told that the file changed
            failures.append(Failure.of(error, file.item, file.band, file.url))
        fresh.setdefault(file.band, {})[file.row] = band
    return _with_headers(table, fresh), tuple(failures)


def _with_headers(
    table: pa.Table, fresh: Mapping[str, Mapping[int, HeaderBand | None]]
) -> pa.Table:
    """The table with other values in some rows of some bands."""
    for band, rows in fresh.items():
        name = schema.band_column(band)
        at = table.schema.get_field_index(name)
        old = columns.one_array(table.column(name))
        new = band_array(list(rows.values()))
        order = list(range(len(old)))
        for k, row in enumerate(rows):
            order[row] = len(old) + k
        both = pa.concat_arrays([old, new])
        table = table.set_column(at, table.schema.field(at), both.take(pa.array(order)))
    touched = {row for rows in fresh.values() for row in rows}
    return _with_crs(table, touched)


def _with_crs(table: pa.Table, rows: set[int]) -> pa.Table:
    """CRS columns of rows whose files may have moved: the first file that says one."""
    found = table.column(schema.CRS).to_pylist()
    bands = [
        columns.one_array(table.column(schema.band_column(band))).field("crs").to_pylist()
        for band in schema.band_names(table.schema)
    ]
    for row in rows:
        said = [band[row] for band in bands if band[row]]
        found[row] = said[0] if said else found[row]
    told = [crs_columns(crs) for crs in found]
    for name in (schema.CRS, schema.EPSG):
        at = table.schema.get_field_index(name)
        kind = table.schema.field(at)
        values = pa.array([one[name] for one in told], kind.type)
        table = table.set_column(at, kind, values)
    return table
