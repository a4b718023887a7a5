"""Tables that may be larger than memory: read in pieces, twice.

The first pass looks at every row and keeps little of it: what the table holds (its hash, so that the same build again is known),
which kinds of assets, and which rows are there twice. The second makes items of the rows, for their headers. A stream that can be
read only once is laid down on local disk as it first goes by.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads

from rasteret_dask.errors import ArgumentError, CollectionError, DuplicateItemError
from rasteret_dask.grid.arrow import plain_table
from rasteret_dask.index.place import Place
from rasteret_dask.index.query import checked
from rasteret_dask.ingest.bands import bands_of_asset, is_raster
from rasteret_dask.ingest.table import TableSource, check_names, own_columns, table_items
from rasteret_dask.model import StorageOptions

Item = dict[str, Any]

PIECE_ROWS: Final = 1024
"""Rows that are Python objects at once, while nothing but their hashes is wanted."""

AT_ONCE: Final = 2**27
"""Bytes of a row group that is read whole; larger ones are streamed."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a table, to be read as often as one likes.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset or LaidDown
    how : TableSource
    """

    dataset: Any
    how: TableSource

    def tables(self) -> Iterator[pa.Table]:
        """The rows and columns that were asked for, in pieces."""
        known = self.dataset.schema
        names = list(known.names if self.how.columns is None else self.how.columns)
        check_names(names, known.names)
        # With the metadata of the file, which say in what CRS the footprints are.
        whole = pa.schema([known.field(name) for name in names], known.metadata)
        for batch in _batches(self.dataset, names, self.how.where):
            for start in range(0, len(batch), PIECE_ROWS):
                piece = batch.slice(start, PIECE_ROWS)
                columns = [piece.column(name) for name in names]
                yield plain_table(pa.Table.from_arrays(columns, schema=whole))

    def columns(self) -> dict[str, pa.DataType]:
        """Those that a collection has beside ours."""
        known = self.dataset.schema
        names = list(known.names if self.how.columns is None else self.how.columns)
        check_names(names, known.names)
        check_names(list(self.how.column_map), names)
        if self.how.where is not None:
            checked(self.how.where, pa.schema(list(known)))
        return own_columns(pa.schema([known.field(name) for name in names]), self.how)

    def items(self, skipped: npt.NDArray[np.int64] | None = None) -> Iterator[Item]:
        """The rows as STAC items, without those that are `skipped` by their numbers.

        Raises
        ------
        ArgumentError
            A column is missing, a time has no zone, a footprint is empty, or a row has no link.
        """
        gone = set() if skipped is None else set(skipped.tolist())
        number = 0
        for table in self.tables():
            for item in table_items(table, self.how):
                if number not in gone:
                    yield item
                number += 1


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What the first pass saw.

    Parameters
    ----------
    count : int
        Items, each once.
    digest : str
        Hash of the items, in whatever order.
    samples : tuple of mapping
        Some of the items, that have every kind of asset that any of them has.
    repeated : ndarray of int64
        Numbers of the rows that an earlier row equals.
    """

    count: int
    digest: str
    samples: tuple[Item, ...]
    repeated: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def open_rows(source: Any, how: TableSource, storage: StorageOptions) -> Rows:
    """Open a table: a path or URL of Parquet, or anything that Arrow can take over. Nothing is read of what can be read again.

    Raises
    ------
    CollectionError
        A path that holds no Parquet.
    ArgumentError
        It is no table, or lacks a column.
    """
    if hasattr(source, "to_arrow") and hasattr(source, "crs"):  # GeoPandas
        source = pa.table(source.to_arrow())
    if isinstance(source, (str, os.PathLike)):
        return Rows(_open(os.fspath(source), storage), how)
    if isinstance(source, pads.Dataset):
        return Rows(source, how)
    try:
        if hasattr(source, "__arrow_c_array__") and not hasattr(source, "__arrow_c_stream__"):
            source = pa.record_batch(source)
        if isinstance(source, pa.RecordBatch):
            source = pa.Table.from_batches([source])
        if isinstance(source, pa.Table):
            return Rows(pads.InMemoryDataset(source), how)
        if hasattr(source, "__arrow_c_stream__"):
            return _laid_down(pa.RecordBatchReader.from_stream(source), how)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ArgumentError(f"Arrow cannot take the table over: {error}") from None
    raise ArgumentError(
        f"{type(source).__name__} is no table that Arrow can read",
        hint="Polars' lazy frames are collect()ed, lists of rows go through pyarrow.Table.from_pylist",
    )


def _open(text: str, storage: StorageOptions) -> Any:
    place = Place(text if "://" in text else os.path.abspath(os.path.expanduser(text)), storage)
    # Columns are read as they are decoded, not a row group at once: there are files with a single one.
    streamed = pads.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    try:
        return pads.dataset(
            place.path(),
            filesystem=place.arrow(),
            format=pads.ParquetFileFormat(default_fragment_scan_options=streamed),
            partitioning="hive",
        )
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(f"no Parquet that can be read: {error}", url=place.url) from None


@dataclass(frozen=True, slots=True, eq=False)
class LaidDown:
    """A stream that could be read only once, in a file that lives as long as this value.

    Parameters
    ----------
    folder : tempfile.TemporaryDirectory
    path : str
    schema : pyarrow.Schema
    """

    folder: Any
    path: str
    schema: pa.Schema

    def to_batches(self, columns: list[str], filter: Any = None) -> Iterator[pa.RecordBatch]:
        """Rows and columns, as a dataset gives them."""
        with pa.OSFile(self.path, "rb") as source, pa.ipc.open_file(source) as stored:
            for number in range(stored.num_record_batches):
                table = pa.Table.from_batches([stored.get_batch(number)])
                kept = table if filter is None else table.filter(filter)
                yield from kept.select(columns).to_batches()


def _laid_down(reader: pa.RecordBatchReader, how: TableSource) -> Rows:
    """A stream as something that can be read again; what comes in one piece stays in memory."""
    pieces = iter(reader)
    begin = list(islice(pieces, 2))
    if len(begin) < 2:
        return Rows(pads.InMemoryDataset(pa.Table.from_batches(begin, reader.schema)), how)
    folder = tempfile.TemporaryDirectory(prefix="rasteret-dask-")
    path = str(Path(folder.name) / "rows.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in chain(begin, pieces):
            writer.write_batch(batch)
    return Rows(LaidDown(folder, path, reader.schema), how)


def _batches(dataset: Any, names: list[str], where: Any) -> Iterator[pa.RecordBatch]:
    """Batches that are read when they are asked for: Arrow's scanner reads up to a gigabyte ahead of a slow consumer."""
    if not isinstance(dataset, pads.FileSystemDataset):
        yield from dataset.to_batches(columns=names, filter=where)
        return
    for fragment in dataset.get_fragments(filter=where):
        pieces = [fragment]
        if isinstance(fragment, pads.ParquetFileFragment):
            pieces = fragment.split_by_row_group(where, dataset.schema)
        for piece in pieces:
            how = {"schema": dataset.schema, "columns": names, "filter": where}
            if _size(piece) <= AT_ONCE:
                yield from piece.to_table(**how, use_threads=False).to_batches()
            else:
                yield from piece.to_batches(**how, batch_size=PIECE_ROWS, batch_readahead=1)


def _size(fragment: Any) -> int:
    """Bytes of a row group before they were compressed; of other files nothing is known."""
    if not isinstance(fragment, pads.ParquetFileFragment):
        return AT_ONCE + 1
    return sum(int(group.total_byte_size) for group in fragment.row_groups)


def survey(rows: Rows) -> Survey:
    """Look at every row once.

    Raises
    ------
    ArgumentError
        A row cannot become an item.
    DuplicateItemError
        Two different rows have one id.
    """
    total = 0
    seen: set[Any] = set()
    samples: list[Item] = []
    names, contents = _Hashes(), _Hashes()
    for item in rows.items():
        content = hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).digest()
        contents.add(content[:8])
        names.add(hashlib.blake2b(str(item["id"]).encode(), digest_size=8).digest())
        kinds = _kinds(item)
        if not kinds <= seen:
            seen |= kinds
            samples.append(item)
        total = (total + int.from_bytes(content, "big")) % 2**256
    repeated, twice = _repeated(names.array(), contents.array())
    if twice is not None:
        item = next(one for number, one in enumerate(rows.items()) if number == twice)
        raise DuplicateItemError("two different items have the same id", item=item["id"])
    return Survey(len(names) - len(repeated), f"{total:064x}", tuple(samples), repeated)


class _Hashes:
    """Eight bytes a row, gathered."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, one: bytes) -> None:
        self._bytes += one

    def array(self) -> npt.NDArray[np.uint64]:
        return np.frombuffer(bytes(self._bytes), np.uint64)

    def __len__(self) -> int:
        return len(self._bytes) // 8


def _repeated(
    names: npt.NDArray[np.uint64], contents: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], int | None]:
    """Numbers of the rows whose id came before with the same content, and of a first one where the content differs."""
    order = np.argsort(names, kind="stable")
    again = np.zeros(len(names), bool)
    again[1:] = names[order][1:] == names[order][:-1]
    if not again.any():
        return np.zeros(0, np.int64), None
    firsts = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))]
    differs = contents[order] != contents[firsts]
    if differs.any():
        return np.zeros(0, np.int64), int(order[differs].min())
    return np.sort(order[again]).astype(np.int64), None


def _kinds(item: Mapping[str, Any]) -> set[Any]:
    """What can be told of an item's assets by which bands are found."""
    assets: Mapping[str, Any] = item.get("assets") or {}
    return {
        (key, is_raster(asset), tuple(_said(band) for band in bands_of_asset(asset)))
        for key, asset in assets.items()
    }


def _said(band: Mapping[str, Any]) -> Sequence[Any]:
    return tuple(str(band.get(name)) for name in ("name", "common_name", "eo:common_name"))
