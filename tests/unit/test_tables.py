"""Collections as tables: made from tables, joined, thinned out, written, kept under ids, and opened elsewhere."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import geopandas
import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask import catalog
from rasteret_dask.errors import (
    ArgumentError,
    CollectionError,
    DuplicateItemError,
    MissingBandError,
    UnknownBandError,
)
from rasteret_dask.index.dedupe import superseded
from rasteret_dask.ingest.stream import open_rows
from rasteret_dask.ingest.table import TableSource, table_items
from rasteret_dask.model import DatasetDescriptor, StorageOptions
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

CORNER = Affine(0.001, 0, 15, 0, -0.001, 47)


@pytest.fixture(scope="module")
def styria(austria: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    return rd.build(
        "earthsearch/sentinel-2-l2a",
        name="styria",
        static_catalog=str(austria / "catalog.json"),
        workspace_dir=tmp_path_factory.mktemp("workspace"),
    )


def cog(path: Path, value: int, bands: int = 1) -> Path:
    array = np.stack([np.full((64, 64), value + b, "uint8") for b in range(bands)])
    return make_cog(path, array, transform=CORNER, crs="EPSG:4326", blocksize=64, overviews=0)


def scene(path: Path, name: str, bands: dict[str, int], *, day: int = 1, **columns: Any) -> Scene:
    files = {band: cog(path / f"{name}-{band}.tif", value) for band, value in bands.items()}
    return Scene(name, files, f"2023-07-{day:02d}T10:00:00", {}, columns)


# --- joining -------------------------------------------------------------------------------------
def test_concat_joins_items_and_bands(tmp_path: Path) -> None:
    a = collect(scene(tmp_path, "a", {"red": 1, "nir": 2}, day=2))
    b = collect(scene(tmp_path, "b", {"red": 3, "swir": 4}, day=1))
    both = rd.concat([a, b], name="both")
    assert (len(both), both.bands, both.name) == (2, ["red", "nir", "swir"], "both")
    assert both.to_table(["id"])["id"].to_pylist() == ["b", "a"]
    cube = both.get_xarray(bands=["red"])
    assert cube.red.values[:, 0, 0].tolist() == [3, 1]
    with pytest.raises(MissingBandError):
        both.get_xarray(bands=["nir"])
    assert both.get_xarray(bands=["nir"], missing="nodata", fill_value=0).nir.values.max() == 2
    assert len(both.subset(date_range="2023-07-02")) == 1
    assert len(both.where(pc.field("swir_metadata").is_valid())) == 1
    assert both.head(1).to_table(["id"])["id"].to_pylist() == ["b"]
    again = rd.as_collection(pa.table(both))
    assert again.to_table().equals(both.to_table())
    third = collect(scene(tmp_path, "c", {"red": 9}, day=3))
    assert len(rd.concat([both, third])) == 3


def test_concat_of_built_collections_still_pushes_filters_down(
    styria: rd.Collection, tmp_path: Path
) -> None:
    one = collect(scene(tmp_path, "x", {"B04": 7}))
    both = rd.concat([styria, one])
    assert len(both) == 11
    assert both.subset(bbox=(15.35, 46.95, 15.55, 47.1)).bands == both.bands
    found = both.subset(date_range="2023-08-15", cloud_cover_lt=101)
    assert sorted(found.to_table(["id"])["id"].to_pylist()) == sorted(
        styria.subset(date_range="2023-08-15").to_table(["id"])["id"].to_pylist()
    )
    assert both.band_info("B04").common_name == "red"


def test_concat_refuses_what_does_not_go_together(tmp_path: Path) -> None:
    a = collect(scene(tmp_path, "a", {"red": 1}))
    with pytest.raises(DuplicateItemError) as caught:
        rd.concat([a, a])
    assert caught.value.item == "a"
    with pytest.raises(ArgumentError, match="no band in common"):
        rd.concat([a, collect(scene(tmp_path, "b", {"nir": 1}))])
    with pytest.raises(ArgumentError, match="no collection"):
        rd.concat([])
    table = collect(scene(tmp_path, "c", {"red": 1})).to_table()
    signed = rd.as_collection(table, storage=StorageOptions({"region": "eu-west-1"}))
    with pytest.raises(ArgumentError, match="storage="):
        rd.concat([a, signed])
    assert rd.concat([a, signed], storage=signed.storage).storage == signed.storage


def test_dedupe_keeps_the_newest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def one(name: str, baseline: str, made: str, tile: str = "33TWM") -> Scene:
        columns = {
            "s2:datatake_id": f"GS2A_20230815T095031_042550_N{baseline}",
            "s2:processing_baseline": baseline,
            "s2:generation_time": made,
            "grid:code": f"MGRS-{tile}",
        }
        return scene(tmp_path, name, {"red": 1}, **columns)

    found = collect(
        one("old", "05.09", "2023-08-15T14:00:00Z"),
        one("new", "05.10", "2023-01-01T14:00:00Z"),
        one("neighbour", "05.09", "2023-08-15T14:00:00Z", "33TWL"),
        scene(tmp_path, "other", {"red": 1}),
    )
    with caplog.at_level(logging.WARNING, "rasteret_dask"):
        kept = found.dedupe()
    assert set(kept.to_table(["id"])["id"].to_pylist()) == {"new", "neighbour", "other"}
    assert "1 items" in caplog.text
    assert "old" in caplog.text
    assert kept.dedupe("latest") is kept
    with pytest.raises(ArgumentError):
        found.dedupe("first")


def test_dedupe_keeps_each_level_of_processing() -> None:
    """Of one level the catalogues' collections do not matter: Collection 1 is what the others were processed to again."""
    s2 = {"s2:datatake_id": "GS2A_20230815T095031_042550_N05.09", "grid:code": "MGRS-33TWM"}
    landsat = {"platform": "landsat-9", "landsat:wrs_path": "190", "landsat:wrs_row": "027"}
    told = {
        "S2A_MSIL1C_20230815T095031_N0509_R079_T33TWM_20230815T114310": ("sentinel-2-l1c", s2),
        "S2A_T33TWM_20230815T095031_L2A": ("sentinel-2-c1-l2a", s2),
        "S2A_33TWM_20230815_0_L2A": ("sentinel-2-l2a", s2),
        "LC09_L1TP_190027_20230803_20230803_02_T1": ("landsat-c2-l1", landsat),
        "LC09_L2SP_190027_20230803_20230805_02_T1": ("landsat-c2-l2", landsat),
        "LC09_L2SP_190027_20230803_20230811_02_T1": ("landsat-c2-l2", landsat),
    }
    rows = [
        {"id": name, "collection": collection, "datetime": datetime(2023, 8, 3, 9, 50), **columns}
        for name, (collection, columns) in told.items()
    ]
    names = dict.fromkeys(key for row in rows for key in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    assert superseded(table) == [
        "LC09_L2SP_190027_20230803_20230805_02_T1",
        "S2A_33TWM_20230815_0_L2A",
    ]


# --- writing -------------------------------------------------------------------------------------
def test_export_is_read_by_everyone(styria: rd.Collection, tmp_path: Path) -> None:
    styria.export(tmp_path / "all")
    back = rd.load(tmp_path / "all")
    assert back.to_table().equals(styria.to_table())
    assert back.resolve_bands(["red"]) == [("red", "B04")]
    assert geopandas.read_parquet(tmp_path / "all").crs == "OGC:CRS84"
    styria.subset(cloud_cover_lt=60).export(tmp_path / "parts", partition_by=["year", "month"])
    files = list((tmp_path / "parts").rglob("*.parquet"))
    assert [f.parent.relative_to(tmp_path / "parts").as_posix() for f in files] == [
        "year=2023/month=8"
    ]
    assert len(rd.load(tmp_path / "parts")) == len(styria.subset(cloud_cover_lt=60))
    with pytest.raises(CollectionError, match="something already"):
        styria.export(tmp_path / "all")
    for wrong in ("nothing", "assets", "id"):
        with pytest.raises(ArgumentError):
            styria.export(tmp_path / "wrong", partition_by=wrong)
    assert not (tmp_path / "wrong").exists()


def test_export_streams(styria: rd.Collection, tmp_path: Path) -> None:
    table = styria.to_table()
    many = 120
    seen: list[int] = []

    class Streaming:
        schema = table.schema
        dataset = True
        filter = None

        def batches(self, columns: Any = None) -> Any:
            for _ in range(many):
                seen.append(len(list((tmp_path / "out").rglob("*.parquet"))))
                yield from table.to_batches()

    before = pa.total_allocated_bytes()
    stream = rd.Collection(Streaming())  # type: ignore[arg-type]
    stream.export(tmp_path / "out")
    assert max(seen) >= 1  # files appear before the last row is made
    assert pa.total_allocated_bytes() - before < 64 * 1024 * 1024
    assert pads.dataset(tmp_path / "out").count_rows() == many * len(table)


# --- opening elsewhere ---------------------------------------------------------------------------
def test_load_from_memory_and_https(styria: rd.Collection, tmp_path: Path) -> None:
    styria.export("memory://exports/styria")
    assert rd.load("memory://exports/styria").to_table().equals(styria.to_table())
    styria.export(tmp_path / "styria")
    (file,) = (tmp_path / "styria").iterdir()
    shutil.copy(file, tmp_path / "one.parquet")
    with RangeServer(tmp_path) as server:
        over = rd.load(f"{server.url}/one.parquet")
        assert over.to_table().equals(styria.to_table())
        assert len(over.subset(date_range="2023-08-15")) == 2
    fsspec.filesystem("memory").rm("/exports", recursive=True)
    with pytest.raises(CollectionError):
        rd.load("memory://exports/styria")


# --- ids of one's own ----------------------------------------------------------------------------
def test_ids_of_ones_own(
    styria: rd.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("datasets: {}\n")
    monkeypatch.setenv(catalog.ENVIRONMENT, str(mine))
    styria.export(tmp_path / "styria")
    rd.register_local("mine/styria", tmp_path / "styria", title="Styria")
    found = rd.load("mine/styria")
    assert found.to_table(["id"]).equals(styria.to_table(["id"]))
    assert found.descriptor is not None
    assert found.descriptor.title == "Styria"
    assert found.compare_to_catalog()["bands_not_indexed"] == []
    known = rd.register(DatasetDescriptor(id="mine/other", stac_api="https://example.com"))
    assert {"mine/styria", "mine/other", "earthsearch/sentinel-2-l2a"} <= set(known)
    assert catalog.read(mine)["mine/other"].stac_api == "https://example.com"
    with pytest.raises(CollectionError):
        rd.register_local("mine/none", tmp_path / "none")


def test_what_is_in_the_workspace(styria: rd.Collection, tmp_path: Path) -> None:
    assert styria.place is not None
    root = Path(styria.place.url).parent
    (root / "notes").mkdir(exist_ok=True)
    (one,) = rd.list_collections(root)
    assert (one["name"], one["items"], one["url"]) == ("styria", 10, str(root / "styria"))
    assert rd.list_collections(tmp_path / "nowhere") == []


def test_compare_to_catalog(styria: rd.Collection) -> None:
    said = styria.compare_to_catalog()
    assert said["dataset"] == "earthsearch/sentinel-2-l2a"
    assert "B11" in said["bands_not_indexed"]
    assert said["bands_not_in_catalog"] == []
    with pytest.raises(ArgumentError):
        rd.as_collection(styria.to_table()).compare_to_catalog()


# --- made from tables ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path = tmp_path_factory.mktemp("rows")
    when = [datetime(2023, 1, day, tzinfo=UTC) for day in (3, 1, 2)]
    return pa.table(
        {
            "fid": ["a", "b", "c"],
            "when": pa.array(when, pa.timestamp("us", "UTC")),
            "geometry": shapely.to_wkb([shapely.box(15, 46.936, 15.064, 47)] * 3),
            "path": [str(cog(path / f"{k}.tif", k * 10, bands=2)) for k in range(3)],
            "split": ["train", "test", "train"],
        }
    )


def as_geopandas(table: pa.Table) -> geopandas.GeoDataFrame:
    frame = table.to_pandas()
    shapes = shapely.from_wkb(frame.pop("geometry"))
    return geopandas.GeoDataFrame(frame, geometry=shapes, crs=4326).to_crs(3857)


HOW: dict[str, Any] = {
    "column_map": {"fid": "id", "when": "datetime"},
    "href_column": "path",
    "band_index_map": {"one": 0, "two": 1},
}


@pytest.mark.parametrize("kind", ["arrow", "reader", "dataset", "geopandas", "parquet", "polars", "duckdb"])  # fmt: skip
def test_tables_of_every_kind(rows: pa.Table, tmp_path: Path, kind: str) -> None:
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}  # fmt: skip
    tagged = rows.replace_schema_metadata({b"geo": json.dumps(geo).encode()})
    pq.write_table(tagged, tmp_path / "rows.parquet")
    made: Any = {
        "arrow": lambda: rows,
        "reader": lambda: rows.to_reader(),
        "dataset": lambda: pads.dataset(tmp_path / "rows.parquet"),
        "geopandas": lambda: as_geopandas(rows),
        "parquet": lambda: tmp_path / "rows.parquet",
        "polars": lambda: polars.from_arrow(rows),
        "duckdb": lambda: duckdb.from_arrow(rows),
    }[kind]()
    found = rd.build_from_table(made, name="rows", workspace_dir=tmp_path, **HOW)
    assert found.to_table(["id"])["id"].to_pylist() == ["b", "c", "a"]
    assert found.bands == ["one", "two"]
    cube = found.get_xarray(bands=["two"])
    assert cube.two.values[:, 0, 0].tolist() == [11, 21, 1]
    assert np.allclose(found.bounds, (15, 46.936, 15.064, 47))
    assert len(found.subset(geometries=shapely.Point(15.01, 46.99))) == 3


def test_rows_and_columns_are_chosen(rows: pa.Table, tmp_path: Path) -> None:
    found = rd.build_from_table(
        rows,
        name="train",
        workspace_dir=tmp_path,
        filter_expr=pc.field("split") == "train",
        columns=["fid", "when", "path"],
        **HOW,
    )
    assert found.to_table(["id"])["id"].to_pylist() == ["c", "a"]
    there = rows["path"][0].as_py().rpartition("/")[0]
    moved = rows.set_column(3, "path", pa.array([p.replace(there, "s3://x") for p in rows["path"].to_pylist()]))  # fmt: skip
    again = rd.build_from_table(
        moved, name="again", workspace_dir=tmp_path, url_rewrite_patterns={"s3://x": there}, **HOW
    )
    assert len(again) == 3


def test_a_year_is_an_interval(rows: pa.Table) -> None:
    table = rows.set_column(1, "when", pa.array([2018, 2019, 2020]))
    how = TableSource({"fid": "id", "when": "datetime"}, "path")
    items = table_items(table, how)
    assert items[0]["properties"]["start_datetime"] == "2018-01-01T00:00:00Z"
    assert items[0]["properties"]["end_datetime"] == "2018-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (lambda t: t.drop_columns(["fid"]), ArgumentError, "no column 'fid'"),
        (lambda t: t.rename_columns(["x", *t.column_names[1:]]), ArgumentError, "no column 'fid'"),
        (lambda t: t.drop_columns(["path"]), ArgumentError, "no column 'path'"),
        (lambda t: t.set_column(0, "fid", pa.array(["a", "a", "b"])), DuplicateItemError, "same id"),
        (lambda t: t.set_column(0, "fid", pa.array(["a", None, "b"])), ArgumentError, "has no id"),
        (lambda t: t.set_column(1, "when", t["when"].cast(pa.timestamp("us"))), ArgumentError, "no time zone"),
        (lambda t: t.set_column(3, "path", pa.array(["a", None, "b"])), ArgumentError, "has no link"),
        (lambda t: t.set_column(2, "geometry", pa.array(shapely.to_wkb([shapely.Polygon()] * 3))), ArgumentError, "is empty"),
        (lambda t: t.set_column(2, "geometry", pa.array([1, 2, 3])), ArgumentError, "holds no geometries"),
        (lambda t: 5, ArgumentError, "no table"),
        (lambda t: "/nowhere/at/all.parquet", CollectionError, "no Parquet"),
    ],
)  # fmt: skip
def test_tables_that_will_not_do(
    rows: pa.Table, tmp_path: Path, change: Any, error: Any, what: str
) -> None:
    with pytest.raises(error) as caught:
        rd.build_from_table(change(rows), name="rows", workspace_dir=tmp_path, **HOW)
    assert what in str(caught.value)


def test_naive_times_when_it_is_said_what_they_mean(rows: pa.Table, tmp_path: Path) -> None:
    naive = rows.set_column(1, "when", rows["when"].cast(pa.timestamp("us")))
    found = rd.build_from_table(naive, name="n", workspace_dir=tmp_path, timezone="UTC", **HOW)
    assert found.dates[0] == datetime(2023, 1, 1)
    with pytest.raises(ArgumentError, match="only 'UTC'"):
        rd.build_from_table(naive, name="m", workspace_dir=tmp_path, timezone="CET", **HOW)
    with pytest.raises(ArgumentError, match="as_collection"):
        rd.build_from_table(naive, name="m", workspace_dir=tmp_path, enrich_cog=False, **HOW)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("stac-utils+stac-geoparquet/tests/data/naip.parquet", None),
        ("stac-utils+rustac/crates/duckdb/data/100-sentinel-2-items.parquet", 100),
        ("stac-utils+rustac/crates/duckdb/data/sentinel-1-global-mosaics.parquet", None),
        ("stac-utils+rustac/crates/core/data/extended-item.parquet", 1),
    ],
)
def test_stac_geoparquet_of_the_corpus(corpus: Path, path: str, count: int | None) -> None:
    rows = open_rows(corpus / path, TableSource(), StorageOptions())
    table = rows.dataset.to_table()
    items = list(rows.items())
    assert len(items) == len(table) == (count or len(items)) > 0
    for item, row in zip(items, table.select(["id", "assets"]).to_pylist()):
        assert item["id"] == row["id"]
        assert item["geometry"]["coordinates"]
        links = {k: v["href"] for k, v in row["assets"].items() if v is not None}
        assert {k: v["href"] for k, v in item["assets"].items()} == links
        assert "links" not in item["properties"]


# --- with DuckDB ---------------------------------------------------------------------------------
PLOTS = geopandas.GeoDataFrame(
    {"plot_id": ["plot-a", "far"], "crop": ["rice", "rye"]},
    geometry=[shapely.box(15.35, 46.94, 15.38, 46.98), shapely.box(1, 1, 2, 2)],
    crs="OGC:CRS84",
)
JOIN = """
    SELECT DISTINCT plots.plot_id, plots.crop, plots.geometry AS plot_geometry
    FROM items, plots
    WHERE items."eo:cloud_cover" < 60
      AND ST_Intersects(ST_GeomFromWKB(items.geometry), {})
"""


@pytest.fixture
def spatial() -> Any:
    """DuckDB with its spatial extension, which is no download here but a package."""
    package = pytest.importorskip("duckdb_extension_spatial")
    (extension,) = Path(package.__file__).parent.rglob("spatial.duckdb_extension")
    con = duckdb.connect()
    con.sql(f"LOAD '{extension}'")
    return con


@pytest.mark.parametrize("form", ["bytes", "a table of its own"])
def test_duckdb_joins_plots_and_hands_back_arrow(
    styria: rd.Collection, spatial: Any, form: str
) -> None:
    """The example of rasteret's README, with ST_Intersects; `docs/howto/duckdb.md` tells it."""
    clear = styria.subset(cloud_cover_lt=60)
    spatial.register("items", clear)
    if form == "bytes":
        wkb = shapely.to_wkb(PLOTS.geometry)
        table = pa.table({"plot_id": PLOTS.plot_id, "crop": PLOTS.crop, "geometry": wkb})
        spatial.register("plots", table)
        areas = spatial.sql(JOIN.format("ST_GeomFromWKB(plots.geometry)"))
        how: dict[str, Any] = {"geometry_crs": 4326}
    else:
        arrow = pa.table(PLOTS.to_arrow(geometry_encoding="WKB"))
        spatial.register("arrow", arrow)
        spatial.sql("CREATE TABLE plots AS SELECT * FROM arrow")
        areas = spatial.sql(JOIN.format("plots.geometry"))
        how = {}  # the geometries say their CRS, all the way through DuckDB
    found = clear.get_gdf(
        geometries=areas, geometry_column="plot_geometry", bands=["B04", "B08"], **how
    )
    assert set(found.plot_id) == {"plot-a"}
    assert set(found.crop) == {"rice"}
    assert len(found) == len(clear.subset(geometries=PLOTS[:1])) > 1
    how["geometry_column"] = "plot_geometry"
    assert len(clear.subset(geometries=areas, **how)) == len(found)
    cube = clear.get_xarray(areas, ["B04"], **how, fill_value=0)
    assert cube.equals(clear.get_xarray(PLOTS[:1], ["B04"], fill_value=0))
    assert clear.explain(areas, ["B04"], **how).requests > 0
    one = clear.subset(id=found.record_id[0])
    assert np.array_equal(one.get_numpy(areas, ["B04"], **how)[0], found.B04[0])
    hrefs = {r["id"]: r["assets"]["B04"]["href"] for r in clear.to_table(["id", "assets"]).to_pylist()}  # fmt: skip
    for row in found.itertuples():
        with rasterio.open(hrefs[row.record_id]) as file:
            shapes = PLOTS[:1].to_crs(file.crs).geometry
            expected, _ = rasterio.mask.mask(file, shapes, crop=True)
        assert np.array_equal(row.B04, expected[0])


def test_what_duckdb_filtered_is_a_collection_again(styria: rd.Collection) -> None:
    con = duckdb.connect()
    con.register("items", styria)
    for _ in range(2):  # it can be scanned more than once
        assert con.sql("SELECT count(*) FROM items").fetchall() == [(10,)]
    joined = con.sql('SELECT *, 7 AS score FROM items WHERE "eo:cloud_cover" < 30')
    back = rd.as_collection(joined, descriptor=styria.descriptor)
    assert len(back) == len(styria.subset(cloud_cover_lt=30)) == len(back.subset(score=7))
    best = back.subset(score_gt=6).get_xarray(
        bbox=tuple(PLOTS[:1].total_bounds), bands=["B04"], sortby="-score"
    )
    assert best.sizes["time"] > 0
    assert back.get_numpy(PLOTS[:1], ["B04"]).dtype == np.uint16


def test_polars_filters_and_hands_back(styria: rd.Collection) -> None:
    frame = polars.from_arrow(pa.table(styria)).filter(polars.col("eo:cloud_cover") < 30)
    back = rd.as_collection(frame)
    assert len(back) == len(styria.subset(cloud_cover_lt=30))
    assert back.get_xarray(bands=["B04"], bbox=(15.35, 46.95, 15.4, 47.0)).B04.values.any()


def test_tables_that_are_no_collections(styria: rd.Collection) -> None:
    with pytest.raises(CollectionError, match="lacks the columns"):
        rd.as_collection(pa.table({"id": ["a"]}))
    with pytest.raises(CollectionError, match="no column of headers"):
        rd.as_collection(styria.to_table(["id", "datetime", "assets"]))
    with pytest.raises(ArgumentError, match="no table"):
        rd.as_collection(7)
    with pytest.raises(UnknownBandError):
        styria.get_gdf((15.35, 46.95, 15.4, 47.0), ["B99"])


def test_an_export_goes_where_the_collection_lies_and_not_by_the_datasets_options(
    styria: rd.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "rasteret_dask.facade.tables.export_rows", lambda rows, kept, place, **_: seen.append(place)
    )
    public = rd.StorageOptions(options={"region": "us-west-2"})
    replace(styria, storage=public).export("s3://mine/out")
    replace(styria, storage=public, place=None).export("s3://mine/out")
    replace(styria, storage=public).export("s3://mine/out", storage=public)
    assert styria.place is not None
    assert [p.options for p in seen] == [styria.place.options, rd.StorageOptions(), public]


def test_what_came_from_others_is_exported_the_way_it_came(
    styria: rd.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = styria.export(tmp_path / "away")
    asked = rd.StorageOptions(options={"region": "mine"})
    other = rd.load(away, storage=asked)
    assert other.place is None
    seen = []
    monkeypatch.setattr(
        "rasteret_dask.facade.tables.export_rows", lambda rows, kept, place, **_: seen.append(place)
    )
    other.export("s3://mine/out")
    halves = [
        other.where(pc.field("id") == i) for i in other.to_table(["id"])["id"].to_pylist()[:2]
    ]
    rd.concat(halves).export("s3://mine/out")
    rd.concat([halves[0], replace(halves[1], reached=None)]).export("s3://mine/out")
    assert [p.options for p in seen] == [asked, asked, rd.StorageOptions()]
