"""Records of runs, whoever leaves them: without secrets, of one version, and what they say of holes."""

from __future__ import annotations

import json

import pytest

from rasteret_dask import api
from rasteret_dask.errors import (
    PipelineError,
    RasteretError,
    RunInterruptedError,
    SchemaVersionError,
)
from rasteret_dask.model import Ledger
from rasteret_dask.runs import record
from rasteret_dask.runs.record import Record
from rasteret_dask.testing.catalog import write_demo_catalog


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://a.blob/x.tif?sig=SECRET&se=1", "https://a.blob/x.tif"),
        ("https://user:SECRET@host:81/x", "https://host:81/x"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("abfs://box@account/x?sig=S", "abfs://box@account/x"),
        ("abfs://user:SECRET@account/x", "abfs://account/x"),
        ("where(B04 > 1, 2, 3) ? no URL", "where(B04 > 1, 2, 3) ? no URL"),
        ({"a": ["https://h/x#SECRET", 3, None]}, {"a": ["https://h/x", 3, None]}),
        ("https://:SECRET@h/x", "https://h/x"),
        ("Dry? See https://x.org", "Dry? See https://x.org"),
        ("from https://h/x?sig=SECRET, and no other", "from https://h/x and no other"),
        ("s3://bucket/a file?sig=SECRET", "s3://bucket/a file"),
    ],
)
def test_urls_are_unsigned(given, kept):
    assert record.unsigned(given) == kept


def test_without_a_commit_the_ids_tell_one_selection_from_another(tmp_path):
    scenes = write_demo_catalog(
        tmp_path / "scenes", size=64, dates=("2023-07-03", "2023-07-08"), blocksize=128
    )
    collection = api.build(
        "earthsearch/sentinel-2-l2a", name="c", static_catalog=scenes, workspace_dir=tmp_path
    )
    one, two = collection.head(1), collection.head(2)
    assert record.snapshot_of(one) != record.snapshot_of(two)
    assert record.snapshot_of(one) == record.snapshot_of(collection.head(1))


def test_the_holes_that_are_open_are_those_of_the_last_repair_that_ended():
    plain = Record("r.json", {})
    assert plain.ledger is plain.open_holes is None
    noted = Record("r.json", {"ledger": {"url": "s3://b/l", "run": "first"}})
    assert noted.ledger == noted.open_holes == Ledger("s3://b/l", "first")
    noted.document["repairs"] = {
        "one": {"state": "done", "run": "second", "ended": "2026-01-02T00:00:00+00:00"},
        "two": {"state": "done", "run": "third", "ended": "2026-01-03T00:00:00+00:00"},
        "three": {"state": "begun", "run": "fourth"},
    }
    assert noted.ledger == Ledger("s3://b/l", "first")
    assert noted.open_holes == Ledger("s3://b/l", "third")


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (PipelineError("the cube is empty"), "failed", "the cube is empty"),
        (RunInterruptedError("the cluster was lost"), "interrupted", "the cluster was lost"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (ValueError("https://h/x?sig=SECRET"), "failed", "ValueError"),
    ],
)
def test_a_block_that_ends_badly_says_so_in_its_record(tmp_path, error, state, said):
    noted = Record(str(tmp_path / "r.json"), {"format": record.FORMAT, "version": record.VERSION})
    with pytest.raises(type(error)), record.Ending(noted):
        raise error
    found = record.load(noted.url)
    assert found is not None
    assert not found.finished
    assert (found.document["state"], found.document["error"]) == (state, said)
    assert "SECRET" not in (tmp_path / "r.json").read_text()


def test_versions_that_are_known_and_those_that_are_not(tmp_path):
    url = str(tmp_path / "r.json")
    assert record.load(url) is None
    (tmp_path / "r.json").write_text(json.dumps({"format": record.FORMAT, "version": 1}))
    first = record.load(url)
    assert first is not None
    assert first.document["kind"] == record.PIPELINE  # version 1 knew no other
    (tmp_path / "r.json").write_text(json.dumps({"format": record.FORMAT, "version": 3}))
    with pytest.raises(SchemaVersionError, match="version 3"):
        record.load(url)
    (tmp_path / "r.json").write_text("not json")
    with pytest.raises(RasteretError, match="is no record"):
        record.load(url)
