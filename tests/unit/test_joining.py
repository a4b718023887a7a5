"""Joined collections whose descriptors disagree: every item keeps what its own collection says of nodata, scale and offset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rasterio
import xarray as xr
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import schema
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
RNG = np.random.default_rng(41)
VALUES = RNG.integers(100, 3000, (32, 32)).astype(np.int16)


def voids(nodata: int) -> np.ndarray:
    """Heights whose first rows are nothing."""
    out = VALUES.copy()
    out[:8] = nodata
    return out


def of(
    path: Path,
    name: str,
    image: np.ndarray,
    info: rd.BandInfo | None = None,
    declared: dict[str, Any] | None = None,
    columns: dict[str, Any] | None = None,
    **how: Any,
) -> rd.Collection:
    """A collection of one item, its descriptor's word on the band beside it."""
    options = {"transform": AT, "blocksize": 32, "overviews": 0, **how}
    file = make_cog(path / f"{name}.tif", image, **options)
    day = f"2023-07-0{1 + ord(name[0]) - ord('a')}T10:00:00"
    band = "v" if info is None else info.name
    said = {} if declared is None else {band: declared}
    found = collect(Scene(name, {band: file}, day, said, columns or {}))
    return replace(found, name=name, infos=() if info is None else (info,))


def same(cube: xr.Dataset, *expected: np.ndarray) -> None:
    for k, image in enumerate(expected):
        np.testing.assert_allclose(cube.v.values[k], image, rtol=1e-6, equal_nan=True)


KNOWN = np.where(np.arange(32)[:, None] < 8, np.nan, VALUES.astype(float))


@pytest.fixture
def heights(tmp_path: Path) -> list[rd.Collection]:
    """The first one's descriptor stands above what its file says, the second's says nothing, the third has none."""
    return [
        of(tmp_path, "a", voids(-9999), rd.BandInfo("v", "v", nodata=-9999), nodata=17),
        of(tmp_path, "b", voids(-32768), rd.BandInfo("v", "v"), nodata=-32768),
        of(tmp_path, "c", voids(-1), declared={"nodata": -1.0}),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("nested", [False, True])
def test_each_items_nothing_is_its_own_collections(
    heights: list[rd.Collection], order: tuple[int, ...], nested: bool
) -> None:
    given = [heights[k] for k in order]
    both = rd.concat([rd.concat(given[:2]), given[2]] if nested else given)
    same(both.get_xarray(masked=True), KNOWN, KNOWN, KNOWN)
    # Unmasked, all are brought to the first item's.
    same(both.get_xarray(), *[np.where(np.isnan(KNOWN), -9999, KNOWN)] * 3)
    part = both.subset(date_range="2023-07-02")
    same(part.get_xarray(masked=True), KNOWN)
    assert len(both.where(pc.field("id") == "c")) == 1
    # The caller's own stands above all.
    one = int(VALUES[20, 20])
    said = both.get_xarray(masked=True, nodata=one).v.values
    assert np.array_equal(np.isnan(said[0]), voids(-9999) == one)


def test_rows_that_leave_a_joined_collection_still_say_it(
    heights: list[rd.Collection], tmp_path: Path
) -> None:
    both = rd.concat(heights)
    same(both.head(1).get_xarray(masked=True), KNOWN)
    same(rd.as_collection(pa.table(both)).get_xarray(masked=True), KNOWN, KNOWN, KNOWN)
    away = rd.load(both.export(tmp_path / "away"))
    same(away.get_xarray(masked=True), KNOWN, KNOWN, KNOWN)
    assert both.to_table(["v_metadata"]).equals(both.to_table().select(["v_metadata"]))


def test_points_and_windows_see_it_too(tmp_path: Path) -> None:
    told = [
        of(tmp_path, name, voids(nodata), rd.BandInfo("v", "v", nodata=nodata, scale=scale))
        for name, nodata, scale in (("a", -9999, 0.5), ("b", -32768, 2.0))
    ]
    both = rd.concat(told)
    at = np.array([[500_015.0, 5_199_985.0], [500_015.0, 5_199_785.0]])
    rows = both.sample_points(at, ["v"], geometry_crs="EPSG:32633", scale=True).to_pandas()
    assert rows.value[rows.point_index == 0].isna().tolist() == [True, True]
    assert rows.value[rows.point_index == 1].tolist() == [VALUES[21, 1] * s for s in (0.5, 2.0)]
    area = (500_000.0, 5_199_680.0, 500_320.0, 5_200_000.0)
    windows = both.get_numpy(area, ["v"], geometry_crs="EPSG:32633", scale=True)
    np.testing.assert_allclose(windows, [KNOWN * 0.5, KNOWN * 2.0], rtol=1e-6)


def test_scale_and_offset_are_each_ones_own(tmp_path: Path) -> None:
    other = rd.BandInfo("v", "v", scale=100.0, offset=7.0)
    given = [
        of(tmp_path, "a", VALUES, rd.BandInfo("v", "v", scale=0.5, offset=1.0)),
        of(tmp_path, "b", VALUES, other, scales=[0.25]),
        of(tmp_path, "c", VALUES, other, declared={"scale": 2.0}),
        of(tmp_path, "d", VALUES, rd.BandInfo("v", "v", scale=3.0)),
        of(tmp_path, "e", VALUES),
    ]
    expected = [VALUES * 0.5 + 1.0, VALUES * 0.25, VALUES * 2.0, VALUES * 3.0, VALUES]
    same(rd.concat(given).get_xarray(scale=True), *expected)
    same(rd.concat(given[::-1]).get_xarray(scale=True), *expected)
    only = rd.concat(given).to_table(["v_metadata"])["v_metadata"]
    assert pc.struct_field(only, "scale").to_pylist() == [0.5, 0.25, None, 3.0, None]


def test_landsat_beside_sentinel2_by_common_names(tmp_path: Path) -> None:
    truth = RNG.integers(1, 9000, (32, 32)) * 1e-4
    landsat = of(
        tmp_path,
        "b",
        np.rint((truth + 0.2) / 0.0000275).astype(np.uint16),
        rd.BandInfo("red", "red", nodata=0, scale=0.0000275, offset=-0.2),
        columns={"collection": "landsat-c2-l2"},
    )
    sentinel = of(
        tmp_path,
        "a",
        np.rint(truth * 1e4 + 1000).astype(np.uint16),
        rd.BandInfo("red", "red", nodata=0),
        columns={"collection": "sentinel-2-l2a", "s2:processing_baseline": "05.09"},
    )
    for given in ([sentinel, landsat], [landsat, sentinel]):
        cube = rd.concat(given).get_xarray(bands=["red"], scale=True, masked=True)
        np.testing.assert_allclose(cube.red.values[0], truth, atol=1.5e-7, rtol=0)
        np.testing.assert_allclose(cube.red.values[1], truth, atol=0.0000275, rtol=0)


def bare(table: pa.Table) -> pa.Table:
    """Rows as another library writes them: headers without fields that only ours have."""
    at = table.schema.get_field_index("v_metadata")
    column = table.column(at).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    ours = ("nodata_text", "scale", "offset")
    kept = [k for k, field in enumerate(column.type) if field.name not in ours]
    fields = [column.type[k] for k in kept]
    struct = pa.StructArray.from_arrays([column.field(k) for k in kept], fields=fields)
    return table.set_column(at, "v_metadata", struct).replace_schema_metadata({})


def test_tables_of_other_libraries_are_told_and_keep_their_files_word(tmp_path: Path) -> None:
    info = rd.BandInfo("v", "v", nodata=-9999, scale=0.5)
    ours = of(tmp_path, "a", voids(-32768), nodata=-32768)
    told = rd.as_collection(bare(of(tmp_path, "b", voids(-9999)).to_table()))
    plain = rd.as_collection(bare(of(tmp_path, "c", voids(-1), nodata=-1).to_table()))
    told = replace(told, infos=(info,))
    for given in ([ours, told, plain], [told, plain, ours]):
        cube = rd.concat(given).get_xarray(masked=True, scale=True)
        same(cube, KNOWN, KNOWN * 0.5, KNOWN)
    same(rd.concat([told, plain]).get_xarray(masked=True, scale=True), KNOWN * 0.5, KNOWN)
    same(rd.concat([ours, plain]).get_xarray(masked=True), KNOWN, KNOWN)


def test_what_all_say_alike_stays_the_descriptors_word(tmp_path: Path) -> None:
    info = rd.BandInfo("v", "first", nodata=-9999, scale=0.5, common_name="red")
    first = of(tmp_path, "a", voids(-9999), info)
    second = of(tmp_path, "b", voids(-9999), replace(info, asset="second"))
    both = rd.concat([first, second])
    assert both.infos == (info,)
    same(both.get_xarray(masked=True, scale=True), KNOWN * 0.5, KNOWN * 0.5)
    headers = both.to_table(["v_metadata"])["v_metadata"]
    assert pc.struct_field(headers, "nodata").to_pylist() == [None, None]


def test_a_band_that_one_of_them_calls_classes_is_one(tmp_path: Path) -> None:
    given = [
        of(tmp_path, "a", VALUES, rd.BandInfo("v", "v")),
        of(tmp_path, "b", VALUES, rd.BandInfo("v", "v", categorical=True)),
    ]
    for order in (given, given[::-1]):
        cube = rd.concat(order).get_xarray(resampling="bilinear", resolution=7, fill_value=0)
        assert cube.v.attrs["rasteret:resampling"] == "nearest"


def test_bands_that_are_decoded_differently_are_refused_by_name(tmp_path: Path) -> None:
    image = RNG.integers(-127, 127, (32, 32)).astype(np.int8)
    coded = of(tmp_path, "a", image, rd.BandInfo("v", "v", decode="alphaearth"))
    for other in (of(tmp_path, "b", image), of(tmp_path, "b", image, rd.BandInfo("v", "v"))):
        for given in ([coded, other], [other, replace(coded, name="")]):
            with pytest.raises(ArgumentError, match="decode the band alike") as caught:
                rd.concat(given)
            assert caught.value.band == "v"
    again = of(tmp_path, "c", image, rd.BandInfo("v", "v", decode="alphaearth"))
    cube = rd.concat([coded, again]).get_xarray(decode=True)
    scaled = image / 127.5
    np.testing.assert_allclose(cube.v.values[1], np.sign(scaled) * scaled**2, atol=1e-6)


def test_the_schema_says_what_the_rows_hold(heights: list[rd.Collection]) -> None:
    both = rd.concat(heights)
    assert both.to_table().schema.equals(both.schema)
    assert [b.schema for b in both.to_batches(["v_metadata"])] == [
        pa.schema([both.schema.field(schema.band_column("v"))])
    ] * 3


# --- rows of other libraries beside ours --------------------------------------------------------
def plain_rows(table: pa.Table, bands: tuple[str, ...], renamed: bool = False) -> pa.Table:
    """Rows as rasteret writes them: headers of its own fields alone; or with assets under STAC's keys."""
    last = [field.name for field in schema.BAND_TYPE].index("band_index")
    theirs = [field.name for field in schema.BAND_TYPE][:last]
    for band in bands:
        at = table.schema.get_field_index(schema.band_column(band))
        column = table.column(at).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        struct = pa.StructArray.from_arrays([column.field(n) for n in theirs], names=theirs)
        table = table.set_column(at, table.schema.field(at).name, struct)
    if renamed:
        at = table.schema.get_field_index("assets")
        held = table.column(at).combine_chunks()
        held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        names = [f"stac-{field.name}" for field in held.type]
        struct = pa.StructArray.from_arrays(held.flatten(), names=names)
        table = table.set_column(at, "assets", struct)
    # They have one CRS a row.
    return table.set_column(
        table.schema.get_field_index("proj:epsg"), "proj:epsg", pa.array([32633] * len(table))
    ).replace_schema_metadata({})


@pytest.mark.parametrize("compress", ["deflate", "WEBP"])
@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_rasterets_beside_ours_keep_their_samples(
    tmp_path: Path, compress: str, order: int
) -> None:
    """Bits and the place of a band within a file are not among their headers."""
    image = np.stack([np.full((64, 64), v, np.uint8) for v in (50, 100, 200)])
    files = [
        make_cog(
            tmp_path / f"{n}.tif", image, transform=AT, compress=compress, quality=100, overviews=0
        )
        for n in "ab"
    ]
    bands = ("R", "G", "B")
    made = [
        collect(
            Scene(n, {band: (file, k) for k, band in enumerate(bands)}, f"2023-07-0{d}T10:00:00")
        )
        for n, file, d in zip("ab", files, (1, 2))
    ]
    other = rd.as_collection(plain_rows(made[1].to_table(), bands))
    both = rd.concat([made[0], other][::order])
    for k, band in enumerate(bands):
        with rasterio.open(files[1]) as source:
            expected = source.read(k + 1)
        for found in (other, both.where(pc.field("id") == "b")):
            assert np.array_equal(found.get_numpy(bands=[band])[0], expected)
        assert len(both.get_numpy(bands=[band])) == 2


def test_assets_under_stacs_keys_beside_assets_under_bands(tmp_path: Path) -> None:
    info = rd.BandInfo("v", "stac-v", nodata=-9999)
    ours = of(tmp_path, "a", voids(-9999), rd.BandInfo("v", "stac-v", nodata=-9999))
    made = of(tmp_path, "b", voids(-32768), declared={"scale": 0.5, "offset": 1.0})
    other = rd.as_collection(plain_rows(made.to_table(), ("v",), renamed=True))
    other = replace(other, infos=(replace(info, nodata=-32768),))
    for given in ([ours, other], [other, ours]):
        both = rd.concat(given)
        same(both.get_xarray(masked=True), KNOWN, KNOWN)
        same(both.get_xarray(masked=True, scale=True), KNOWN, KNOWN * 0.5 + 1.0)


# --- what all say alike leaves with the rows -------------------------------------------------------
def test_what_all_say_alike_leaves_with_the_rows(tmp_path: Path) -> None:
    info = rd.BandInfo("v", "v", nodata=-9999, scale=0.5, aliases=("height",))
    both = rd.concat([of(tmp_path, n, voids(-9999), info) for n in "ab"], name="both")
    away = [rd.load(both.export(tmp_path / "away")), rd.as_collection(pa.table(both))]
    for found in (both, *away):
        assert found.infos == (info,)
        assert found.resolve_bands("height") == [("height", "v")]
        same(found.get_xarray(masked=True, scale=True), KNOWN * 0.5, KNOWN * 0.5)


def test_sparse_tiles_of_joined_rows_hold_what_they_hold_alone(tmp_path: Path) -> None:
    """Bytes cannot hold the catalogue's word: their sparse tiles are the file's own value, and valid."""
    image = np.full((128, 128), 255, np.uint8)
    image[:64, :64] = 3
    image[0, 0] = 255
    how: dict[str, Any] = {"driver": "GTiff", "blocksize": 64, "nodata": 255, "sparse": True}
    alone = of(tmp_path, "a", image, rd.BandInfo("v", "v", nodata=-9999), **how)
    other = of(tmp_path, "b", np.zeros((128, 128), np.uint8), rd.BandInfo("v", "v", nodata=0))
    expected = alone.get_xarray(masked=True).v.values[0]
    assert np.array_equal(expected, image)
    for given in ([alone, other], [other, alone]):
        both = rd.concat(given)
        for found in (both, rd.as_collection(pa.table(both))):
            a = found.where(pc.field("id") == "a")
            assert np.array_equal(a.get_xarray(masked=True).v.values[0], expected)
            assert np.array_equal(a.get_xarray(masked=True, nodata=-5).v.values[0], expected)
            assert np.isnan(found.where(pc.field("id") == "b").get_xarray(masked=True).v).all()
