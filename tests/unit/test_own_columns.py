"""A table's own columns are columns of the collection built from it, and stay so whatever is done to it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import shapely

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, BuildMismatchError, CollectionError
from rasteret_dask.testing.cog import make_cog

DAY = dt.datetime(2023, 5, 1, tzinfo=dt.UTC)


@pytest.fixture
def tif(tmp_path: Path) -> str:
    array = np.arange(128 * 128, dtype="uint16").reshape(128, 128)
    return str(make_cog(tmp_path / "one.tif", array, blocksize=128, overviews=0))


def fields(tif: str, count: int = 6) -> pa.Table:
    """Rows of one file; every kind of column."""
    return pa.table(
        {
            "id": [f"row-{k:04d}" for k in range(count)],
            "datetime": pa.array([DAY + dt.timedelta(days=k) for k in range(count)]),
            "href": [tif] * count,
            "split": [("train", "train", "val", "test", None, "train")[k % 6] for k in range(count)],
            "crop": pa.array([("wheat", "maize")[k % 2] for k in range(count)]).dictionary_encode(),
            "yield": pa.array([k / 4 for k in range(count)], pa.float32()),
            "plot": pa.array([2**62 + k for k in range(count)]),
            "hash": pa.array([2**63 + k for k in range(count)], pa.uint64()),
            "irrigated": pa.array([k == 1 for k in range(count)]),
            "sown": pa.array([dt.date(2023, 3, 1 + k % 28) for k in range(count)]),
            "seen": pa.array([DAY + dt.timedelta(hours=k) for k in range(count)]),
            "local": pa.array([dt.datetime(2023, 5, 1, k % 24) for k in range(count)]),
            "price": pa.array([Decimal(k) / 4 for k in range(count)], pa.decimal128(9, 2)),
            "tags": [["a", str(k)] for k in range(count)],
            "thumbnail": [b"\x89%d" % k for k in range(count)],
            "type": ["field"] * count,
            "note_metadata": [f"note {k}" for k in range(count)],
            "a.b": list(range(count)),
            "nested": [{"x": k} for k in range(count)],
        }
    )  # fmt: skip


def build(table: Any, where: Path, **how: Any) -> rd.Collection:
    how = {"name": "fields", "href_column": "href", **how}
    return rd.build_from_table(table, workspace_dir=where, **how)


TYPES = {
    "split": "string", "crop": "string", "yield": "float", "plot": "int64", "hash": "uint64", "irrigated": "bool",
    "sown": "date32[day]", "seen": "timestamp[us, tz=UTC]", "local": "timestamp[us]", "price": "double",
    "tags": "list<item: string>", "thumbnail": "binary", "type": "string", "note_metadata": "string", "a.b": "int64",
}  # fmt: skip


def test_every_flat_column_keeps_its_type_and_its_values(tif: str, tmp_path: Path) -> None:
    table = fields(tif)
    build(table, tmp_path)
    found = rd.load("fields", workspace_dir=tmp_path)
    assert {name: str(found.schema.field(name).type) for name in TYPES} == TYPES
    held = found.to_table(list(TYPES))
    assert held.to_pylist() == table.select(list(TYPES)).to_pylist()
    # What is nested, and the column of links, are none.
    assert not {"nested", "href"} & set(found.schema.names)
    assert json.loads(found.to_table(["properties"])[0][0].as_py())["nested"] == {"x": 0}


QUERIES: list[tuple[Callable[[rd.Collection], rd.Collection], Any]] = [
    (lambda c: c.select_split("train"), pc.field("split") == "train"),
    (lambda c: c.subset(split=["val", "test"]), pc.field("split").isin(["val", "test"])),
    (lambda c: c.subset(split="wheat", split_column="crop"), pc.field("crop") == "wheat"),
    (lambda c: c.subset(crop="wheat"), pc.field("crop") == "wheat"),
    (lambda c: c.where(pc.field("crop") == "wheat"), pc.field("crop") == "wheat"),
    (lambda c: c.where(~pc.field("irrigated")), ~pc.field("irrigated")),
    (lambda c: c.subset(yield_gt=0.6, crop_in=["maize"]), (pc.field("yield") > 0.6) & (pc.field("crop") == "maize")),
    (lambda c: c.subset(plot=2**62 + 3), pc.field("plot") == 2**62 + 3),
    (lambda c: c.subset(hash_ge=2**63 + 4), pc.field("hash") >= pa.scalar(2**63 + 4, pa.uint64())),
    (lambda c: c.subset(sown_lt=dt.date(2023, 3, 3)), pc.field("sown") < dt.date(2023, 3, 3)),
    (lambda c: c.subset(split=None, crop="maize", bbox=None), pc.field("crop") == "maize"),
    (lambda c: c.where(pc.field("split").is_null()), pc.field("split").is_null()),
    (lambda c: c.subset(a_b=3), pc.field("a.b") == 3),
]  # fmt: skip


def test_they_can_be_asked_for_as_arrow_asks_the_table(tif: str, tmp_path: Path) -> None:
    table = fields(tif)
    plain = table.set_column(4, "crop", table["crop"].cast(pa.string()))
    found = build(table, tmp_path)
    for number, (query, expression) in enumerate(QUERIES):
        expected = plain.filter(expression)["id"].to_pylist()
        assert query(found).to_table(["id"])["id"].to_pylist() == expected, number
        assert expected, number
    with pytest.raises(ArgumentError, match="no column 'colour'"):
        found.subset(colour="red")


def test_a_query_reads_only_the_row_groups_that_can_match(tif: str, tmp_path: Path) -> None:
    table = fields(tif, 700)
    years = pa.array([("oats", "rye")[k >= 600] for k in range(700)])
    found = build(table.set_column(4, "crop", years), tmp_path).subset(crop="rye")
    dataset, where = found.view.dataset, found.view.filter  # type: ignore[union-attr]
    whole = sum(fragment.num_row_groups for fragment in dataset.get_fragments())
    groups = [f.split_by_row_group(where, dataset.schema) for f in dataset.get_fragments()]
    assert whole >= 5
    assert sum(map(len, groups)) <= 2
    assert len(found) == 100


def item(tif: str, name: str, **properties: Any) -> dict[str, Any]:
    asset = {"href": tif, "type": "image/tiff; application=geotiff"}
    said = {"datetime": "2023-08-01T00:00:00Z", **properties}
    return {"type": "Feature", "id": name, "geometry": None, "properties": said, "assets": {"data": asset}}  # fmt: skip


def told(found: rd.Collection, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in found.to_table(["id", *names]).to_pylist()]


def test_they_stay_when_the_collection_grows_and_when_its_files_change(
    tif: str, tmp_path: Path
) -> None:
    found = build(fields(tif, 2), tmp_path)
    grown = found.append([item(tif, "new", crop="rye", plot=7, colour="red", sown="2023-03-09")])
    rows = [("row-0000", "train", "wheat", 2**62), ("row-0001", "train", "maize", 2**62 + 1), ("new", None, "rye", 7)]  # fmt: skip
    assert told(grown, "split", "crop", "plot") == rows
    assert grown.subset(sown=dt.date(2023, 3, 9)).to_table(["id"])["id"].to_pylist() == ["new"]
    with pytest.raises(ArgumentError, match="'crop': '5' does not go into a column of string"):
        grown.append([item(tif, "newer", crop=5)])
    make_cog(tif, np.zeros((128, 128), "uint8"), blocksize=128, overviews=0)
    changed = grown.refresh()
    assert changed.commit is not None
    assert changed.commit.number == 3
    assert changed.to_table()["data_metadata"][0].as_py()["dtype"] == "uint8"
    assert told(changed, "split", "crop", "plot") == rows
    # What any other reader finds.
    folder = json.loads((tmp_path / "fields/_rasteret/current.json").read_text())["directory"]
    foreign = pads.dataset(tmp_path / "fields" / folder).to_table(columns=["id", "crop"])
    assert sorted(foreign["crop"].to_pylist()) == ["maize", "rye", "wheat"]


def test_they_stay_through_export_and_concat(tif: str, tmp_path: Path) -> None:
    found = build(fields(tif), tmp_path)
    found.export(tmp_path / "out", partition_by="crop")
    back = rd.load(tmp_path / "out")
    assert told(back.subset(crop="maize"), "plot") == told(found.subset(crop="maize"), "plot")
    assert back.schema.field("hash").type == pa.uint64()
    other = rd.build_from_items([item(tif, "x", crop="rye", soil="loam")], name="x", workspace_dir=tmp_path)  # fmt: skip
    both = rd.concat([found.subset(split="val"), other])
    assert told(both, "crop", "split", "soil") == [("row-0002", "wheat", "val", None), ("x", "rye", None, "loam")]  # fmt: skip
    assert told(both.subset(crop="rye")) == [("x",)]
    contrary = rd.build_from_items([item(tif, "y", crop=["rye"])], name="y", workspace_dir=tmp_path)
    assert "crop" not in contrary.schema.names  # a list of an item stays where it is
    numbers = rd.build_from_items([item(tif, "z", crop=5)], name="z", workspace_dir=tmp_path)
    with pytest.raises(CollectionError, match="'crop' is string in one collection and int64"):
        rd.concat([found, numbers])


def test_what_was_joined_elsewhere_is_a_collection_with_all_its_columns(
    tif: str, tmp_path: Path
) -> None:
    table = build(fields(tif), tmp_path).to_table()
    soils = pa.table({"id": table["id"], "soil": ["loam", "clay"] * 3})
    session = duckdb.connect()
    session.register("items", table)
    session.register("soils", soils)
    joined = rd.as_collection(session.sql("SELECT items.*, soil FROM items JOIN soils USING (id)"))
    assert len(joined.subset(soil="clay", crop="maize")) == 3
    joined.export(tmp_path / "joined")
    assert len(rd.load(tmp_path / "joined").subset(soil="clay", split="train")) == 2


def test_a_build_that_goes_on_has_them_and_another_one_is_told(tif: str, tmp_path: Path) -> None:
    table = fields(tif)
    first = build(table, tmp_path)
    home = tmp_path / "fields"
    for folder in ("_rasteret/commits", "data"):
        shutil.rmtree(home / folder)
    (home / "_rasteret/current.json").unlink()
    again = build(table, tmp_path)
    assert again.report is not None
    assert again.report.reused == again.report.slices
    assert again.to_table().equals(first.to_table())
    wider = table.set_column(table.schema.get_field_index("plot"), "plot", table["plot"].cast(pa.uint64()))  # fmt: skip
    with pytest.raises(BuildMismatchError, match="uint64"):
        build(wider, tmp_path)


def test_properties_of_given_items_are_columns(tif: str, tmp_path: Path) -> None:
    one = item(tif, "a", split="train", score=1, **{"my:level": 3, "year": 1999, "tags": ["x"]})
    two = item(tif, "b", split="val", score=0.5, odd="x")
    three = item(tif, "c", odd=3)
    found = rd.build_from_items({"type": "FeatureCollection", "features": [one, two, three]}, name="i", workspace_dir=tmp_path)  # fmt: skip
    assert told(found, "split", "score") == [("a", "train", 1.0), ("b", "val", 0.5), ("c", None, None)]  # fmt: skip
    assert len(found.select_split("train")) == 1
    # Properties of extensions, of several types, or called as ours are, stay in the JSON.
    assert not {"my:level", "odd", "tags"} & set(found.schema.names)
    assert found.to_table(["year"])["year"].to_pylist() == [2023] * 3
    assert json.loads(found.to_table(["properties"])[0][0].as_py())["my:level"] == 3


def test_a_frame_of_items_gives_its_columns(tif: str, tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {
            "id": ["a", "b"],
            "datetime": [DAY, DAY],
            "assets": [{"red": {"href": tif, "type": "image/tiff"}}] * 2,
            "split": ["train", "val"],
            "rank": [1, 2],
        },
        geometry=[shapely.box(0, 0, 1, 1)] * 2,
        crs=4326,
    )
    found = rd.build_from_table(frame, name="frame", workspace_dir=tmp_path)
    assert told(found.subset(split="val"), "rank") == [("b", 2)]
    assert found.bands == ["red"]


def test_directories_that_are_columns(tif: str, tmp_path: Path) -> None:
    pq.write_to_dataset(fields(tif).drop_columns(["crop"]), tmp_path / "hive", ["split"])
    found = build(tmp_path / "hive", tmp_path)
    assert len(found.select_split("train")) == 3


CLASHES: list[tuple[Callable[[pa.Table], pa.Table], dict[str, Any], str]] = [
    (lambda t: t.append_column("year", pa.array([1999] * 6)), {}, r"(?s)'year' says 1999.*column_map=\{'year'"),
    (lambda t: t.append_column("month", pa.array(["May"] * 6)), {}, "'month' says 'May'"),
    (lambda t: t.append_column("data_metadata", pa.array(["x"] * 6)), {}, "'data_metadata' is called as the headers"),
    (lambda t: t.append_column("properties", pa.array(["a note"] * 6)), {}, "'properties' holds 'a note'"),
    (lambda t: t.append_column("plot", t["plot"]), {}, "more than one column 'plot'"),
    (lambda t: t, {"column_map": {"split": "crop"}}, "calls 'split' 'crop', and the table has"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "how", "what"), CLASHES)
def test_names_that_clash_are_refused(
    tif: str, tmp_path: Path, change: Any, how: Any, what: str
) -> None:
    with pytest.raises(ArgumentError, match=what):
        build(change(fields(tif)), tmp_path, **how)


def test_a_year_of_ones_own_goes_by_another_name(tif: str, tmp_path: Path) -> None:
    table = fields(tif).append_column("year", pa.array([1999] * 6))
    found = build(table, tmp_path, column_map={"year": "planted"})
    assert set(found.to_table(["planted"])["planted"].to_pylist()) == {1999}
    assert set(found.to_table(["year"])["year"].to_pylist()) == {2023}
    right = fields(tif).append_column("year", pa.array([2023] * 6))
    assert len(build(right, tmp_path, name="right").subset(year=2023)) == 6


def test_no_signature_is_kept_in_them(tif: str, tmp_path: Path) -> None:
    signed = pa.array(["https://host/look.png?sig=SECRET&se=1"] * 6)
    build(fields(tif).append_column("look", signed), tmp_path)
    files = [f for f in (tmp_path / "fields").rglob("*") if f.is_file()]
    assert not any(b"SECRET" in f.read_bytes() for f in files)
    looks = rd.load("fields", workspace_dir=tmp_path).to_table(["look"])["look"]
    assert looks[0].as_py() == "https://host/look.png"


TIMES = [
    ("2023-05-01T10:00:00", False),
    ("2023-05-01 10:00", False),
    ("20230501T100000", False),
    ("20230501100000", False),
    ("Mon, 01 May 2023 10:00:00", False),
    ("2023-05-01T10:00:00Z", True),
    ("2023-05-01T12:00:00+02:00", True),
    ("2023-05-01T12:00:00+0200", True),
    ("2023-05-01 10:00:00 UTC", True),
    ("Mon, 01 May 2023 10:00:00 GMT", True),
    ("2023-05-01", True),
    ("2023/05/01", True),
]


@pytest.mark.parametrize(("text", "fine"), TIMES)
def test_times_as_text_need_a_zone_too(tif: str, tmp_path: Path, text: str, fine: bool) -> None:
    table = pa.table({"id": ["a"], "datetime": [text], "href": [tif]})
    if fine:
        assert build(table, tmp_path).dates[0].date() == dt.date(2023, 5, 1)
        return
    with pytest.raises(ArgumentError, match=r"no time zone.*item='a'"):
        build(table, tmp_path)
    assert build(table, tmp_path, timezone="UTC").dates[0] == dt.datetime(2023, 5, 1, 10)


def test_collections_of_the_version_before_open_and_grow(tif: str, tmp_path: Path) -> None:
    """Version 1 had no columns but ours, and is otherwise the same."""
    build(fields(tif).select(["id", "datetime", "href"]), tmp_path)
    commit = tmp_path / "fields/_rasteret/commits/00000001.json"
    document = json.loads(commit.read_text())
    assert document["document"].pop("schema_version") == 2
    assert "columns" not in document["document"]
    document["document"]["schema_version"] = 1
    commit.write_text(json.dumps(document, sort_keys=True))
    old = rd.load("fields", workspace_dir=tmp_path)
    grown = old.append([item(tif, "new", crop="rye")])
    assert len(rd.load("fields", workspace_dir=tmp_path)) == len(grown) == 7
    assert "crop" not in grown.schema.names


def footprint(shape: shapely.Geometry) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.append_column("geometry", pa.array([shapely.to_wkb(shape)] * 6))


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (footprint(shapely.box(5e5, 5.2e6, 5.1e5, 5.3e6)), {}, "footprints: .* which are no degrees"),
    (lambda t: t.append_column("bbox", pa.array([[5e5, 5.2e6, 5.1e5, 5.3e6]] * 6)), {}, "no degrees"),
    (lambda t: t.append_column("bbox", pa.array(["here"] * 6)), {}, "'here' is no bbox"),
    (lambda t: t.to_pandas().assign(x=[1, "a", None, 2, 3, 4]), {}, "Arrow cannot take the table over"),
    (lambda t: t, {"filter_expr": "id = 'a'"}, "an Arrow expression, not a str"),
    (lambda t: t, {"filter_expr": pc.field("zz") == 1}, "cannot be asked of this table"),
    (lambda t: t, {"columns": "id"}, "a list of names is needed"),
    (lambda t: t, {"band_index_map": {"B04": "1"}}, "counted from 0"),
    (lambda t: t.set_column(1, "datetime", pa.array(["yesterday"] * 6)), {}, "is no date or time"),
    (lambda t: t.set_column(1, "datetime", pa.array([1683000000] * 6)), {}, "is no date or time"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "how", "what"), WRONG)
def test_what_means_nothing_is_refused(
    tif: str, tmp_path: Path, change: Any, how: Any, what: str
) -> None:
    with pytest.raises(ArgumentError, match=what):
        build(change(fields(tif)), tmp_path, **how)
    assert not (tmp_path / "fields").exists()


def test_lists_of_values(tif: str, tmp_path: Path) -> None:
    found = build(fields(tif), tmp_path)
    assert len(found.subset(split=["val", None])) == 2
    for many in (np.array([2, 3]), pa.array([2, 3]), {2, 3}, (2, 3)):
        assert len(found.subset(a_b_in=many)) == 2
    for wrong in ("train", 3, ["a", 3]):
        with pytest.raises(ArgumentError):
            found.subset(split_in=wrong)
    assert len(found.head(np.int64(2))) == 2
    with pytest.raises(ArgumentError, match="whole"):
        found.head("2")  # type: ignore[arg-type]


def test_arrays_of_the_capsule_protocol_are_tables_too(tif: str, tmp_path: Path) -> None:
    class Rows:
        def __arrow_c_array__(self, schema: Any = None) -> Any:
            return fields(tif).to_batches()[0].__arrow_c_array__(schema)

    assert len(build(Rows(), tmp_path).subset(crop="wheat")) == 3


def test_folders_of_an_export_keep_the_types_of_their_columns(tif: str, tmp_path: Path) -> None:
    codes = pa.array(["007", "008", "007", "009", "010", None])
    table = fields(tif).append_column("code", codes)
    build(table, tmp_path).export(tmp_path / "out", partition_by=["code", "platform"])
    found = rd.load(tmp_path / "out")
    assert found.schema.field("code").type == pa.string()
    assert told(found.subset(code="007"), "code") == [("row-0000", "007"), ("row-0002", "007")]
    assert len(found.where(pc.field("code").is_null())) == 1
    # A column of nothing but null has a type nevertheless.
    assert found.to_table(["platform"])["platform"].to_pylist() == [None] * 6


def test_what_went_through_pandas_can_be_read(tif: str, tmp_path: Path) -> None:
    table = fields(tif).append_column("geometry", pa.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))] * 6))  # fmt: skip
    made = build(table, tmp_path).to_table()
    back = rd.as_collection(made.to_pandas())
    kind = made.schema.field("data_metadata").type
    levels = back.schema.field("data_metadata").type.field("levels").type
    assert levels.value_type.field("layout").type == kind.field("levels").type.value_type.field("layout").type  # fmt: skip
    assert len(back.subset(crop="wheat", split="train")) == 1


def test_places_that_nobody_knows_are_refused_in_words() -> None:
    with pytest.raises(ArgumentError, match="no filesystem for nowhere://"):
        rd.load("nowhere://x/y")
