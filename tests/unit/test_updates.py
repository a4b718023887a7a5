"""Collections that grow, and files that change: append, refresh, older snapshots, other readers
meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
import rasterio

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, CollectionError, CommitConflictError
from rasteret_dask.index.rows import band_sources
from rasteret_dask.ingest import cut
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import Fault, RangeServer

CORNER = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)


def scene(folder: Path, number: int, side: int = 64, seed: int = 0) -> dict[str, Any]:
    """An item of two files of its own."""
    name = f"scene-{number:03d}"
    assets = {}
    for band in ("red", "nir"):
        path = folder / name / f"{band}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, number]).integers(1, 9999, (side, side), "uint16")
        partial = path.with_suffix(".new")
        make_cog(partial, pixels, transform=CORNER, crs="EPSG:32633", nodata=0, blocksize=32)
        os.replace(partial, path)
        assets[band] = {"href": f"{name}/{band}.tif", "type": "image/tiff; application=geotiff"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "bbox": [15.0, 46.9, 15.01, 46.91],
        "geometry": None,
        "properties": {"datetime": f"2023-01-{number + 1:02d}T10:00:00Z"},
        "links": [],
        "assets": assets,
    }


def at(root: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same items, their files below a server's root."""
    copies: list[dict[str, Any]] = json.loads(json.dumps(items))
    for item in copies:
        for asset in item["assets"].values():
            asset["href"] = f"{root}/{asset['href']}"
    return copies


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def items(files: Path) -> list[dict[str, Any]]:
    return [scene(files, number) for number in range(6)]


@pytest.fixture
def server(files: Path, items: list[dict[str, Any]]) -> Iterator[RangeServer]:
    with RangeServer(files) as running:
        yield running


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "slice_rows", lambda count, bands: 2)


def ids(collection: rd.Collection) -> list[str]:
    found: list[str] = collection.to_table(["id"])["id"].to_pylist()
    return found


def shown(folder: Path) -> list[str]:
    """What a reader finds who knows nothing but the pointer."""
    pointer = json.loads((folder / "_rasteret" / "current.json").read_text())
    files = [str(path) for path in (folder / pointer["directory"]).glob("*.parquet")]
    found: list[str] = pads.dataset(files, format="parquet").to_table(["id"])["id"].to_pylist()
    return found


def test_append_reads_the_headers_of_new_items_alone(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    every = at(server.url, items)
    first = rd.build_from_items(every[:3], name="c", workspace_dir=tmp_path)
    server.reset()
    grown = first.append(every)
    assert server.counters().paths == {
        f"scene-{n:03d}/{band}.tif": 1 for n in (3, 4, 5) for band in ("red", "nir")
    }
    assert grown.report is not None
    assert (grown.report.items, grown.report.requests) == (3, 6)
    assert ids(grown) == [item["id"] for item in items]
    assert ids(first) == ids(grown)[:3]  # a snapshot stays what it was
    assert ids(rd.load("c", workspace_dir=tmp_path)) == ids(grown)
    assert ids(rd.load("c", workspace_dir=tmp_path, snapshot=1)) == ids(first)
    assert sorted(shown(tmp_path / "c")) == ids(grown)
    saved = rd.load("c", workspace_dir=tmp_path).report
    assert saved is not None
    assert (saved.items, saved.headers) == (6, 12)
    assert grown.append(every).commit == grown.commit  # nothing is new
    with pytest.raises(CollectionError, match="snapshot 9"):
        rd.load("c", workspace_dir=tmp_path, snapshot=9)


def test_older_items_that_are_appended_take_their_place_in_time(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    every = at(server.url, items)
    late = rd.build_from_items(every[3:], name="c", workspace_dir=tmp_path)
    assert ids(late.append(every)) == [item["id"] for item in items]


def test_a_collection_searches_again_for_itself(files: Path, tmp_path: Path) -> None:
    found = [scene(files, number) for number in range(3)]
    catalogue: dict[str, Any] = {
        "type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x", "links": [],
    }  # fmt: skip
    for item in found:
        (files / f"{item['id']}.json").write_text(json.dumps(item))
        catalogue["links"].append({"rel": "item", "href": f"./{item['id']}.json"})
    path = files / "catalog.json"
    path.write_text(json.dumps({**catalogue, "links": catalogue["links"][:2]}))
    options: dict[str, Any] = {"name": "c", "workspace_dir": tmp_path}
    first = rd.build_from_stac(static_catalog=path, date_range=("2023-01-01", None), **options)
    path.write_text(json.dumps(catalogue))
    assert (
        len(rd.build_from_stac(static_catalog=path, date_range=("2023-01-01", None), **options))
        == 2
    )
    assert len(first.append()) == 3
    assert (
        len(rd.build_from_stac(static_catalog=path, date_range=("2023-01-01", None), **options))
        == 3
    )


def test_refresh_reads_what_changed_and_nothing_else(
    server: RangeServer, items: list[dict[str, Any]], files: Path, tmp_path: Path
) -> None:
    first = rd.build_from_items(at(server.url, items), name="c", workspace_dir=tmp_path)
    before = {path.name for path in (tmp_path / "c" / "data" / "00000001").iterdir()}
    scene(files, 3, side=96, seed=1)
    server.reset()
    fresh = first.refresh()
    paths = server.counters().paths
    assert {path for path, n in paths.items() if n == 2} == {
        "scene-003/red.tif",
        "scene-003/nir.tif",
    }
    assert sum(paths.values()) == 14  # a glance at each of twelve files, two headers
    assert fresh.commit is not None
    assert fresh.commit.directory == "data/00000002"
    sources = band_sources(fresh.to_table(), "red")
    assert sources.widths.tolist() == [64, 64, 64, 96, 64, 64]
    with rasterio.open(files / "scene-003" / "red.tif") as truth:
        assert (truth.width, truth.height) == (96, 96)
    assert band_sources(first.to_table(), "red").widths.tolist() == [64] * 6
    after = {path.name for path in (tmp_path / "c" / "data" / "00000002").iterdir()}
    assert len(before & after) == 2  # three parts, of which one is new
    assert sorted(shown(tmp_path / "c")) == ids(first)
    assert fresh.refresh().commit == fresh.commit  # nothing changed since


def test_refresh_of_a_file_that_is_gone_and_one_that_is_back(
    server: RangeServer, items: list[dict[str, Any]], files: Path, tmp_path: Path
) -> None:
    first = rd.build_from_items(at(server.url, items), name="c", workspace_dir=tmp_path)
    (files / "scene-001" / "nir.tif").rename(files / "away.tif")
    gone = first.refresh()
    assert gone.report is not None
    assert [(f.item, f.band, f.kind) for f in gone.report.failures] == [
        ("scene-001", "nir", "NotFoundError")
    ]
    assert gone.to_table()["nir_metadata"].null_count == 1
    assert gone.refresh().commit == gone.commit
    (files / "away.tif").rename(files / "scene-001" / "nir.tif")
    back = gone.refresh()
    assert back.to_table()["nir_metadata"].null_count == 0
    assert back.to_table().equals(first.to_table())
    saved = rd.load("c", workspace_dir=tmp_path).report
    assert saved is not None
    assert (saved.failure_count, saved.headers) == (0, 12)


def test_a_file_that_cannot_be_looked_at_now_keeps_its_header(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    storage = rd.StorageOptions(retry=rd.RetryPolicy(attempts=1))
    first = rd.build_from_items(
        at(server.url, items), name="c", workspace_dir=tmp_path, storage=storage
    )
    server.configure(faults=[Fault("status", match="scene-002/*", status=503)])
    again = first.refresh()
    assert again.commit == first.commit
    assert again.report is not None
    assert len(again.report.warnings) == 2
    assert "scene-002 red: could not be looked at" in again.report.warnings[0]


def test_only_whole_collections_are_updated(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    built = rd.build_from_items(at(server.url, items), name="c", workspace_dir=tmp_path)
    for part in (built.subset(date_range="2023-01-01"), rd.as_collection(built.to_table())):
        with pytest.raises(ArgumentError, match="whole collection"):
            part.refresh()
    with pytest.raises(ArgumentError, match="items="):
        built.append()


# --- many at once ---------------------------------------------------------------------------------
def test_readers_meet_no_torn_double_or_superseded_row(files: Path, tmp_path: Path) -> None:
    """A reader that globs and one of ours, over and over, while a collection grows and changes."""
    every = [scene(files, number) for number in range(12)]
    local = at(str(files), every)
    collection = rd.build_from_items(local[:2], name="c", workspace_dir=tmp_path)
    folder, done = tmp_path / "c", threading.Event()
    wrong: list[str] = []
    rounds = [0, 0]

    def glob() -> None:
        least = 2
        while not done.is_set():
            found = shown(folder)
            if len(set(found)) != len(found):
                wrong.append(f"a row twice: {sorted(found)}")
            if len(found) < least:
                wrong.append(f"{len(found)} rows after {least}")
            least = max(least, len(found))
            rounds[0] += 1

    def ours() -> None:
        while not done.is_set():
            now = rd.load("c", workspace_dir=tmp_path)
            widths = band_sources(now.to_table(), "red").widths
            assert now.commit is not None
            if len(widths) != now.commit.rows or len(set(ids(now))) != len(widths):
                wrong.append(f"{len(widths)} rows of {now.commit.rows}")
            rounds[1] += 1

    threads = [threading.Thread(target=one) for one in (glob, ours)]
    for thread in threads:
        thread.start()
    for step in range(3, 13):
        collection = collection.append(local[:step])
        if step % 3 == 0:
            scene(files, step - 2, side=96, seed=step)
            collection = collection.refresh()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    assert len(collection) == 12
    assert min(rounds) > 10


def test_of_two_who_append_one_wins_and_the_other_loses_nothing(
    files: Path, tmp_path: Path
) -> None:
    every = at(str(files), [scene(files, number) for number in range(8)])
    rounds, conflicts = 12, 0
    for turn in range(rounds):
        name = f"c{turn}"
        base = rd.build_from_items(every[:2], name=name, workspace_dir=tmp_path)
        barrier = threading.Barrier(2)
        told: list[Exception] = []

        def add(
            more: list[Any],
            base: rd.Collection = base,
            gate: threading.Barrier = barrier,
            told: list[Exception] = told,
        ) -> None:
            gate.wait()
            try:
                base.append(more)
            except CommitConflictError as error:
                told.append(error)
                base.append(more)

        threads = [threading.Thread(target=add, args=(m,)) for m in (every[2:5], every[4:8])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        conflicts += len(told)
        now = rd.load(name, workspace_dir=tmp_path)
        assert ids(now) == [item["id"] for item in every]
        assert sorted(shown(tmp_path / name)) == ids(now)
        assert len(now.commit.parts if now.commit else ()) >= 3
        shutil.rmtree(tmp_path / name)
    assert conflicts > 0


def commit_file(folder: Path, number: int) -> Path:
    return folder / "_rasteret" / "commits" / f"{number:08d}.json"


def test_who_is_told_of_another_append_has_fetched_for_good(files: Path, tmp_path: Path) -> None:
    """However many parts the other one has added."""
    every = at(str(files), [scene(files, number) for number in range(9)])
    base = rd.build_from_items(every[:2], name="c", workspace_dir=tmp_path)
    base.append(every[6:9])
    commit_file(tmp_path / "c", 2).unlink()  # as if the other one had been first
    base.append(every[2:6])
    again = base.append(every[6:9])
    assert (len(again), again.report.requests if again.report else None) == (9, 0)


def test_a_build_that_has_not_come_to_its_end_is_no_collection(
    items: list[dict[str, Any]], server: RangeServer, tmp_path: Path
) -> None:
    """Its parts are there, one after the other; the directory for other readers is no collection of theirs."""
    built = rd.build_from_items(at(server.url, items), name="c", workspace_dir=tmp_path)
    commit_file(tmp_path / "c", 1).unlink()
    with pytest.raises(CollectionError, match="has begun and not come to its end"):
        rd.load(tmp_path / "c")
    # Other Parquet is opened as ever.
    assert len(rd.load(tmp_path / "c" / "data" / "00000001")) == len(built)
