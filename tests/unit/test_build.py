"""Whole builds: real scenes, a real range server, real schedulers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pyarrow.dataset as pads
import pytest
from distributed import Client

import rasteret_dask as rd
from rasteret_dask.errors import (
    ArgumentError,
    BuildMismatchError,
    CollectionError,
    DuplicateItemError,
    EmptySelectionError,
    SchemaVersionError,
    SourceError,
    UnknownBandError,
    UnknownDatasetError,
)
from rasteret_dask.index.commit import Commit, read_commit, write_commit
from rasteret_dask.index.place import Place
from rasteret_dask.index.rows import band_sources
from rasteret_dask.ingest import cut
from rasteret_dask.ingest.build import Gathered, Order, identity_of, run_build
from rasteret_dask.model import BandInfo, DatasetDescriptor
from rasteret_dask.testing.server import Fault, RangeServer

DATASET = "earthsearch/sentinel-2-l2a"


def build(austria: Path, where: Path, **options: Any) -> rd.Collection:
    return rd.build(
        options.pop("dataset", DATASET),
        name=options.pop("name", "styria"),
        static_catalog=str(austria / "catalog.json"),
        workspace_dir=where,
        **options,
    )


def hashes(folder: Path) -> dict[str, str]:
    """Every lasting file of a collection."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(austria: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    return build(austria, tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items each, where a real build puts hundreds."""
    monkeypatch.setattr(cut, "slice_rows", lambda count, bands: 2)


@pytest.fixture
def scene(austria: Path) -> dict[str, Any]:
    path = austria / "S2A_33TWL_20230815_0_L2A" / "S2A_33TWL_20230815_0_L2A.json"
    item: dict[str, Any] = json.loads(path.read_text())
    for asset in item["assets"].values():
        asset["href"] = str(path.parent / asset["href"])
    return item


# --- what a build gives --------------------------------------------------------------------------
def test_real_scenes_cost_one_request_an_asset(built: rd.Collection) -> None:
    report = built.report
    assert report is not None
    assert (report.items, report.assets, report.headers) == (10, 50, 50)
    assert report.requests == 50
    assert report.failure_count == 0
    assert len(built) == 10
    assert built.bands == ["B02", "B03", "B04", "B08", "SCL"]
    assert built.crs == ["EPSG:32633"]
    assert [str(t)[:10] for t in built.dates] == ["2023-08-10", "2023-08-20"]
    sources = band_sources(built.to_table(), "B04")
    assert len(sources) == 10
    assert all(Path(url).is_file() for url in sources.urls)
    assert set(sources.widths.tolist()) == {915}


def test_what_stac_says_and_files_deny_is_reported(built: rd.Collection) -> None:
    report = built.report
    assert report is not None
    # Shape and transform speak of the 10 m original; the files are at 120 m.
    assert {d.field for d in report.disagreements} == {"proj:shape", "proj:transform"}
    assert report.disagreement_count == 100
    assert "proj:shape is [10980, 10980], in the file [915, 915]" in str(report)


def test_rows_come_in_the_order_of_time_and_id(built: rd.Collection) -> None:
    table = built.to_table(["id", "datetime"])
    keys = list(zip(table["datetime"].to_pylist(), table["id"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(set(keys)) == 10


def test_the_server_sees_one_request_an_asset_and_none_on_loading(
    austria: Path, tmp_path: Path
) -> None:
    with RangeServer(austria) as server:
        built = rd.build_from_stac(
            static_catalog=server.url + "/catalog.json",
            name="http",
            workspace_dir=tmp_path,
            bands=["red", "scl"],
            descriptor=None,
        )
        tiffs = {p: n for p, n in server.counters().paths.items() if p.endswith(".tif")}
        assert tiffs == dict.fromkeys(tiffs, 1)
        assert len(tiffs) == 20
        assert built.report is not None
        assert built.report.requests == 20
        server.reset()
        again = rd.load("http", workspace_dir=tmp_path)
        assert band_sources(again.to_table(), "red").urls[0].startswith(server.url)
        assert server.counters().requests == 0


def test_the_same_again_asks_nobody(austria: Path, tmp_path: Path) -> None:
    with RangeServer(austria) as server:
        common = {"name": "twice", "workspace_dir": tmp_path, "band_map": {"B04": "red"}}
        catalog = server.url + "/catalog.json"
        first = rd.build_from_stac(static_catalog=catalog, **common)
        before = hashes(tmp_path)
        server.reset()
        second = rd.build_from_stac(static_catalog=catalog, **common)
        assert server.counters().requests == 0
    assert len(first) == len(second) == 10
    assert hashes(tmp_path) == before


# --- the same input, the same bytes --------------------------------------------------------------
@pytest.fixture(params=["threads", "synchronous", "client"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "client":
        with Client(processes=False, n_workers=2, dashboard_address=None):
            yield request.param
    else:
        with dask.config.set(scheduler=request.param):
            yield request.param


@pytest.mark.usefixtures("small_slices")
def test_every_scheduler_gives_the_same_bytes(
    scheduler: str, austria: Path, tmp_path: Path
) -> None:
    build(austria, tmp_path / "one")
    with dask.config.set(scheduler="synchronous"):
        build(austria, tmp_path / "other")
    one, other = (hashes(tmp_path / name / "styria") for name in ("one", "other"))
    assert one == other
    assert sum(name.endswith(".part") for name in one) == 5


@pytest.mark.usefixtures("small_slices")
def test_a_broken_build_goes_on_where_it_ended(austria: Path, tmp_path: Path) -> None:
    build(austria, tmp_path)
    folder = tmp_path / "styria"
    whole = hashes(folder)
    shutil.rmtree(folder / "data")
    shutil.rmtree(folder / "_rasteret" / "commits")
    (folder / "_rasteret" / "current.json").unlink()
    lost = sorted((folder / "_rasteret" / "parts").iterdir())[1]
    shutil.rmtree(lost)
    again = build(austria, tmp_path)
    assert hashes(folder) == whole
    assert again.report is not None
    assert (again.report.slices, again.report.reused) == (5, 4)
    assert again.report.requests == 10  # two items of five bands


def test_a_torn_part_is_not_taken_for_a_finished_slice(austria: Path, tmp_path: Path) -> None:
    build(austria, tmp_path)
    folder = tmp_path / "styria"
    whole = hashes(folder)
    shutil.rmtree(folder / "_rasteret" / "commits")
    part = next((folder / "_rasteret" / "parts").rglob("*.part"))
    data = part.read_bytes()
    part.unlink()  # data/ shares its inode
    part.write_bytes(data[: len(data) // 2])
    with pytest.raises(CollectionError, match="differs from what is to be written"):
        build(austria, tmp_path)
    part.unlink()
    build(austria, tmp_path)
    assert hashes(folder) == whole


def test_a_commit_whose_parts_were_not_shown_yet_is_finished(austria: Path, tmp_path: Path) -> None:
    build(austria, tmp_path)
    whole = hashes(tmp_path)
    shutil.rmtree(tmp_path / "styria" / "data")
    (tmp_path / "styria" / "_rasteret" / "current.json").unlink()
    assert len(build(austria, tmp_path)) == 10
    assert hashes(tmp_path) == whole


# --- names, arguments, snapshots -----------------------------------------------------------------
def test_other_arguments_under_the_same_name_are_refused_with_the_difference(
    austria: Path, tmp_path: Path
) -> None:
    build(austria, tmp_path, date_range=("2023-08-10", "2023-08-15"))
    with pytest.raises(BuildMismatchError, match=r"date_range.*2023-08-15.*2023-08-20"):
        build(austria, tmp_path, date_range=("2023-08-10", "2023-08-20"))
    old = rd.load("styria", workspace_dir=tmp_path)
    new = build(austria, tmp_path, date_range=("2023-08-10", "2023-08-20"), force=True)
    assert len(new) == 10
    assert len(old) == 6  # a snapshot stays what it was
    assert len(rd.load("styria", workspace_dir=tmp_path)) == 10
    pointer = json.loads((tmp_path / "styria" / "_rasteret" / "current.json").read_text())
    shown = pads.dataset(tmp_path / "styria" / pointer["directory"], format="parquet")
    assert shown.count_rows() == 10


def test_only_committed_parts_can_be_globbed(austria: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="not one of"):
        rd.build_from_items(
            [{"type": "Feature", "id": "x", "properties": {"datetime": "2020-01-01"}, "bbox": [0, 0, 1, 1],
              "assets": {"B": {"href": "/no/such.tif", "type": "image/tiff"}}}],
            name="none",
            workspace_dir=tmp_path,
        )  # fmt: skip
    assert list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.parquet"))
    with pytest.raises(CollectionError):
        rd.load("none", workspace_dir=tmp_path)


def test_newer_and_damaged_commits_are_refused(austria: Path, tmp_path: Path) -> None:
    build(austria, tmp_path)
    commit = tmp_path / "styria" / "_rasteret" / "commits" / "00000001.json"
    found = json.loads(commit.read_text())
    commit.write_text(json.dumps({**found, "version": 99}))
    with pytest.raises(SchemaVersionError, match="99 is newer"):
        rd.load("styria", workspace_dir=tmp_path)
    commit.write_text(json.dumps({**found, "document": {**found["document"], "schema_version": 7}}))
    with pytest.raises(SchemaVersionError, match="7 is newer"):
        rd.load("styria", workspace_dir=tmp_path)
    commit.write_text(json.dumps(found)[:100])
    with pytest.raises(CollectionError, match="damaged"):
        rd.load("styria", workspace_dir=tmp_path)


# --- bad files and bad input ---------------------------------------------------------------------
def test_a_bad_file_keeps_its_row_and_is_in_the_report(
    scene: dict[str, Any], tmp_path: Path
) -> None:
    text = tmp_path / "text.tif"
    text.write_text("<html>no such bucket</html>")
    scene["assets"]["red"]["href"] = str(text)
    scene["assets"]["nir"]["href"] = str(tmp_path / "missing.tif")
    del scene["assets"]["green"]
    built = rd.build_from_items(
        [scene],
        name="bad",
        band_map={"B04": "red", "B08": "nir", "SCL": "scl", "B03": "green"},
        workspace_dir=tmp_path,
    )
    table = built.to_table()
    assert table["B04_metadata"].null_count == table["B08_metadata"].null_count == 1
    assert table["SCL_metadata"].null_count == 0
    report = built.report
    assert report is not None
    assert (report.assets, report.headers, report.failure_count) == (3, 1, 2)
    said = {f.band: f for f in report.failures}
    assert said["B04"].item == scene["id"]
    assert said["B04"].url == str(text)
    assert "XML or HTML" in said["B04"].reason
    assert said["B08"].kind == "NotFoundError"
    assert "could not be read" in repr(built)
    assert rd.load("bad", workspace_dir=tmp_path).report == report.__class__.from_lasting(
        report.lasting()
    )


def test_a_server_that_ignores_ranges_is_named(austria: Path, tmp_path: Path) -> None:
    with RangeServer(austria, faults=[Fault("ignore_range", match="*.tif")]) as server:
        with pytest.raises(CollectionError, match="not one of 10 headers") as caught:
            rd.build_from_stac(
                static_catalog=server.url + "/catalog.json",
                name="rude",
                workspace_dir=tmp_path,
                bands=["red"],
            )
        assert caught.value.url is not None
        assert caught.value.url.startswith(server.url)
        assert caught.value.band == "red"


def test_passing_failures_are_tried_again_in_the_next_build(austria: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "name": "patient",
        "workspace_dir": tmp_path,
        "bands": ["red"],
        "storage": rd.StorageOptions(retry=rd.RetryPolicy(attempts=1)),
    }
    broken = Fault("status", match="*TWM*/B04.tif", status=503)
    with RangeServer(austria, faults=[broken]) as server:
        catalog = server.url + "/catalog.json"
        first = rd.build_from_stac(static_catalog=catalog, **options)
        assert first.report is not None
        assert first.report.failure_count == 5
        assert all(f.transient for f in first.report.failures)
        server.configure(faults=[])
        shutil.rmtree(tmp_path / "patient" / "_rasteret" / "commits")
        second = rd.build_from_stac(static_catalog=catalog, **options)
    assert second.report is not None
    assert second.report.failure_count == 0
    assert len(band_sources(second.to_table(), "red")) == 10


def test_duplicates(scene: dict[str, Any], tmp_path: Path) -> None:
    other = {**scene, "properties": {**scene["properties"], "platform": "other"}}
    one = rd.build_from_items([scene, scene], name="equal", workspace_dir=tmp_path, bands=["red"])
    assert len(one) == 1
    with pytest.raises(DuplicateItemError, match=scene["id"]):
        rd.build_from_items([scene, other], name="other", workspace_dir=tmp_path, bands=["red"])
    again = {**scene, "id": "S2A_33TWL_20230815_1_L2A"}
    both = rd.build_from_items([scene, again], name="two", workspace_dir=tmp_path, bands=["red"])
    assert both.report is not None
    assert "same acquisition 2 times" in both.report.warnings[0]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bbox": (0, 0, 1, 1)}, EmptySelectionError, "no item"),
        ({"date_range": ("2020-01-01", "2020-12-31")}, EmptySelectionError, "no item"),
        ({"bands": ["B99"]}, UnknownBandError, "B99"),
        ({"bbox": (500000, 5100000, 509000, 5109000)}, ArgumentError, "degrees"),
        ({"name": "../up"}, ArgumentError, "no name"),
        ({"collection": "sentinel-9"}, ArgumentError, "sentinel-2-l2a"),
        ({"query": {"eo:cloud_cover": {"lt": 1}}}, ArgumentError, "cannot be searched by query"),
        ({"dataset": "earthsearch/sentinel-2-l2b"}, UnknownDatasetError, "did you mean"),
    ],
)
def test_bad_input_is_named(
    austria: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        build(austria, tmp_path, **options)
    assert not list(tmp_path.rglob("*.json"))


def test_a_catalogue_may_be_named_by_its_folder_and_relatively(
    austria: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(austria.parent)
    built = rd.build(
        DATASET,
        name="rel",
        static_catalog=Path(austria.name),
        workspace_dir=tmp_path,
        bands=["red"],
    )
    assert built.report is not None
    assert built.report.headers == 10


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        rd.build_from_stac(
            static_catalog=str(tmp_path / "no.json"), name="x", workspace_dir=tmp_path
        )


# --- other ways in -------------------------------------------------------------------------------
def test_items_from_a_file_find_their_files_beside_it(austria: Path, tmp_path: Path) -> None:
    path = austria / "S2B_33TWM_20230820_0_L2A" / "S2B_33TWM_20230820_0_L2A.json"
    built = rd.build_from_items(path, name="one", workspace_dir=tmp_path)
    assert built.bands == ["blue", "green", "nir", "red", "scl"]
    assert built.resolve_bands(["red", "scl"]) == [("red", "red"), ("scl", "scl")]
    lines = tmp_path / "items.ndjson"
    item = json.loads(path.read_text())
    for asset in item["assets"].values():
        asset["href"] = str(path.parent / asset["href"])
    lines.write_text(json.dumps(item) + "\n" + json.dumps({**item, "id": "b"}) + "\n")
    assert len(rd.build_from_items(lines, name="two", workspace_dir=tmp_path)) == 2


def test_descriptor_is_found_by_name_in_the_collection(austria: Path, tmp_path: Path) -> None:
    build(austria, tmp_path, bands=["red", "B08"])
    loaded = rd.load("styria", workspace_dir=tmp_path)
    assert loaded.descriptor is not None
    assert loaded.descriptor.harmonize == "sentinel-2"
    assert loaded.bands == ["B04", "B08"]
    assert loaded.resolve_bands(["nir", "B04", "red"]) == [
        ("nir", "B08"),
        ("B04", "B04"),
        ("red", "B04"),
    ]


def test_a_loaded_collection_knows_how_its_files_are_reached(austria: Path, tmp_path: Path) -> None:
    storage = rd.StorageOptions(options={"region": "eu-central-1"})
    build(austria, tmp_path, bands=["red"], storage=storage)
    assert rd.load("styria", workspace_dir=tmp_path).storage.options == storage.options
    other = rd.StorageOptions()
    assert rd.load("styria", workspace_dir=tmp_path, storage=other).storage is other


def test_the_workspace_is_not_reached_as_the_dataset_s_own_bucket_is(
    scene: dict[str, Any], tmp_path: Path
) -> None:
    descriptor = DatasetDescriptor(
        "mine/far",
        bands=(BandInfo("B04", "red"),),
        storage={"region": "us-west-2", "unsigned": "true"},
    )
    options: dict[str, Any] = {"descriptor": descriptor, "workspace_dir": tmp_path}
    files = rd.StorageOptions(
        options={"region": "us-west-2"}, auth="aws", auth_options={"unsigned": "true"}
    )
    built = rd.build_from_items([scene], name="a", **options)
    again = rd.load("a", workspace_dir=tmp_path)
    for one in (built, again, again.append([{**scene, "id": "b"}]), again.refresh()):
        assert one.place is not None
        assert one.place.options == rd.StorageOptions()
        assert one.storage == files
    mine = rd.StorageOptions(options={"region": "eu-central-1"})
    told = rd.build_from_items([scene], name="b", storage=mine, **options)
    assert told.place is not None
    assert told.place.options == told.storage == mine


def test_a_mismatch_shows_no_secret_that_an_older_commit_holds(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    then, now = (
        {"source": {"static_catalog": f"https://me:SECRET@h/{name}.json?sig=SECRET"}}
        for name in ("old", "new")
    )
    document = {"schema_version": 2, "bands": []}
    write_commit(place, Commit(1, "c", identity_of(then), then, "data/00000001", document, ()))
    with pytest.raises(BuildMismatchError, match=r"https://h/old\.json") as caught:
        run_build(Order("c", place, now), lambda: Gathered(()))
    assert "SECRET" not in str(caught.value)


def test_workspace_in_memory(austria: Path) -> None:
    built = rd.build(
        DATASET,
        name="m",
        static_catalog=str(austria / "catalog.json"),
        workspace_dir="memory://workspace",
        bands=["B04"],
    )
    assert len(built) == 10
    loaded = rd.load("memory://workspace/m")
    assert len(band_sources(loaded.to_table(), "B04")) == 10
    commit = read_commit(Place("memory://workspace/m"))
    assert commit is not None
    assert commit.rows == 10
