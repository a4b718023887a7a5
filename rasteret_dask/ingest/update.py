"""A collection kept up to date: `append` adds items that are new, `refresh` re-reads files that
changed.

Both make a new commit and leave the former one as it is, so an older snapshot stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rasteret_dask.errors import ArgumentError, CollectionError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, read_commit, write_commit
from rasteret_dask.index.dataset import open_commit
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.build import compute, finished, summarise
from rasteret_dask.ingest.cut import cut
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.records import Links, make_record, reprocessed, sort_records
from rasteret_dask.ingest.refresh import refresh_parts
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.slices import Recipe, Slice
from rasteret_dask.ingest.stac import Json, Search, search_api, search_static
from rasteret_dask.model import BandInfo, StorageOptions


def newest(place: Place) -> Commit:
    """The snapshot that an update starts from.

    Raises
    ------
    CollectionError
        There is none.
    """
    found = read_commit(place)
    if found is None:
        raise CollectionError("there is no collection to update", url=place.url)
    return found


def search_again(commit: Commit) -> list[Json]:
    """The items that a collection's own search finds now.

    Raises
    ------
    ArgumentError
        It was built of items that were given.
    SourceError
        The catalogue cannot be read.
    """
    source = dict(commit.arguments.get("source") or {})
    api, catalogue = source.pop("stac_api", None), source.pop("static_catalog", None)
    if api is None and catalogue is None:
        raise ArgumentError(
            f"{commit.name!r} was built of items that were given", hint="pass the new ones: items=…"
        )
    collection, bbox = source.pop("collection", None), source.pop("bbox", None)
    search = Search.of(collection, bbox, source.pop("date_range", None), source)
    return search_static(catalogue, search) if api is None else search_api(api, search)


def append_items(
    place: Place,
    items: Iterable[Json],
    bands: Sequence[BandInfo],
    storage: StorageOptions,
    *,
    first_read: int = FIRST_READ,
) -> tuple[Commit, BuildReport]:
    """Index the items that the newest snapshot lacks, and commit them beside what is there.

    Returns
    -------
    Commit, BuildReport
        The newest snapshot as it is when nothing is new. The report is of the new items alone; the
        commit's is of all.

    Raises
    ------
    CommitConflictError
        Another builder committed meanwhile; what was fetched is kept and used by the next attempt.
    """
    standing = newest(place)
    known = set(open_commit(place, standing).read([schema.ID]).column(schema.ID).to_pylist())
    said = standing.arguments
    links = Links(said.get("prefer"), said.get("url_rewrite_patterns") or {})
    records = [make_record(item, bands, links) for item in items if item["id"] not in known]
    fresh = sort_records(records)
    if not fresh:
        return standing, BuildReport()
    document = {k: v for k, v in standing.document.items() if k != "schema_version"}
    recipe = Recipe(place, tuple(bands), document, storage, first_read)
    outcomes = compute(cut(fresh, bands, document, first=len(standing.parts)), recipe)
    report = summarise(outcomes, reprocessed(fresh))
    parts = finished(outcomes, place, report)
    whole = BuildReport.from_lasting(standing.report).plus(report)
    commit = replace(
        standing,
        number=standing.number + 1,
        parts=(*standing.parts, *parts),
        report=whole.lasting(),
    )
    return write_commit(place, commit), report


def refresh_files(
    place: Place, storage: StorageOptions, *, first_read: int = FIRST_READ
) -> tuple[Commit, BuildReport]:
    """Read the headers again of files that are no longer what was indexed, and of those that could
    not be read.

    Each file costs one small request; those that changed cost their header. Parts that stay the
    same stay in the commit; the directory for other readers is a new one, to which the pointer
    moves once it is complete.

    Returns
    -------
    Commit, BuildReport
        The newest snapshot as it is when nothing changed.

    Raises
    ------
    CommitConflictError
        Another builder committed meanwhile.
    CollectionError
        A part cannot be read or written.
    """
    standing = newest(place)
    recipe = Recipe(place, (), standing.document, storage, first_read)
    slices = [Slice(part.name) for part in standing.parts]
    outcomes = compute(slices, recipe, refresh_parts)
    report = summarise(outcomes)
    parts = finished(outcomes, place, report)
    if [part.name for part in parts] == [part.name for part in standing.parts]:
        return standing, report
    number = standing.number + 1
    former = BuildReport.from_lasting(standing.report)
    whole = replace(
        former,
        headers=report.headers,
        failures=report.failures,
        failure_count=report.failure_count,
    )
    commit = replace(
        standing,
        number=number,
        directory=f"data/{number:08d}",
        parts=parts,
        report=whole.lasting(),
    )
    return write_commit(place, commit), report
