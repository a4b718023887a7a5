"""Under which names collections are found, from where, and how what they lead to is reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from typer.testing import CliRunner

import rasteret_dask as rd
from rasteret_dask import catalog
from rasteret_dask.cli.app import app
from rasteret_dask.errors import ArgumentError
from rasteret_dask.pipeline import forecast
from rasteret_dask.pipeline.sources import Build
from rasteret_dask.runs import cube as cubes
from rasteret_dask.runs import record as runs
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)


@pytest.fixture
def one(tmp_path: Path) -> rd.Collection:
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    file = make_cog(tmp_path / "v.tif", image, transform=AT, blocksize=32, overviews=0)
    return collect(Scene("a", {"v": file}))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, a catalogue of one's own, and another folder to be in."""
    (tmp_path / "mine.yaml").write_text("datasets: {}\n")
    monkeypatch.setenv(catalog.ENVIRONMENT, str(tmp_path / "mine.yaml"))
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "workspace"


# --- names -----------------------------------------------------------------------------------------
def test_what_others_put_into_the_workspace_is_found_by_its_name(
    one: rd.Collection, mine: Path
) -> None:
    one.export(mine / "plain")
    assert [found["name"] for found in rd.list_collections()] == ["plain"]
    assert len(rd.load("plain")) == 1
    assert len(rd.load("plain", workspace_dir=mine)) == 1
    assert rd.register_local("mine/plain", "plain").parquet == str(mine / "plain")
    assert len(rd.load("mine/plain")) == 1
    # What lies in the current folder stands above it.
    rd.concat([one, replace_id(one, "b")]).export("plain")
    assert len(rd.load("plain")) == 2


def replace_id(collection: rd.Collection, name: str) -> rd.Collection:
    table = collection.to_table()
    at = table.schema.get_field_index("id")
    return rd.as_collection(table.set_column(at, table.schema.field(at), pa.array([name])))


def test_the_list_is_of_the_workspace_and_not_of_the_folder(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, dates in (("workspace", ("2023-07-03",)), ("here", ("2023-07-03", "2023-07-08"))):
        scenes = write_demo_catalog(tmp_path / f"s-{folder}", size=64, dates=dates, blocksize=128)
        rd.build(
            "earthsearch/sentinel-2-l2a",
            name="twice",
            static_catalog=scenes,
            workspace_dir=tmp_path / folder,
        )
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["collections", "list"])
    assert result.exit_code == 0, result.stderr
    assert "2 items" in result.stdout


def test_a_relative_workspace_stays_where_it_was(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = write_demo_catalog(tmp_path / "s", size=64, dates=("2023-07-03",), blocksize=128)
    where = {"static_catalog": scenes, "workspace_dir": "relative"}
    built = rd.build("earthsearch/sentinel-2-l2a", name="x", **where)
    loaded = rd.load("x", workspace_dir="relative")
    by_path = rd.load("relative/x")
    monkeypatch.chdir(tmp_path)
    for found in (built, loaded, by_path):
        assert found.place is not None
        assert found.place.url == str(tmp_path / "here" / "relative" / "x")
        assert len(found.subset(cloud_cover_lt=101).to_table(["id"])) == 2


# --- how it is reached -------------------------------------------------------------------------------
def test_an_id_of_ones_own_reads_as_the_collection_does(
    mine: Path, tmp_path: Path, one: rd.Collection
) -> None:
    scenes = write_demo_catalog(tmp_path / "s", size=64, dates=("2023-07-03",), blocksize=128)
    recipe = {"env": "LAB_KEY", "hosts": "data.lab.example"}
    guarded = rd.StorageOptions(options={"timeout": "9s"}, auth="bearer", auth_options=recipe)
    where = {"static_catalog": scenes, "storage": guarded}
    rd.build("earthsearch/sentinel-2-l2a", name="x", **where)
    said = rd.register_local("mine/x", "x")
    assert (said.requires_auth, dict(said.storage)) == (None, {})
    assert rd.load("mine/x").storage == rd.load("x").storage == guarded
    # Rows of others keep no recipe.
    one.export(tmp_path / "plain")
    rd.register_local("mine/plain", tmp_path / "plain")
    assert rd.load("mine/plain").storage == rd.StorageOptions()
    assert rd.load("mine/plain", storage=guarded).storage == guarded


def test_by_a_datasets_id_the_callers_place_is_the_callers(
    mine: Path, tmp_path: Path, one: rd.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.export(tmp_path / "plain")
    told = {"region": "us-west-2", "unsigned": "true"}
    descriptor = rd.DatasetDescriptor(
        id="far/away", parquet=str(tmp_path / "plain"), requires_auth="aws", storage=told
    )
    rd.register(descriptor)
    seen = []
    monkeypatch.setattr(
        "rasteret_dask.facade.tables.export_rows", lambda rows, kept, place, **_: seen.append(place)
    )
    found = rd.load("far/away")
    assert found.storage.auth == "aws"
    found.export("s3://me/out")
    asked = rd.StorageOptions(options={"region": "mine"})
    rd.load("far/away", storage=asked).export("s3://me/out")
    assert [place.options for place in seen] == [rd.StorageOptions(), asked]


def test_a_table_with_a_descriptor_is_reached_as_that_says(one: rd.Collection) -> None:
    descriptor = catalog.default()["pc/sentinel-2-l2a"]
    found = rd.as_collection(one.to_table(), descriptor=descriptor)
    assert found.storage.auth == descriptor.requires_auth == "planetary-computer"
    own = rd.StorageOptions()
    assert rd.as_collection(one.to_table(), descriptor=descriptor, storage=own).storage == own


@pytest.mark.parametrize(
    "name",
    [
        "access_key",
        "azure_storage_access_key",
        "AZURE_STORAGE_MASTER_KEY",
        "connection_string",
        "sse_customer_key_base64",
        "encryption_key",
        "aws_secret_access_key",
        "private_key",
    ],
)
def test_keys_by_any_name_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="looks like a secret"):
        rd.StorageOptions(options={name: "x"})


@pytest.mark.parametrize("name", ["aws_access_key_id", "sse_kms_key_id", "region", "account_name"])
def test_what_is_no_secret_is_taken(name: str) -> None:
    assert rd.StorageOptions(options={name: "x"}).options == {name: "x"}


# --- records -----------------------------------------------------------------------------------------
def test_a_cube_of_a_tables_areas_is_mended(one: rd.Collection, tmp_path: Path) -> None:
    area = shapely.box(500_000, 5_199_700, 500_300, 5_200_000)
    areas = pa.table({"plot": [shapely.to_wkb(area)], "n": [1]})
    how = {"geometry_column": "plot", "geometry_crs": 32633, "masked": True}
    quick = rd.StorageOptions(retry=rd.RetryPolicy(attempts=1))
    cube = one.get_xarray(
        areas, ["v"], **how, on_error="record", ledger=str(tmp_path / "ledger"), storage=quick
    )
    file = tmp_path / "v.tif"
    file.rename(tmp_path / "away")
    cube.to_zarr(tmp_path / "z.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "away").rename(file)
    record = cube.attrs["rasteret_record"]
    done = rd.repair(record, tmp_path / "z.zarr", collection=one)
    assert done.holes > 0
    assert done.failures == 0
    mended = xr.open_zarr(tmp_path / "z.zarr", consolidated=False).v
    expected = one.get_xarray(areas, ["v"], **how).v
    assert np.array_equal(mended, expected, equal_nan=True)
    # Older records name the column, too.
    noted = runs.load(record)
    assert noted is not None
    assert "geometry_column" not in noted.document["arguments"]
    noted.document["arguments"]["geometry_column"] = "plot"
    assert "geometry_column" not in cubes.arguments_of(noted, {})


# --- what would be built -----------------------------------------------------------------------------
def test_a_dry_build_is_of_the_build(mine: Path, tmp_path: Path) -> None:
    scenes = write_demo_catalog(tmp_path / "s", size=64, dates=("2023-07-03",), blocksize=128)
    said = {"static_catalog": str(scenes), "name": "x"}
    plan = forecast.of_build(
        Build(dataset="earthsearch/sentinel-2-l2a", collection="sentinel-2-l2a", **said)
    )
    assert plan["items"] == 2
    with pytest.raises(ArgumentError, match="no name"):
        forecast.of_build(Build(dataset="earthsearch/sentinel-2-l2a", **said | {"name": "my x"}))


def test_a_dry_export_refuses_what_the_export_does(one: rd.Collection, tmp_path: Path) -> None:
    one.export(tmp_path / "plain")
    for more in (["--dry-run"], []):
        arguments = ["export", str(tmp_path / "plain"), str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*arguments, "--partition-by", "yaer", *more])
        assert result.exit_code == 2
        assert "yaer" in result.stderr
