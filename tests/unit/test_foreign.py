"""Collections that others wrote, or that moved: assets under their STAC keys, links that lead elsewhere by now, unknown datasets."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from handmade import Scene, collect, make_table

import rasteret_dask as rd
from rasteret_dask import catalog as catalogs
from rasteret_dask.errors import ArgumentError, DuplicateItemError, UnknownBandError
from rasteret_dask.model import BandInfo, DatasetDescriptor
from rasteret_dask.testing.cog import make_cog

CORNER = Affine(0.001, 0, 15, 0, -0.001, 47)
BOX = (15.01, 46.96, 15.03, 46.98)


def cog(path: Path, value: int) -> Path:
    array = np.arange(value, value + 128 * 128, dtype="uint16").reshape(128, 128)
    return make_cog(path, array, transform=CORNER, crs="EPSG:4326", blocksize=128, overviews=1)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    files = {
        key: cog(tmp_path / f"{key}.tif", 1 + 100 * k)
        for k, key in enumerate(("red", "nir", "scl"))
    }
    said = {
        "proj:epsg": 4326,
        "collection": "sentinel-2-l2a",
        "earthsearch:boa_offset_applied": True,
    }
    return Scene("S2A_1", files, columns=said)


def renamed(table: pa.Table, columns: dict[str, str], assets: dict[str, str]) -> pa.Table:
    """The table with other names of its bands' columns and of the fields of its assets."""
    held = table["assets"].combine_chunks()
    inner = [assets.get(f.name, f.name) for f in held.type]
    struct = pa.StructArray.from_arrays(held.flatten(), names=inner)
    table = table.set_column(table.schema.get_field_index("assets"), "assets", struct)
    names = [
        f"{columns[n.removesuffix('_metadata')]}_metadata" if n.endswith("_metadata") else n
        for n in table.column_names
    ]
    said = {b"data_source": b"earthsearch/sentinel-2-l2a"}
    return table.rename_columns(names).replace_schema_metadata(said)


CANONICAL = {"red": "B04", "nir": "B08", "scl": "SCL"}
PLAIN = {name: name for name in CANONICAL}


@pytest.mark.parametrize(
    ("columns", "assets"), [(CANONICAL, CANONICAL), (CANONICAL, PLAIN), (PLAIN, PLAIN)]
)
def test_bands_are_found_under_the_keys_of_their_assets(
    scene: Scene, tmp_path: Path, columns: dict[str, str], assets: dict[str, str]
) -> None:
    expected = collect(scene)
    (tmp_path / "c").mkdir()
    pq.write_table(renamed(make_table([scene]), columns, assets), tmp_path / "c" / "a.parquet")
    found = rd.load(tmp_path / "c")
    assert found.descriptor is not None
    assert found.descriptor.id == "earthsearch/sentinel-2-l2a"
    for asked in ("B04", "red"):
        assert found.resolve_bands(asked) == [(asked, columns["red"])]
        assert np.array_equal(found.get_numpy(bands=asked), expected.get_numpy(bands="red"))
    with pytest.raises(UnknownBandError):
        found.resolve_bands("green")
    how: dict[str, Any] = {"bbox": BOX, "scale": True, "masked": True}
    cube = found.get_xarray(bands=["B04", "B08"], mask={"band": "SCL", "drop": [500]}, **how)
    other = expected.get_xarray(bands=["red", "nir"], mask={"band": "scl", "drop": [500]}, **how)
    assert np.array_equal(cube.B04, other.red, equal_nan=True)
    assert np.array_equal(cube.B08, other.nir, equal_nan=True)
    coarse = found.get_xarray(bands=["SCL"], bbox=BOX, resolution=0.002, overviews=1)
    assert coarse.SCL.size
    at = np.array([[15.02, 46.97]])
    assert found.sample_points(at, ["B08"])["value"] == expected.sample_points(at, ["nir"])["value"]


def test_splits_are_selected(scene: Scene) -> None:
    """As a caller labels them: by a column named split, or by another of the caller's own."""
    table = make_table([replace(scene, id=name) for name in "abcd"])
    table = table.append_column("split", [["train", "val", "train", None]])
    labelled = rd.as_collection(table.append_column("fold", [[0, 1, 1, 2]]))

    def ids(found: rd.Collection) -> list[str]:
        return found.to_table(["id"])["id"].to_pylist()

    assert ids(labelled.select_split("train")) == ["a", "c"]
    assert ids(labelled.select_split(["train", "val"])) == ["a", "b", "c"]
    assert ids(labelled.subset(split=1, split_column="fold")) == ["b", "c"]
    assert ids(labelled.select_split("test")) == []


def test_the_descriptor_rewrites_links_and_the_caller_overrules_it(
    scene: Scene, tmp_path: Path
) -> None:
    home = str(tmp_path)
    descriptor = DatasetDescriptor(
        "mine/moved",
        bands=(BandInfo("B04", "red", common_name="red"),),
        url_rewrite_patterns={"https://old.example/": "/nowhere/", "https://old.example/data/": f"{home}/"},
    )  # fmt: skip
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2023-07-01T10:00:00Z"},
        "assets": {"red": {"href": "https://old.example/data/red.tif", "type": "image/tiff"}},
    }
    built = rd.build_from_items([item], name="a", descriptor=descriptor, workspace_dir=tmp_path)
    (row,) = built.to_table(["assets"]).to_pylist()
    assert row["assets"]["B04"]["href"] == f"{home}/red.tif"
    assert built.get_numpy(bands="B04")[0, 0, 0] == 1
    # What is appended is rewritten alike.
    more = {**item, "id": "b", "properties": {"datetime": "2023-07-02T10:00:00Z"}}
    assert len(built.append([more]).get_numpy(bands="B04")) == 2
    table = pa.table(
        {
            "id": ["a"],
            "datetime": ["2023-07-01T10:00:00Z"],
            "href": ["https://old.example/data/red.tif"],
        }
    )
    file = tmp_path / "catalog.yaml"
    catalogs.Catalog({}).register(descriptor).save(file)
    told = catalogs.read(file)["mine/moved"]
    assert told == descriptor
    again = rd.build_from_table(
        table, name="b", href_column="href", band_map={"B04": "data"}, descriptor=told, workspace_dir=tmp_path,
        url_rewrite_patterns={"https://old.example/data/red": f"{home}/nir"},
    )  # fmt: skip
    assert again.get_numpy(bands="B04")[0, 0, 0] == 101


def test_an_unknown_dataset_is_exported_and_loaded(scene: Scene, tmp_path: Path) -> None:
    descriptor = DatasetDescriptor("nobody/knows", bands=(BandInfo("B04", "red"),))
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2023-07-01T10:00:00Z"},
        "assets": {"red": {"href": str(scene.files["red"]), "type": "image/tiff"}},
    }
    built = rd.build_from_items([item], name="a", descriptor=descriptor, workspace_dir=tmp_path)
    built.export(tmp_path / "out")
    found = rd.load(tmp_path / "out")
    assert (found.descriptor, found.bands) == (None, ["B04"])
    assert found.resolve_bands("red") == [("red", "B04")]
    assert np.array_equal(found.get_numpy(), built.get_numpy())
    known = catalogs.built_in().register(descriptor)
    assert rd.load(tmp_path / "out", catalog=known).descriptor == descriptor
    loaded = rd.load("a", workspace_dir=tmp_path)
    assert replace(loaded, descriptor=None).bands == ["B04"]


# --- tables that passed through other hands ------------------------------------------------------
@pytest.fixture
def three(scene: Scene) -> pa.Table:
    said = {"geometry": shapely.to_wkb(shapely.box(15, 46.872, 15.128, 47))}
    return make_table(
        [
            replace(scene, id=f"S2A_{day}", time=f"2023-07-0{day}T22:30:00", columns={**scene.columns, **said})
            for day in (1, 2, 3)
        ]
    )  # fmt: skip


KINDS = [pa.timestamp("ns"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Vienna")]


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_times_of_any_unit_and_zone_are_moments(
    three: pa.Table, tmp_path: Path, kind: pa.DataType, where: str
) -> None:
    at = three.schema.get_field_index("datetime")
    zoned = three["datetime"].cast(pa.timestamp("us", kind.tz and "UTC")).cast(kind)
    table = three.set_column(at, "datetime", zoned)
    if where == "file":
        (tmp_path / "c").mkdir()
        pq.write_table(table, tmp_path / "c" / "rows.parquet")
        found = rd.load(tmp_path / "c")
    else:
        found = rd.as_collection(table)
    one = found.subset(date_range="2023-07-02")
    assert one.to_table(["id"])["id"].to_pylist() == ["S2A_2"]
    cube = found.get_xarray(bbox=BOX, bands=["red"])
    assert cube.time.values.astype("datetime64[m]").tolist()[0] == datetime(2023, 7, 1, 22, 30)
    assert len(found.get_numpy(bbox=BOX, bands=["red"], date_range=("2023-07-02", None))) == 2


def test_boxes_come_from_footprints_where_there_are_none(three: pa.Table) -> None:
    found = rd.as_collection(three.drop_columns(["bbox"]))
    assert np.array_equal(found.get_numpy(bbox=BOX), rd.as_collection(three).get_numpy(bbox=BOX))
    assert found.bounds == pytest.approx((15, 46.872, 15.128, 47))
    bare = rd.as_collection(three.drop_columns(["bbox", "geometry"]))
    assert bare.get_numpy(bands="red").shape == (3, 128, 128)
    with pytest.raises(ArgumentError, match="no column 'bbox'"):
        bare.subset(bbox=BOX)


def test_rows_of_one_id_are_refused(three: pa.Table) -> None:
    with pytest.raises(DuplicateItemError, match="DISTINCT") as caught:
        rd.as_collection(pa.concat_tables([three, three.slice(1, 1)]))
    assert caught.value.item == "S2A_2"


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda c: c.where(pc.field("nonsense") == 3), "cannot be asked"),
        (lambda c: c.where("id = 3"), "Arrow expression"),
        (lambda c: c.where(pc.field("id") < 3), "cannot be asked"),
        (lambda c: c.subset(nonsense=3), "no column 'nonsense'"),
        (lambda c: c.subset(platform_lt=3), "cannot be asked"),
        (lambda c: c.subset(year="abc"), "cannot be asked"),
        (lambda c: c.select_split("train"), "no column 'split'"),
        (lambda c: c.to_table(["nonsense"]), "no column 'nonsense'"),
        (lambda c: c.to_batches(["nonsense"]), "no column 'nonsense'"),
        (lambda c: c.head(-1), "not negative"),
        (lambda c: c.subset(date_range=("2023-09-01", "2023-08-01")), "before it starts"),
        (lambda c: c.subset(date_range="yesterday"), "no date"),
        (lambda c: c.subset(geometries=shapely.Polygon()), "is empty"),
        (lambda c: c.get_gdf(shapely.Polygon([(15, 46), (np.nan, 47), (16, 46)])), "not finite"),
        (lambda c: c.get_gdf([]), "no geometry"),
        (lambda c: c.subset(geometries=shapely.box(5e5, 5e6, 6e5, 6e6)), "no degrees"),
        (lambda c: c.subset(geometries={"type": "Feature", "geometry": None}), "is missing"),
        (lambda c: c.get_gdf(pa.table({"a": [1]}), geometry_column="b"), "no column 'b'"),
        (lambda c: c.get_gdf(shapely.box(15, 46, 16, 47), geometry_crs="banana"), "banana"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(
    three: pa.Table, ask: Any, what: str
) -> None:
    with pytest.raises(rd.RasteretError) as caught:
        ask(rd.as_collection(three))
    assert what in str(caught.value)
