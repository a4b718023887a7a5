"""A collection's rows as Parquet of one's own: streamed, never held whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as pads

from rasteret_dask.errors import ArgumentError, CollectionError
from rasteret_dask.index import schema
from rasteret_dask.index.place import Place

ROWS_PER_GROUP = 256
ROWS_PER_FILE = 16_384


def export_rows(
    rows: Iterator[pa.RecordBatch],
    columns: pa.Schema,
    place: Place,
    *,
    partition_by: Sequence[str] = (),
    rows_per_file: int = ROWS_PER_FILE,
) -> None:
    """Write rows as GeoParquet, in folders ``column=value`` when they are to be partitioned.

    Parameters
    ----------
    rows : iterator of RecordBatch
    columns : pyarrow.Schema
    place : Place
        The directory; it must not hold anything.
    partition_by : sequence of str
        Columns that become folders.
    rows_per_file : int

    Raises
    ------
    ArgumentError
        A column is unknown, or cannot be a folder.
    CollectionError
        The directory is not empty, or cannot be written.
    """
    for name in partition_by:
        if name not in columns.names:
            raise ArgumentError(f"no column {name!r} to partition by")
        if pa.types.is_nested(columns.field(name).type) or name == schema.ID:
            raise ArgumentError(f"the column {name!r} cannot be a folder")
    if place.list("") or place.folders():
        raise CollectionError(
            "there is something already", url=place.url, hint="choose another path"
        )
    partitioning = None
    if partition_by:
        fields = pa.schema([columns.field(name) for name in partition_by])
        partitioning = pads.partitioning(fields, flavor="hive")
    form = pads.ParquetFileFormat()
    inside = pa.schema([f for f in columns if f.name not in partition_by], columns.metadata)
    options = schema.writer_options(inside)
    known = (
        "version",
        "compression",
        "compression_level",
        "use_dictionary",
        "write_statistics",
        "column_encoding",
    )
    try:
        pads.write_dataset(
            pa.RecordBatchReader.from_batches(columns, rows),
            place.path(),
            filesystem=place.arrow(),
            format=form,
            file_options=form.make_write_options(**{k: options[k] for k in known}),
            partitioning=partitioning,
            basename_template="part-{i}.parquet",
            max_rows_per_group=ROWS_PER_GROUP,
            max_rows_per_file=max(rows_per_file, ROWS_PER_GROUP),
            use_threads=False,  # keeps the order of the rows
            existing_data_behavior="error",
        )
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(f"the rows could not be written: {error}", url=place.url) from None
