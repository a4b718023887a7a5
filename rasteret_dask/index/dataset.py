"""Collections opened as Arrow datasets, and lazy views of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow import fs as arrow_fs

from rasteret_dask.errors import CollectionError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, Part
from rasteret_dask.index.place import Place
from rasteret_dask.index.query import Expression, every

REQUIRED = (schema.ID, schema.DATETIME, schema.ASSETS)
_ORDER = (schema.DATETIME, schema.ID)


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
    """

    dataset: Any
    filter: Expression | None = None
    in_order: bool = False

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
            return self.dataset.to_table(columns=wanted, filter=self.filter)
        keys = [name for name in _ORDER if name in self.schema.names]
        names = wanted + [name for name in keys if name not in wanted]
        table = self.dataset.to_table(columns=names, filter=self.filter)
        return _ordered(table, keys).select(wanted)

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


def _ordered(table: pa.Table, keys: list[str]) -> pa.Table:
    if not keys or table.num_rows < 2:
        return table
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in keys])
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
    columns = schema.make_schema([b["name"] for b in commit.document["bands"]], commit.document)
    form = pads.ParquetFileFormat()
    filesystem = place.arrow()
    fragments = [
        form.make_fragment(place.path(part.file), filesystem, _guarantee(part))
        for part in commit.parts
    ]
    dataset = pads.FileSystemDataset(fragments, columns, form, filesystem)
    return TableView(dataset, in_order=True)


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
    try:
        dataset = pads.dataset(path, filesystem=filesystem, format="parquet", partitioning="hive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CollectionError(f"no Parquet that can be read: {error}", url=place.url) from None
    check_columns(dataset.schema, place.url)
    return TableView(dataset)


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
