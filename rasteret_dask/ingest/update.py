"""A collection kept up to date: `append` adds items that are new, `refresh` re-reads files that
changed.

Both make a new commit and leave the former one as it is, so an older snapshot stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dask.delayed import delayed

from rasteret_dask.errors import ArgumentError, CollectionError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, digest, read_commit, write_commit
from rasteret_dask.index.dataset import open_commit
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.bag import compute
from rasteret_dask.ingest.build import finished, summarise
from rasteret_dask.ingest.cells import spread, told
from rasteret_dask.ingest.cut import cut
from rasteret_dask.ingest.fresh import append_cells, fingerprint
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.records import Links, reprocessed, sort_records
from rasteret_dask.ingest.refresh import refresh_parts
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.slices import Outcome, Recipe, Slice
from rasteret_dask.ingest.stac import Json, Search, search_api, search_static
from rasteret_dask.model import BandInfo, StorageOptions

APPENDED: Final = 900_000
"""Position of the first slice of an append: beyond those of builds, and the same however many parts there are, so that who was told
of another append finds what he has fetched."""


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
    api, catalogue, search = _search_of(commit)
    return search_static(catalogue, search) if api is None else search_api(api, search)


def _search_of(commit: Commit) -> tuple[str | None, str, Search]:
    source = dict(commit.arguments.get("source") or {})
    api, catalogue = source.pop("stac_api", None), source.pop("static_catalog", None)
    if api is None and catalogue is None:
        raise ArgumentError(
            f"{commit.name!r} was built of items that were given", hint="pass the new ones: items=…"
        )
    collection, bbox = source.pop("collection", None), source.pop("bbox", None)
    return api, catalogue, Search.of(collection, bbox, source.pop("date_range", None), source)


def append_found(
    place: Place,
    bands: Sequence[BandInfo],
    storage: StorageOptions,
    *,
    first_read: int = FIRST_READ,
) -> tuple[Commit, BuildReport]:
    """Make a collection's own search again, and index what the newest snapshot lacks.

    A large search is cut into cells that workers search, each by itself; one that finds nothing new
    writes nothing.

    Parameters
    ----------
    place : Place
        Of the collection.
    bands : sequence of BandInfo
        Those that the collection was built of.
    storage : StorageOptions
    first_read : int
        Bytes of a header's first request.

    Returns
    -------
    Commit, BuildReport
        As `append_items`.

    Raises
    ------
    ArgumentError
        It was built of items that were given.
    CommitConflictError
        Another builder committed meanwhile.
    CollectionError
        A part of the search failed; what the others found is kept and used by the next attempt.
    """
    standing = newest(place)
    api, _, search = _search_of(standing)
    pieces = None if api is None else spread(api, search)
    if pieces is None:
        return append_items(place, search_again(standing), bands, storage, first_read=first_read)
    known = frozenset(map(fingerprint, _ids(place, standing)))
    recipe = _recipe(place, standing, bands, storage, first_read)
    cells = enumerate(pieces.cells, APPENDED)
    slices = [Slice(f"{number:06d}", cell=cell) for number, cell in cells]
    shared = delayed(
        known, name=f"known-{digest(standing.identity)[:16]}-{standing.number}", traverse=False
    )
    outcomes = compute(slices, recipe, append_cells, [shared])
    found = sum(len(outcome.ids) // 8 for outcome in outcomes)
    return _grown(place, standing, outcomes, told(pieces, found))


def _ids(place: Place, commit: Commit) -> list[str]:
    found: list[str] = open_commit(place, commit).read([schema.ID]).column(schema.ID).to_pylist()
    return found


def _recipe(
    place: Place,
    standing: Commit,
    bands: Sequence[BandInfo],
    storage: StorageOptions,
    first_read: int,
) -> Recipe:
    said = standing.arguments
    links = Links(said.get("prefer"), said.get("url_rewrite_patterns") or {})
    document = {k: v for k, v in standing.document.items() if k != "schema_version"}
    return Recipe(place, tuple(bands), document, storage, first_read, links=links)


def append_items(
    place: Place,
    items: Iterable[Json],
    bands: Sequence[BandInfo],
    storage: StorageOptions,
    *,
    first_read: int = FIRST_READ,
) -> tuple[Commit, BuildReport]:
    """Index the items that the newest snapshot lacks, and commit them beside what is there.

    Parameters
    ----------
    place : Place
        Of the collection.
    items : iterable of mapping
        STAC items.
    bands : sequence of BandInfo
        Those that the collection was built of.
    storage : StorageOptions
    first_read : int
        Bytes of a header's first request.

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
    known = set(_ids(place, standing))
    recipe = _recipe(place, standing, bands, storage, first_read)
    fresh = sort_records(recipe.record(item) for item in items if item["id"] not in known)
    slices = cut(fresh, bands, recipe.document, first=APPENDED) if fresh else []
    return _grown(place, standing, compute(slices, recipe), reprocessed(fresh))


def _grown(
    place: Place, standing: Commit, outcomes: Sequence[Outcome], warnings: Sequence[str]
) -> tuple[Commit, BuildReport]:
    """The next commit: what stands, and what slices have added."""
    report = summarise(outcomes, warnings)
    if not any(outcome.part or outcome.error for outcome in outcomes):
        return standing, replace(report, slices=0)
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
