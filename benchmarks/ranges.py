"""What tile ranges cost on disk: ``python -m benchmarks.ranges [--data DIR] [--page]``.

Bytes a tile, offset and count together, in Parquet's column chunks, by our encoding and by others. Two tables:

- *as they are*: the 50 real Sentinel-2 files of ``data/s2-austria``, indexed (10 items, 5 bands)
- *a collection*: 512 items of four bands of 10 m, 171 tiles each (121 of 1024² pixels, and overviews). Sizes of tiles are drawn
  from the distribution of those of one real file for each item and band, times 16 (those have 256² pixels); offsets lie as
  GDAL's COG driver lays them: overviews first, each tile with its size before and after it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import rasteret_dask as rd
from rasteret_dask.index import schema
from rasteret_dask.ingest.parts import ROWS_PER_GROUP

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
ITEMS, BANDS, TILES = 512, ("B02", "B03", "B04", "B08"), (121, 36, 9, 4, 1)
LARGER, GHOST = 16, 8
RANGES = (".tile_offsets.", ".tile_byte_counts.")

Ints = npt.NDArray[np.int64]
Way = tuple[str | None, str]

WAYS: dict[str, Way | None] = {
    "ours: BYTE_STREAM_SPLIT, zstd": ("BYTE_STREAM_SPLIT", "zstd"),
    "DELTA_BINARY_PACKED, zstd": ("DELTA_BINARY_PACKED", "zstd"),
    "DELTA_BINARY_PACKED": ("DELTA_BINARY_PACKED", "none"),
    "plain, zstd": ("PLAIN", "zstd"),
    "dictionary, zstd": (None, "zstd"),
    "dictionary, snappy (pyarrow's own way)": (None, "snappy"),
    "plain": ("PLAIN", "none"),
}
"""Encoding and compression of the two columns; no encoding is a dictionary."""


def real(data: Path, where: str) -> pa.Table:
    """The real files, indexed."""
    catalog = data / "s2-austria" / "catalog.json"
    how: dict[str, Any] = {"static_catalog": str(catalog), "workspace_dir": where}
    return rd.build("earthsearch/sentinel-2-l2a", name="real", **how).to_table()


def counts_of(table: pa.Table) -> list[Ints]:
    """Sizes of the tiles of each file's full resolution, of reflectances alone."""
    found = []
    for band in schema.band_names(table.schema):
        if band != "SCL":
            column = table.column(schema.band_column(band)).combine_chunks()
            found += [np.array(v, np.int64) for v in column.field("tile_byte_counts").to_pylist()]
    return found


def files(sizes: list[Ints], rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Offsets and counts of all tiles of as many files as there are items, each like one real file; finest level first."""
    each = [sizes[k] for k in rng.integers(0, len(sizes), ITEMS)]
    # Drawn as they are, sizes would repeat, and compress as no real ones do.
    drawn = [np.quantile(one, rng.random(sum(TILES))) for one in each]
    counts = np.rint(np.array(drawn) * LARGER).astype(np.int64)
    order = counts[:, ::-1]
    starts = np.cumsum(order + GHOST, axis=1) - order + rng.integers(5000, 9000, (ITEMS, 1))
    return starts[:, ::-1], counts


def _lists(values: Ints) -> pa.Array:
    ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.ascontiguousarray(values).ravel())


def _structs(kind: pa.StructType, given: dict[str, pa.Array], count: int) -> pa.Array:
    columns = [given.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def collection(sizes: list[Ints]) -> pa.Table:
    """A table of many items; all but their tile ranges is null."""
    rng, made = np.random.default_rng(0), schema.make_schema(BANDS)
    columns: dict[str, pa.Array] = {"id": pa.array([f"S2A_{k}" for k in range(ITEMS)])}
    for band in BANDS:
        levels = []
        offsets, counts = files(sizes, rng)
        for first, last in pairwise(np.cumsum([0, *TILES])):
            both = _lists(offsets[:, first:last]), _lists(counts[:, first:last])
            levels.append(dict(zip(("tile_offsets", "tile_byte_counts"), both, strict=True)))
        inner = pa.concat_arrays([_structs(schema.LEVEL_TYPE, one, ITEMS) for one in levels[1:]])
        own = np.arange(4 * ITEMS).reshape(4, ITEMS).T.ravel()  # a row's overviews side by side
        ends = pa.array(np.arange(0, 4 * ITEMS + 1, 4, dtype=np.int32))
        overviews = pa.ListArray.from_arrays(ends, inner.take(pa.array(own)))
        values = {**levels[0], "levels": overviews}
        columns[schema.band_column(band)] = _structs(schema.BAND_TYPE, values, ITEMS)
    return pa.Table.from_arrays(
        [columns.get(f.name, pa.nulls(ITEMS, f.type)) for f in made], schema=made
    )


def spent(table: pa.Table, way: Way | None) -> tuple[int, int]:
    """Bytes of the two columns at all levels and bands, and the number of tiles."""
    options = schema.writer_options(table.schema)
    leaves = [leaf for leaf in options["compression"] if any(name in leaf for name in RANGES)]
    if way is not None:
        encoding, compression = way
        for leaf in leaves:
            options["column_encoding"].pop(leaf, None)
            options["compression"][leaf] = compression
            if compression != "zstd":
                options["compression_level"].pop(leaf, None)
            if encoding is not None:
                options["column_encoding"][leaf] = encoding
        if encoding is None:
            options["use_dictionary"] = leaves
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    stored = pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata
    total = tiles = 0
    for group in range(stored.num_row_groups):
        for number in range(stored.num_columns):
            chunk = stored.row_group(group).column(number)
            if any(name in chunk.path_in_schema for name in RANGES):
                total += chunk.total_compressed_size
    for band in schema.band_names(table.schema):
        tiles += sum(_tiles(row) for row in table.column(schema.band_column(band)).to_pylist())
    return total, tiles


def _tiles(band: dict[str, Any]) -> int:
    return sum(len(level["tile_offsets"] or ()) for level in (band, *(band["levels"] or ())))


def lines(data: Path) -> Iterator[str]:
    """The table, in Markdown."""
    with tempfile.TemporaryDirectory(prefix="ranges-") as where:
        small = real(data, where)
    large = collection(counts_of(small))
    (_, few), (_, many) = spent(small, None), spent(large, None)
    yield f"| bytes a tile | {few:,} tiles as they are | a collection of {many:,} tiles |"
    yield "|---|---|---|"
    for name, way in WAYS.items():
        each = [total / tiles for total, tiles in (spent(small, way), spent(large, way))]
        yield f"| {name} | {each[0]:.2f} | {each[1]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    own = Path(__file__).resolve().parents[2] / "shared" / "data"
    default = Path(os.environ.get("RASTERET_TEST_DATA", own))
    parser.add_argument("--data", type=Path, default=default, help="holds s2-austria")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    if not (options.data / "s2-austria").is_dir():
        parser.error(f"{options.data} holds no s2-austria; name it with --data")
    table = "\n".join(lines(options.data))
    print(table)
    if options.page:
        begin, end = "<!-- ranges -->", "<!-- /ranges -->"
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        PAGE.write_text(
            f"{head}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
