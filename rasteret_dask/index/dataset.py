"""Collections opened as Arrow datasets, and lazy views of them.

State: `_dataset` keeps the datasets of small collections that this process has opened, with the
footers of their immutable parts, which take longer to parse than their rows to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow import fs as arrow_fs

from rasteret_dask.errors import CollectionError
from rasteret_dask.index import own, schema
from rasteret_dask.index.commit import Commit, Part
from rasteret_dask.index.place import Place
from rasteret_dask.index.query import Expression, every

REQUIRED = (schema.ID, schema.DATETIME, schema.ASSETS)
ORDER: Final = (schema.DATETIME, schema.START, schema.ID)
"""The columns that the order of rows follows from; see `by_time`."""
_FEW_ROWS: Final = 1024
"""Arrow's threads cost more than they save below so many rows."""
_FEW_PARTS: Final = 64
"""Parts of a collection whose footers are kept: some hundred kilobytes each."""


@dataclass(frozen=True, slots=True, eq=False)
class TableView:
    """Rows of a dataset that pass a filter; nothing is read until it is asked for.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
    filter : Expression, optional
        Which rows; all of them without one.
    in_order : bool
        The rows are stored in the order (datetime, id).
    threads : bool
        Read with Arrow's threads.
    """

    dataset: Any
    filter: Expression | None = None
    in_order: bool = False
    threads: bool = True

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self.dataset.schema

    def where(self, expression: Expression | None) -> TableView:
        """The rows that also pass `expression`."""
        if expression is None:
            return self
        return replace(self, filter=every([self.filter, expression]))

    def count(self, expression: Expression | None = None) -> int:
        """Number of rows (that also pass `expression`)."""
        return int(self.dataset.count_rows(filter=every([self.filter, expression])))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows in the order (datetime, id).

        Parameters
        ----------
        columns : sequence of str, optional
            The columns wanted, in that order; all of them by default.
        """
        wanted = list(self.schema.names if columns is None else columns)
        if self.in_order:
            return self._table(wanted)
        more = [name for name in ORDER if name in self.schema.names and name not in wanted]
        return by_time(self._table(wanted + more)).select(wanted)

    def _table(self, names: list[str]) -> pa.Table:
        return self.dataset.to_table(columns=names, filter=self.filter, use_threads=self.threads)

    def head(self, n: int) -> pa.Table:
        """The first `n` rows in the order (datetime, id)."""
        if self.in_order:
            return self.dataset.head(n, filter=self.filter)
        first = self.read([schema.ID]).column(schema.ID).slice(0, n).combine_chunks()
        return self.where(pc.field(schema.ID).isin(first)).read().slice(0, n)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in pieces, in the order of the files, without holding them all."""
        names = None if columns is None else list(columns)
        yield from self.dataset.to_batches(columns=names, filter=self.filter)


def by_time(table: pa.Table) -> pa.Table:
    """Rows in the order (datetime, id), as far as they have these columns.

    Where others leave the moment of an interval open, it counts from its start, as in our own collections.
    """
    keys = {name: table.column(name) for name in ORDER if name in table.column_names}
    start, moment = keys.pop(schema.START, None), keys.get(schema.DATETIME)
    told = start is not None and pa.types.is_timestamp(start.type)
    if told and moment is not None and moment.null_count:
        keys[schema.DATETIME] = pc.coalesce(moment, start.cast(moment.type, safe=False))
    if not keys or table.num_rows < 2:
        return table
    order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    if np.array_equal(order.to_numpy(), np.arange(table.num_rows)):
        return table
    return table.take(order)


def in_memory(table: pa.Table) -> TableView:
    """A view of a table that is in memory."""
    return TableView(pads.InMemoryDataset(table))


# --- opening -------------------------------------------------------------------------------------
def open_commit(place: Place, commit: Commit) -> TableView:
    """The rows of one snapshot.

    Parts that a filter cannot match are passed over by what the commit says of them, without being
    opened.

    Raises
    ------
    CollectionError
        A part is missing.
    """
    names = [band["name"] for band in commit.document["bands"]]
    columns = schema.make_schema(names, commit.document)
    few = len(commit.parts) <= _FEW_PARTS
    make = _dataset if few else _dataset.__wrapped__
    dataset = make(os.getpid(), place, _Parts(commit.parts), _Columns(columns))
    remote = not place.is_local and len(commit.parts) > 1
    return TableView(
        dataset, in_order=_in_order(commit.parts), threads=remote or commit.rows > _FEW_ROWS
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """Parts that are equal when their names are: those hold the hash of the content."""

    parts: tuple[Part, ...]

    def __hash__(self) -> int:
        return hash(tuple(part.name for part in self.parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parts) and [p.name for p in self.parts] == [
            p.name for p in other.parts
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """A schema that is equal to another when its metadata are too."""

    columns: pa.Schema

    def __hash__(self) -> int:
        return hash(tuple(self.columns.names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Columns) and self.columns.equals(
            other.columns, check_metadata=True
        )


@lru_cache(maxsize=16)
def _dataset(process: int, place: Place, held: _Parts, form: _Columns) -> Any:
    # Fork children open their own, whence `process`.
    parquet = pads.ParquetFileFormat()
    filesystem = place.arrow()
    fragments = [
        parquet.make_fragment(place.path(part.file), filesystem, _guarantee(part))
        for part in held.parts
    ]
    return pads.FileSystemDataset(fragments, form.columns, parquet, filesystem)


def _in_order(parts: Sequence[Part]) -> bool:
    """Whether each part is in order and ends before the next begins; parts that do not say are in order."""
    if not all(part.stats.get("in_order", True) for part in parts):
        return False
    spans = [part.stats.get("datetime") for part in parts]
    if not all(isinstance(span, list) for span in spans):
        return len(parts) < 2
    moments = [[datetime.fromisoformat(t) for t in span] for span in spans if span]
    return all(before[1] < after[0] for before, after in pairwise(moments))


def _guarantee(part: Part) -> Expression:
    """What holds for every row of a part."""
    stats = part.stats
    parts = []
    box = stats.get("bbox")
    if box is not None:
        west, south, east, north = box
        for name, low, high in (
            ("xmin", west, east),
            ("xmax", west, east),
            ("ymin", south, north),
            ("ymax", south, north),
        ):
            column = pc.field(schema.BBOX, name)
            parts += [column >= low, column <= high]
    for key, first, last in (
        ("datetime", schema.DATETIME, schema.DATETIME),
        ("interval", schema.START, schema.END),
    ):
        span = stats.get(key)
        if span == "none":
            parts += [pc.field(first).is_null(), pc.field(last).is_null()]
        elif span is not None:
            low, high = (pa.scalar(datetime.fromisoformat(t), schema.TIMESTAMP) for t in span)
            parts += [pc.field(first) >= low, pc.field(last) <= high]
    return every(parts) if parts else pc.scalar(True)


def open_parquet(place: Place) -> TableView:
    """A file, or a directory of files, of Parquet that somebody else wrote (rasteret, for one).

    Raises
    ------
    CollectionError
        There is nothing of the kind, or it lacks columns that a collection needs.
    """
    path, filesystem = place.path(), place.arrow()
    info = filesystem.get_file_info(path)
    if info.type == arrow_fs.FileType.NotFound:
        raise CollectionError("there is no collection", url=place.url)
    how = {"filesystem": filesystem, "format": "parquet"}
    try:
        dataset = pads.dataset(path, partitioning=_folders(path, info, filesystem), **how)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CollectionError(f"no Parquet that can be read: {error}", url=place.url) from None
    check_columns(dataset.schema, place.url)
    return TableView(dataset)


def _folders(path: str, info: Any, filesystem: Any) -> Any:
    """Columns that are folders, with the types that our own files give them: Arrow would take the text 007 for a number, and cannot tell
    what a column of nothing is."""
    if info.type != arrow_fs.FileType.Directory:
        return "hive"
    found = filesystem.get_file_info(arrow_fs.FileSelector(path, recursive=True))
    first = next((f.path for f in found if f.path.endswith(".parquet")), None)
    names = [p.partition("=")[0] for p in (first or "")[len(path) :].split("/") if "=" in p]
    if first is None or not names:
        return "hive"
    document = schema.document(pq.read_schema(first, filesystem=filesystem))
    kinds = {field.name: field.type for field in schema.item_fields()} | own.declared(document)
    if not document or any(name not in kinds for name in names):
        return "hive"
    return pads.partitioning(pa.schema([(name, kinds[name]) for name in names]), flavor="hive")


def check_columns(table: pa.Schema, url: str | None = None) -> None:
    """Refuse a table that cannot be a collection.

    Raises
    ------
    CollectionError
        A column is missing, or has a type that cannot be what its name says.
    """
    schema.document(table, url=url)
    missing = [name for name in REQUIRED if name not in table.names]
    if missing:
        raise CollectionError(f"the table lacks the columns {', '.join(missing)}", url=url)
    if not schema.band_names(table):
        raise CollectionError(
            "the table has no column of headers ({band}_metadata)",
            url=url,
            hint="build a collection from it, which reads the headers",
        )
    kind = table.field(schema.DATETIME).type
    if not pa.types.is_timestamp(kind):
        raise CollectionError(f"the column 'datetime' is {kind}, not a timestamp", url=url)
