"""What tile ranges cost on disk: a promise of the format, at most 6 bytes a tile for offset and count together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_dask.index import schema
from rasteret_dask.ingest.parts import ROWS_PER_GROUP

ROWS, TILES = 512, (121, 36, 9, 4, 1)
"""Levels of a Sentinel-2 band of 10 m in tiles of 1024 pixels."""


def files(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """First bytes and sizes of the tiles of scenes: compressed sizes vary from scene to scene and from tile to tile; overviews come first,
    as GDAL writes them."""
    scenes = rng.uniform(0.6e6, 1.9e6, (ROWS, 1))
    counts = (scenes * rng.lognormal(0, 0.25, (ROWS, sum(TILES)))).astype(np.int64)
    order = counts[:, ::-1]
    # Each tile has its size before it and after it, as in GDAL's COGs.
    starts = np.cumsum(order + 8, axis=1) - order + rng.integers(5000, 9000, (ROWS, 1))
    return starts[:, ::-1], counts


def lists(values: np.ndarray) -> pa.Array:
    ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.ascontiguousarray(values).ravel())


def structs(kind: pa.StructType, given: dict[str, pa.Array], count: int) -> pa.Array:
    columns = [given.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def test_six_bytes_a_tile_at_most() -> None:
    rng = np.random.default_rng(0)
    made = schema.make_schema(["B02", "B03", "B04", "B08"])
    edges = np.cumsum([0, *TILES])
    columns = {}
    for band in schema.band_names(made):
        starts, counts = files(rng)
        levels = []
        for first, last in pairwise(edges):
            ranges = {
                "tile_offsets": starts[:, first:last],
                "tile_byte_counts": counts[:, first:last],
            }
            levels.append({name: lists(values) for name, values in ranges.items()})
        # All overviews of a row are one list.
        inner = pa.concat_arrays(
            [structs(schema.LEVEL_TYPE, level, ROWS) for level in levels[1:]]
        ).take(pa.array(np.arange(4 * ROWS).reshape(4, ROWS).T.ravel()))
        ends = pa.array(np.arange(0, 4 * ROWS + 1, 4, dtype=np.int32))
        overviews = pa.ListArray.from_arrays(ends, inner)
        columns[schema.band_column(band)] = structs(
            schema.BAND_TYPE, {**levels[0], "levels": overviews}, ROWS
        )
    columns["id"] = pa.array([f"S2A_{k}" for k in range(ROWS)])
    table = pa.Table.from_arrays(
        [columns.get(f.name, pa.nulls(ROWS, f.type)) for f in made], schema=made
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **schema.writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    stored = pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata
    spent = 0
    for group in range(stored.num_row_groups):
        for number in range(stored.num_columns):
            chunk = stored.row_group(group).column(number)
            if (
                ".tile_offsets." in chunk.path_in_schema
                or ".tile_byte_counts." in chunk.path_in_schema
            ):
                assert "RLE_DICTIONARY" not in chunk.encodings
                spent += chunk.total_compressed_size
    tiles = ROWS * 4 * sum(TILES)
    assert 3 < spent / tiles <= 6, f"{spent / tiles:.2f} bytes a tile"
