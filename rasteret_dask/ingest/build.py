"""Builds: records → slices → a Dask bag → one commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import (
    ArgumentError,
    BuildMismatchError,
    CollectionError,
    DuplicateItemError,
    EmptySelectionError,
)
from rasteret_dask.index import own
from rasteret_dask.index.commit import (
    Commit,
    Part,
    digest,
    publish,
    read_commit,
    write_commit,
)
from rasteret_dask.index.place import Place
from rasteret_dask.index.schema import ID, VERSION, band_column
from rasteret_dask.ingest.bag import compute, threads
from rasteret_dask.ingest.cells import Spread, told
from rasteret_dask.ingest.cut import cell_slices, cut
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.records import (
    AS_THEY_ARE,
    NO_MORE,
    Links,
    Record,
    reprocessed,
    sort_records,
)
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.slices import Outcome, Recipe, Slice
from rasteret_dask.model import BandInfo, StorageOptions
from rasteret_dask.storage.counters import Counters
from rasteret_dask.storage.urls import unsigned

log = logging.getLogger(__name__)

WINDOW: Final = 8192
"""Records that are sorted and cut together, of a table that may be larger than memory; some 10 KB each."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What there is to build from.

    Parameters
    ----------
    bands : sequence of BandInfo
    records : iterable of Record
        Items that are known.
    count : int, optional
        How many there are, when they may be more than memory holds: each once, and they are gone through window by window.
    spread : Spread, optional
        A search that workers make, instead.
    links : Links
        Which links they take.
    columns : mapping of str to pyarrow.DataType
        What the collection has beside our columns.
    """

    bands: Sequence[BandInfo]
    records: Iterable[Record] = ()
    count: int | None = None
    spread: Spread | None = None
    links: Links = AS_THEY_ARE
    columns: own.Columns = field(default_factory=dict)


Gather = Callable[[], Gathered]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built.

    Parameters
    ----------
    name : str
    place : Place
    arguments : mapping
        Everything that the result depends on, as JSON, and by which credentials it was made; see
        `identity_of`.
    dataset : str, optional
        Id of the descriptor.
    storage : StorageOptions
        How the rasters are reached.
    first_read : int
        Bytes of the first request for a header.
    force : bool
        Build again, whatever is there.
    """

    name: str
    place: Place
    arguments: Mapping[str, Any]
    dataset: str | None = None
    storage: StorageOptions | None = None
    first_read: int = FIRST_READ
    force: bool = False


CREDENTIALS: Final = ("auth", "auth_options")
"""Arguments that say who asks for the files, and nothing of what is in them."""


def identity_of(arguments: Mapping[str, Any]) -> str:
    """The hash by which a build is known again: of all its arguments but the credentials, so that who was
    refused goes on with others."""
    return digest({key: value for key, value in arguments.items() if key not in CREDENTIALS})


def run_build(order: Order, gather: Gather) -> tuple[Commit, BuildReport]:
    """Build a collection, finish one that was begun, or find it built.

    Parameters
    ----------
    order : Order
    gather : callable
        Searches and returns bands and records; not called when there is nothing to do.

    Raises
    ------
    BuildMismatchError
        A collection of this name was built of other arguments.
    CollectionError
        No header at all could be read, or a part could not be written.
    """
    identity = identity_of(order.arguments)
    standing = read_commit(order.place)
    if standing is not None and not order.force:
        if identity_of(standing.arguments) != identity:
            raise _mismatch(order, standing)
        publish(order.place, standing)  # in case the former run ended between commit and this
        report = BuildReport.from_lasting(standing.report)
        log.info("%s is built already: %d items", order.name, standing.rows)
        return standing, report
    gathered = gather()
    document = make_document(order.name, order.dataset, gathered.bands, gathered.columns)
    storage = order.storage or StorageOptions()
    recipe = Recipe(
        order.place,
        tuple(gathered.bands),
        document,
        storage,
        order.first_read,
        reuse=not order.force,
        links=gathered.links,
    )
    outcomes: list[Outcome] = []
    warnings: list[str] = []
    for slices, told_of in waves(gathered, document):
        log.info("%s: %d slices", order.name, len(slices))
        outcomes += compute(slices, recipe)
        warnings += told_of
    if gathered.spread is not None:
        warnings += told(gathered.spread, sum(o.part.rows for o in outcomes if o.part))
    report = summarise(outcomes, warnings)
    parts = finished(outcomes, order.place, report)
    number = 1 if standing is None else standing.number + 1
    commit = Commit(
        number=number,
        name=order.name,
        identity=identity,
        arguments=order.arguments,
        directory=f"data/{number:08d}",
        document={**document, "schema_version": VERSION},
        parts=parts,
        report=report.lasting(),
    )
    return write_commit(order.place, commit), report


def waves(
    gathered: Gathered, document: Any, window: int = WINDOW
) -> Iterator[tuple[list[Slice], list[str]]]:
    """Slices that are computed together, with warnings on them; all at once, unless there may be more than memory holds.

    Records are cut within windows of a fixed number, so that the same table gives the same slices. As many windows go together
    as keep the cluster busy.

    Raises
    ------
    EmptySelectionError
        There are no items.
    """
    if gathered.spread is not None:
        yield cell_slices(gathered.spread.cells, document, gathered.links), []
        return
    if gathered.count is None:
        records = sort_records(gathered.records)
        if not records:
            raise EmptySelectionError("there are no items to build from")
        yield cut(records, gathered.bands, document), reprocessed(records)
        return
    if not gathered.count:
        raise EmptySelectionError("there are no items to build from")
    left, first, width = iter(gathered.records), 0, 2 * threads()
    wave: list[Slice] = []
    warnings: list[str] = []
    while taken := list(islice(left, window)):
        records = sort_records(taken)
        wave += cut(records, gathered.bands, document, first + len(wave), gathered.count)
        warnings += reprocessed(records)
        if len(wave) >= width:
            yield wave, warnings
            first, wave, warnings = first + len(wave), [], []
    if wave:
        yield wave, warnings


def summarise(outcomes: Sequence[Outcome], warnings: Sequence[str] = ()) -> BuildReport:
    """The report of a build from what its slices say."""
    failures = tuple(f for o in outcomes for f in o.failures)
    disagreements = tuple(d for o in outcomes for d in o.disagreements)
    spent = _spent(outcomes)
    return BuildReport(
        items=sum(o.part.rows for o in outcomes if o.part is not None),
        assets=sum(o.assets for o in outcomes),
        headers=sum(o.headers for o in outcomes),
        failures=failures,
        disagreements=disagreements,
        warnings=(*warnings, *(w for o in outcomes for w in o.warnings)),
        failure_count=len(failures),
        disagreement_count=len(disagreements),
        requests=spent.requests,
        bytes=spent.bytes,
        retries=spent.retries,
        slices=len(outcomes),
        reused=sum(o.reused for o in outcomes),
    )


def _spent(outcomes: Sequence[Outcome]) -> Counters:
    # Slices of one process run side by side, so that their own differences overlap: the process's
    # first and last count bound what it did.
    total = Counters()
    for process in {o.process for o in outcomes}:
        mine = [o for o in outcomes if o.process == process]
        last = max(mine, key=lambda o: o.after.requests).after
        first = min(mine, key=lambda o: o.before.requests).before
        total = total + (last - first)
    return total


def finished(outcomes: Sequence[Outcome], place: Place, report: BuildReport) -> tuple[Part, ...]:
    """The parts of a build whose slices all ended well.

    Raises
    ------
    CollectionError
        They did not, or there is nothing in them.
    DuplicateItemError
        Two slices hold the same item.
    """
    broken = [o for o in outcomes if o.error is not None]
    if broken:
        raise CollectionError(
            f"{len(broken)} of {len(outcomes)} slices failed; the first: {broken[0].error}",
            url=place.url,
            hint="build again with the same arguments: what is done is kept",
        )
    if report.assets and not report.headers:
        first = report.failures[0]
        raise CollectionError(
            f"not one of {report.assets} headers could be read; the first: {first.reason}",
            item=first.item,
            band=first.band,
            url=first.url,
        )
    if not report.assets:
        raise CollectionError(
            "no item has an asset for any of the bands",
            hint="pass band_map={'B04': 'red', …} with the items' own asset keys",
        )
    for failure in report.failures[:20]:
        log.warning("%s %s: %s", failure.item, failure.band, failure.reason)
    for warning in report.warnings[:20]:
        log.warning("%s", warning)
    _refuse_duplicates(outcomes, place)
    return tuple(o.part for o in outcomes if o.part is not None)


def _refuse_duplicates(outcomes: Sequence[Outcome], place: Place) -> None:
    """Items that two slices found: a catalogue that changed while it was searched, or holds two
    items of one id."""
    hashes = np.concatenate([np.frombuffer(o.ids, np.uint64) for o in outcomes])
    values, counts = np.unique(hashes, return_counts=True)
    if not (counts > 1).any():
        return
    twice = values[counts > 1]
    known: set[str] = set()
    for outcome in outcomes:
        if outcome.part is None or not np.isin(np.frombuffer(outcome.ids, np.uint64), twice).any():
            continue
        data = place.read(outcome.part.file) or b""
        for one in pq.read_table(pa.BufferReader(data), columns=[ID]).column(ID).to_pylist():
            if one in known:
                raise DuplicateItemError(
                    "two slices of the search found the same item",
                    item=one,
                    hint="if the catalogue changed meanwhile, build again with force=True",
                )
            known.add(one)


def make_document(
    name: str, dataset: str | None, bands: Sequence[BandInfo], columns: own.Columns = NO_MORE
) -> dict[str, Any]:
    """The JSON document of a collection's schema.

    Raises
    ------
    ArgumentError
        A column beside ours is called as a band's headers are.
    """
    for band in bands:
        if band_column(band.name) in columns:
            raise ArgumentError(
                f"the column {band_column(band.name)!r} is called as the headers of a band are",
                hint="leave it out with columns=[…], or rename it",
            )
    return {
        "name": name,
        "data_source": dataset or "",
        "bands": [asdict(band) | {"aliases": list(band.aliases)} for band in bands],
        **({"columns": own.declare(columns)} if columns else {}),
    }


def _mismatch(order: Order, standing: Commit) -> BuildMismatchError:
    before, now = _flat(standing.arguments), _flat(order.arguments)
    changed = [
        f"{key}: {_shown(before.get(key))} then, {_shown(now.get(key))} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and key.partition(".")[0] not in CREDENTIALS
    ]
    return BuildMismatchError(
        f"a collection {order.name!r} is there and was built of other arguments: "
        + "; ".join(changed),
        url=order.place.url,
        hint="choose another name, pass force=True to replace it, or load() it as it is",
    )


def _shown(value: Any) -> str:
    # Older commits may hold a catalogue's URL with a secret in it.
    return repr(unsigned(value) if isinstance(value, str) else value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for n, x in value.items() for k, v in _flat(x, f"{path}.{n}").items()}
    return {path.lstrip("."): value}
