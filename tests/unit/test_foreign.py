"""Collections that others wrote, or that moved: assets under their STAC keys, links that lead elsewhere by now, unknown datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from affine import Affine
from handmade import Scene, collect, make_table

import rasteret_dask as rd
from rasteret_dask import catalog as catalogs
from rasteret_dask.errors import UnknownBandError
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
