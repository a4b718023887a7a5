"""The ledger: what could not be read, where it would have gone. `docs/formats.md` describes the format.

    <ledger>/<run>/<time>-<random>.parquet   created if absent, never changed

A task writes its part before it returns, so no hole is ever without its row. A task that Dask runs twice writes twice: the ledger is a
superset of the holes.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.errors import ArgumentError, CollectionError, SchemaVersionError
from rasteret_dask.index.place import Place
from rasteret_dask.model import Ledger
from rasteret_dask.storage.urls import public

VERSION: Final = 1
_VERSION_KEY: Final = b"rasteret-dask ledger"

SCHEMA: Final = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("band", pa.string(), nullable=False),
        pa.field("source_band", pa.string()),
        pa.field("item", pa.string()),
        pa.field("url", pa.string()),
        pa.field("level", pa.int32()),
        pa.field("tile_row", pa.int64()),
        pa.field("tile_col", pa.int64()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string()),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("row0", pa.int64(), nullable=False),
        pa.field("row1", pa.int64(), nullable=False),
        pa.field("col0", pa.int64(), nullable=False),
        pa.field("col1", pa.int64(), nullable=False),
    ],
    metadata={_VERSION_KEY: str(VERSION).encode()},
)
"""``band`` is the cube's variable, ``source_band`` that of the file (the mask's, where the mask failed); ``step``, ``row0`` … ``col1`` are
indices of the cube, half-open: a box that surely holds all pixels that are missing."""


def new_run(url: str) -> Ledger:
    """Begin a run.

    Raises
    ------
    ArgumentError
        If the URL carries a query or a user, which may be secrets.
    """
    if public(url) != url:
        raise ArgumentError(
            "ledger= must be a URL without user and query: it is written into graphs",
            hint="give workers their credentials through their environment, a role or a file",
        )
    if "://" not in url:  # workers and later sessions are at home elsewhere
        url = str(Path(url).expanduser().absolute())
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return Ledger(url, f"{stamp}-{secrets.token_hex(4)}")


def write_part(ledger: Ledger, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows durably, as a part of their own.

    Raises
    ------
    CollectionError
        If they cannot be written; the read that has the holes must then fail.
    """
    table = pa.Table.from_pylist([{"run": ledger.run, **row} for row in rows], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    name = f"{ledger.run}/{time.time_ns():x}-{secrets.token_hex(8)}.parquet"
    try:
        # Nobody else has that name: what is there already is of an attempt whose answer was lost.
        Place(ledger.url, single_writer=True).create(name, buffer.getvalue())
    except OSError as error:
        raise CollectionError(f"the ledger cannot be written ({type(error).__name__})") from None


def read_ledger(url: str, run: str) -> pa.Table:
    """Return what failed in a run, each failure once.

    Parameters
    ----------
    url : str
        The ledger's directory.
    run : str
        Id of the run, as in the cube's attribute ``rasteret_run``.

    Returns
    -------
    pyarrow.Table
        Of :data:`SCHEMA`, by band, step, item and tile; empty when nothing failed.

    Raises
    ------
    SchemaVersionError
        If a newer version of this package wrote it.
    """
    place = Place(url)
    tables = []
    for name in sorted(place.list(run)):
        content = place.read(f"{run}/{name}") if name.endswith(".parquet") else None
        if content is None:
            continue
        table = pq.read_table(pa.BufferReader(content))
        written = int((table.schema.metadata or {}).get(_VERSION_KEY, b"0"))
        if written > VERSION:
            raise SchemaVersionError(
                f"the ledger has version {written}; this package knows {VERSION}"
            )
        tables.append(table.cast(SCHEMA))
    if not tables:
        return SCHEMA.empty_table()
    found = pa.concat_tables(tables)
    once = found.group_by(SCHEMA.names, use_threads=False).aggregate([])
    order = ("band", "step", "item", "source_band", "tile_row", "tile_col", "row0", "col0")
    return once.select(SCHEMA.names).sort_by([(name, "ascending") for name in order])
