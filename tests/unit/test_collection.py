"""The facade as a table."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import shapely

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, CollectionError, UnknownBandError
from rasteret_dask.index import schema
from rasteret_dask.index.extent import bounds_of
from rasteret_dask.ingest import cut

GRAZ = (15.35, 46.95, 15.55, 47.1)


@pytest.fixture(scope="module")
def styria(austria: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "slice_rows", lambda count, bands: 2)  # several parts
        return rd.build(
            "earthsearch/sentinel-2-l2a",
            name="styria",
            static_catalog=str(austria / "catalog.json"),
            workspace_dir=tmp_path_factory.mktemp("workspace"),
        )


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, rasteret_dask as rd\n"
        "assert not {'dask', 'xarray', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert rd.load and 'Collection' in dir(rd)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nonsense"):
        rd.nonsense  # type: ignore[attr-defined]


def test_subset_by_place_and_time(styria: rd.Collection) -> None:
    north = styria.subset(bbox=GRAZ)
    assert {i.split("_")[1] for i in north.to_table(["id"])["id"].to_pylist()} == {"33TWM"}
    assert len(north) == 5
    assert len(styria.subset(bbox=GRAZ, date_range=("2023-08-10", "2023-08-13"))) == 2
    assert len(styria.subset(date_range="2023-08-15")) == 2
    assert len(styria.subset(bbox=(0, 0, 1, 1))) == 0
    assert len(styria.subset()) == 10


def test_subset_by_true_intersection(styria: rd.Collection) -> None:
    footprints = styria.to_geopandas(["id"])
    corner = shapely.Point(15.0005, 46.05)  # inside the box of 33TWL, outside its footprint
    inside = footprints[footprints.intersects(corner)]
    assert 0 < len(inside) < len(styria.subset(bbox=(*corner.coords[0], *corner.coords[0])))
    got = styria.subset(geometries=corner).to_table(["id"])["id"].to_pylist()
    assert sorted(got) == sorted(inside["id"])
    utm = shapely.box(520000, 5150000, 521000, 5151000)
    assert len(styria.subset(geometries=utm, geometry_crs="EPSG:32633")) == 5
    assert len(styria.subset(geometries=GRAZ)) == 5


def test_unknown_cloud_cover_is_left_out_and_counted(
    styria: rd.Collection, caplog: pytest.LogCaptureFixture
) -> None:
    clouds = styria.to_table(["eo:cloud_cover"])["eo:cloud_cover"].to_pylist()
    with caplog.at_level(logging.WARNING, "rasteret_dask"):
        assert len(styria.subset(cloud_cover_lt=20)) == sum(c < 20 for c in clouds)
    assert not caplog.records
    table = styria.to_table()
    at = table.schema.get_field_index("eo:cloud_cover")
    silent = rd.as_collection(table.set_column(at, "eo:cloud_cover", pa.nulls(10, pa.float64())))
    with caplog.at_level(logging.WARNING, "rasteret_dask"):
        assert len(silent.subset(cloud_cover_lt=20)) == 0
    assert "10 items do not say" in caplog.text
    with pytest.raises(ArgumentError):
        styria.subset(cloud_cover_lt="20")  # type: ignore[arg-type]


def test_subset_by_columns_and_expressions(styria: rd.Collection) -> None:
    assert len(styria.subset(platform="sentinel-2a")) == 4
    assert len(styria.subset(grid_code="MGRS-33TWL", **{"eo:cloud_cover_lt": 50})) > 0
    assert len(styria.where(pc.field("s2:processing_baseline") == "05.09")) == 10
    assert len(styria.where(pc.field("earthsearch:boa_offset_applied"))) == 10
    with pytest.raises(ArgumentError, match="no column 'colour'"):
        styria.subset(colour="red")


def test_queries_read_nothing_until_asked(styria: rd.Collection) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a query read the table")

    dataset = type(
        "Silent", (), {"schema": styria.schema, "to_table": refuse, "count_rows": refuse}
    )
    silent = rd.Collection(
        type(styria.view)(dataset()), name="silent", infos=styria.infos, commit=styria.commit
    )
    found = silent.subset(bbox=GRAZ, date_range="2023-08", cloud_cover_lt=50)
    found.where(pc.field("id") == "x").resolve_bands(["red"])


def test_parts_that_cannot_match_are_not_opened(styria: rd.Collection) -> None:
    dataset = styria.view.dataset
    assert len(list(dataset.get_fragments())) == 5
    day = styria.subset(date_range="2023-08-13").view.filter
    assert len(list(dataset.get_fragments(filter=day))) <= 2
    north = styria.subset(bbox=GRAZ).view.filter  # parts are cut by place too
    assert len(list(dataset.get_fragments(filter=north))) == 3
    away = styria.subset(bbox=(0, 0, 1, 1)).view.filter
    assert len(list(dataset.get_fragments(filter=away))) == 0


def test_passing_over_parts_loses_no_row(styria: rd.Collection) -> None:
    whole = rd.as_collection(styria.to_table())  # no parts, nothing to pass over
    for x in (14.9, 15.0001, 15.2, 16.0, 16.42, 16.44, 16.5):
        for y in (45.0, 45.06, 46.0, 46.04, 46.9, 46.953, 47.0):
            bbox = (x, y, x + 0.001, y + 0.001)
            got = styria.subset(bbox=bbox).to_table(["id"])
            assert got.equals(whole.subset(bbox=bbox).to_table(["id"])), bbox
    for moment in whole.to_table(["datetime"])["datetime"].to_pylist():
        assert len(styria.subset(date_range=(moment, moment))) == 1
        assert len(styria.subset(date_range=(moment, None)).subset(date_range=(None, moment))) == 1


def test_head_and_tables(styria: rd.Collection) -> None:
    assert len(styria.head(3)) == 3
    assert styria.head(3).bands == styria.bands
    whole = pa.table(styria)  # through the C stream
    assert whole.num_rows == 10
    assert sum(b.num_rows for b in styria.to_batches(["id"])) == 10
    back = rd.as_collection(whole.filter(pc.field("id") == "S2A_33TWL_20230815_0_L2A"))
    assert back.resolve_bands(["red"]) == [("red", "B04")]
    assert len(back) == 1


def test_names_of_bands(styria: rd.Collection) -> None:
    assert styria.resolve_bands() == [(b, b) for b in ("B02", "B03", "B04", "B08", "SCL")]
    assert styria.resolve_bands("scl") == [("scl", "SCL")]
    assert styria.band_info("SCL").categorical
    with pytest.raises(UnknownBandError, match="B99") as caught:
        styria.resolve_bands(["B99"])
    assert "B04 (red)" in str(caught.value)
    with pytest.raises(ArgumentError):
        styria.resolve_bands([])


def test_people_see_what_it_is(styria: rd.Collection) -> None:
    for text in (repr(styria), styria._repr_html_()):
        for part in ("styria", "10", "2023-08-10", "B04", "EPSG:32633", "14.9998"):
            assert part in text
    assert "0" in repr(styria.subset(bbox=(0, 0, 1, 1)))
    bounds = styria.bounds
    assert bounds is not None
    assert bounds == pytest.approx((14.9998, 45.0568, 16.4425, 46.9532), abs=1e-3)


def test_bounds_over_the_antimeridian(styria: rd.Collection) -> None:
    table = styria.head(2).to_table()
    names = ("xmin", "ymin", "xmax", "ymax")
    made = [(179.0, 0.0, -179.0, 1.0), (177.0, -1.0, 178.0, 1.0)]
    boxes = pa.array([dict(zip(names, b, strict=True)) for b in made], schema.BBOX_TYPE)
    at = table.schema.get_field_index("bbox")
    found = rd.as_collection(table.set_column(at, "bbox", boxes))
    assert found.bounds == (177.0, -1.0, -179.0, 1.0)
    assert len(found.subset(bbox=(179.5, 0, -179.5, 1))) == 1


def test_tables_that_are_no_collection_are_refused(styria: rd.Collection, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="lacks the columns datetime"):
        rd.as_collection(pa.table({"id": ["a"], "assets": ["b"]}))
    table = styria.to_table(["id", "datetime", "assets"])
    with pytest.raises(CollectionError, match="no column of headers"):
        rd.as_collection(table)
    path = tmp_path / "x.parquet"
    path.write_text("no parquet")
    with pytest.raises(CollectionError, match="no Parquet"):
        rd.load(path)
    with pytest.raises(CollectionError, match="no collection 'nowhere'"):
        rd.load("nowhere", workspace_dir=tmp_path)


def test_a_plain_parquet_file_is_a_collection_too(styria: rd.Collection, tmp_path: Path) -> None:
    pq.write_table(styria.to_table(), tmp_path / "plain.parquet")
    found = rd.load(tmp_path / "plain.parquet")
    assert len(found) == 10
    assert found.resolve_bands(["red"]) == [("red", "B04")]
    hive = tmp_path / "hive"
    pads.write_dataset(
        styria.to_table(), hive, format="parquet", partitioning=["year", "month"],
        partitioning_flavor="hive",
    )  # fmt: skip
    assert len(rd.load(hive).subset(year=2023)) == 10


def test_geopandas_reads_what_other_readers_are_pointed_at(styria: rd.Collection) -> None:
    assert styria.commit is not None
    assert styria.place is not None
    frame = geopandas.read_parquet(styria.place.join(styria.commit.directory))
    assert len(frame) == 10
    assert frame.crs == "OGC:CRS84"
    assert len(geopandas.read_parquet(styria.place.join(styria.commit.directory), bbox=GRAZ)) == 5


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(170, -170), (10, 20)], (10, -170)),
        ([(170, -170), (-10, 10)], (-10, -170)),
        ([(170, -170), (-180, 180)], (-180, 180)),
        ([(175, 185)], (175, -175)),
        ([(-185, -175), (160, 170)], (160, -175)),
        ([(170, -170), (-175, -160), (150, 165)], (150, -160)),
        ([(10, 20), (-30, -20)], (-30, 20)),
        ([(-180, -170), (170, 180)], (-180, 180)),  # nothing crosses: as it is said
    ],
)
def test_bounds_leave_out_the_widest_gap_once_something_crosses(boxes, expected):
    rows = [{"xmin": w, "ymin": 0.0, "xmax": e, "ymax": 1.0} for w, e in boxes]
    column = pa.chunked_array([pa.array(rows, schema.BBOX_TYPE)])
    west, _, east, _ = bounds_of(column)
    assert (west, east) == expected
