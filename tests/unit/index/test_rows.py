"""Headers of real files → rows → Parquet → the same tile ranges and layouts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from rasteret_dask.errors import HeaderError, RasteretError, UnknownBandError
from rasteret_dask.index import schema
from rasteret_dask.index.rows import HeaderBand, band_array, band_sources, header_to_struct
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.tiff.alike import Parser
from rasteret_dask.tiff.header import Segments, parse
from rasteret_dask.tiff.model import Level, TiffHeader


def header_of(path: Path) -> TiffHeader:
    found = parse(Segments.whole(path.read_bytes()))
    assert isinstance(found, TiffHeader)
    return found


def table_of(structs: list[Any], folder: Path, **extra: Any) -> pa.Table:
    """A collection of one band, written and read again."""
    n = len(structs)
    rows = {
        schema.ID: [f"item{i}" for i in range(n)],
        schema.ASSETS: [{"B": {"href": f"https://h/{i}.tif", "band_index": 0}} for i in range(n)],
        schema.band_column("B"): structs,
        **extra,
    }
    made = schema.make_schema(["B"])
    columns = [pa.array(rows.get(f.name, [None] * n), f.type) for f in made]
    table = pa.Table.from_arrays(columns, schema=made)
    path = folder / "t.parquet"
    pq.write_table(table, path, **schema.writer_options(made))
    return pq.read_table(path)


def check_level(table: pa.Table, level: Level, number: int, *, mask: bool, plane: int) -> None:
    got = band_sources(table, "B", number, mask=mask)
    assert len(got) == 1
    down, across = level.grid
    tiles = slice(0, down * across)
    if level.planar == 2:
        tiles = slice(plane * down * across, (plane + 1) * down * across)
    np.testing.assert_array_equal(got.offsets, level.offsets[tiles])
    np.testing.assert_array_equal(got.counts, level.counts[tiles])
    assert got.tile_ptr.tolist() == [0, down * across]
    assert got.layouts == (level.layout,)
    assert (got.widths[0], got.heights[0]) == (level.width, level.height)
    assert (got.samples[0], got.planar[0]) == (level.samples, level.planar)


def test_every_header_of_the_corpus_comes_back_from_parquet(corpus: Path, tmp_path: Path) -> None:
    tried = 0
    for path in sorted(corpus.rglob("*.tif")):
        if path.stat().st_size > 4_000_000:
            continue
        try:
            header = header_of(path)
        except RasteretError:
            continue
        tried += 1
        band = header.levels[0].samples - 1
        table = table_of([header_to_struct(header, band)], tmp_path)
        for number, level in enumerate(header.levels):
            check_level(table, level, number, mask=False, plane=band)
        for number, level_mask in enumerate(header.masks):
            if level_mask is None:
                assert len(band_sources(table, "B", number, mask=True)) == 0
            else:
                check_level(table, level_mask, number, mask=True, plane=0)
        got = band_sources(table, "B")
        assert got.crs == (header.crs,)
        assert got.band_index.tolist() == [band]
        (nodata,) = got.nodata
        assert type(nodata) is type(header.nodata)
        assert nodata == header.nodata or (math.isnan(nodata) and math.isnan(header.nodata))  # type: ignore[arg-type]
        if header.transform is not None:
            assert tuple(got.transforms[0]) == header.transform
        else:
            assert np.isnan(got.transforms).all()
    assert tried > 100


def test_overview_transform_is_gdals(austria: Path, tmp_path: Path) -> None:
    path = austria / "S2A_33TWL_20230815_0_L2A" / "B04.tif"
    table = table_of([header_to_struct(header_of(path))], tmp_path)
    for number in (0, 1):
        level = {} if number == 0 else {"overview_level": number - 1}
        with rasterio.open(path, **level) as src:
            got = band_sources(table, "B", number)
            assert (src.width, src.height) == (got.widths[0], got.heights[0])
            assert tuple(src.transform)[:6] == pytest.approx(tuple(got.transforms[0]), rel=1e-12)
            assert got.nodata == (src.nodata,)
            assert got.crs == (src.crs.to_string(),)


def test_rows_without_a_header_or_level_are_left_out(austria: Path, tmp_path: Path) -> None:
    folder = austria / "S2A_33TWL_20230815_0_L2A"
    red, scl = (header_to_struct(header_of(folder / n)) for n in ("B04.tif", "SCL.tif"))
    table = table_of([red, None, {**scl, "levels": []}, scl], tmp_path)
    full = band_sources(table, "B")
    assert full.rows.tolist() == [0, 2, 3]
    assert full.item_ids == ("item0", "item2", "item3")
    assert full.urls == ("https://h/0.tif", "https://h/2.tif", "https://h/3.tif")
    assert full.dtypes == ("uint16", "uint8", "uint8")
    assert full.layout_ids[1] == full.layout_ids[2] != full.layout_ids[0]
    assert len(full.layouts) == 2
    assert band_sources(table, "B", 1).rows.tolist() == [0, 3]
    assert len(band_sources(table, "B", 9)) == 0
    assert len(band_sources(table.slice(1, 1), "B")) == 0
    assert band_sources(table.slice(2), "B").rows.tolist() == [0, 1]


def test_chunked_and_sliced_tables_give_the_same(austria: Path, tmp_path: Path) -> None:
    folder = austria / "S2B_33TWM_20230820_0_L2A"
    structs = [header_to_struct(header_of(folder / f"{n}.tif")) for n in ("B02", "B03", "SCL")]
    table = table_of(structs, tmp_path)
    chunked = pa.concat_tables([table.slice(i, 1) for i in range(3)])
    for level in (0, 1):
        a, b = band_sources(table, "B", level), band_sources(chunked, "B", level)
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.tile_ptr, b.tile_ptr)
        assert a.layouts == b.layouts
        one = band_sources(table.slice(2), "B", level)
        np.testing.assert_array_equal(one.offsets, a.offsets[a.tile_ptr[2] : a.tile_ptr[3]])


def test_stac_speaks_only_where_the_file_is_silent(austria: Path, tmp_path: Path) -> None:
    path = austria / "S2A_33TWL_20230815_0_L2A" / "B04.tif"
    struct = header_to_struct(header_of(path))
    silent = {**struct, "nodata": None, "nodata_text": None, "scale": None, "offset": None}
    spoken = {**struct, "scale": 2.0, "offset": None}
    claim = {"nodata": 7.0, "scale": 0.0001, "offset": -0.1}
    absurd = {"nodata": -9999.0}
    assets = [
        {"B": {"href": "u", "band_index": 0, schema.RASTER_BANDS: c}}
        for c in ([claim], [claim], [absurd], [])
    ]
    table = table_of([silent, spoken, silent, silent], tmp_path, assets=assets)
    got = band_sources(table, "B")
    assert got.nodata == (7, 0, None, None)
    np.testing.assert_array_equal(got.scales, [0.0001, 2.0, np.nan, np.nan])
    np.testing.assert_array_equal(got.adds, [-0.1, np.nan, np.nan, np.nan])


def test_a_table_of_rasterets_own_fields_is_enough(austria: Path) -> None:
    header = header_of(austria / "S2A_33TWL_20230815_0_L2A" / "B04.tif")
    ours = header_to_struct(header)
    names = [f.name for f in schema.BAND_TYPE][:17]
    kind = pa.struct([schema.BAND_TYPE.field(n) for n in names])
    asset = pa.struct([("href", pa.string()), ("band_index", pa.int64())])
    table = pa.table(
        {
            "id": ["a"],
            "proj:epsg": pa.array([32633], pa.int32()),
            "assets": pa.array([{"B": {"href": "u", "band_index": 0}}], pa.struct([("B", asset)])),
            "B_metadata": pa.array([{n: ours[n] for n in names}], kind),
        }
    )
    got = band_sources(table, "B")
    assert got.layouts == (header.levels[0].layout,)
    assert got.crs == ("EPSG:32633",)
    assert got.nodata == (0,)
    assert tuple(got.transforms[0]) == header.transform
    assert len(band_sources(table, "B", 1)) == 0


def test_wrong_names_are_refused(austria: Path, tmp_path: Path) -> None:
    header = header_of(austria / "S2A_33TWL_20230815_0_L2A" / "B04.tif")
    with pytest.raises(HeaderError, match="no band number 3"):
        header_to_struct(header, 3)
    with pytest.raises(UnknownBandError, match="B99"):
        band_sources(table_of([header_to_struct(header)], tmp_path), "B99")


@pytest.mark.parametrize("masked", [False, True])
def test_headers_that_are_alike_keep_tables_sizes_and_versions_of_their_own(
    masked: bool, tmp_path: Path
) -> None:
    parser, headers = Parser(), []
    for seed in range(4):
        array = np.random.default_rng(seed).integers(0, 50 + 900 * seed, (2, 300, 300))
        mask = array[0] > 20 if masked else None
        path = make_cog(tmp_path / f"{seed}.tif", array.astype("uint16"), blocksize=64, mask=mask)
        segments = Segments(((0, path.read_bytes()[:16384]),), path.stat().st_size)
        found = parser.parse(segments, f'"{seed}"', f"2023-01-0{seed + 1}")
        assert isinstance(found, TiffHeader)
        headers.append(found)
    assert parser.hits == 3
    wanted = [(0, 1), None, (1, 0), (2, 1), None, (3, 1)]
    column = band_array([None if w is None else HeaderBand(headers[w[0]], w[1]) for w in wanted])
    column.validate(full=True)
    assert column.is_null().to_pylist() == [w is None for w in wanted]
    for want, row in zip(wanted, column.to_pylist(), strict=True):
        if want is None:
            continue
        with rasterio.open(tmp_path / f"{want[0]}.tif") as src:
            assert (row["image_width"], row["crs"]) == (src.width, src.crs.to_string())
        header = headers[want[0]]
        assert (row["band_index"], row["etag"]) == (want[1], f'"{want[0]}"')
        assert row["size"] == (tmp_path / f"{want[0]}.tif").stat().st_size
        assert row["last_modified"] == f"2023-01-0{want[0] + 1}"
        pairs = [(row, header.levels[0]), *zip(row["levels"], header.levels[1:], strict=True)]
        pairs += zip(row["masks"], header.masks if masked else (), strict=True)
        assert len(row["masks"]) == (len(header.levels) if masked else 0)
        for got, level in pairs:
            assert got["tile_offsets"] == level.offsets.tolist()
            assert got["tile_byte_counts"] == level.counts.tolist()
            assert got["image_height"] == level.height
    sizes = {tuple(row["tile_byte_counts"]) for row in column.to_pylist() if row}
    assert len(sizes) == 4
