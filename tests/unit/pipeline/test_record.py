"""Records of runs: no secret in them, no newer one misread, nothing taken for done that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pystac
import pytest

from rasteret_dask import api
from rasteret_dask.errors import PipelineError, RasteretError, SchemaVersionError
from rasteret_dask.pipeline.run import run
from rasteret_dask.testing.catalog import write_demo_catalog

STEPS = [{"reduce": {"how": "mean"}}]
DATES = ("2023-07-03", "2023-07-08", "2023-07-13")  # the collection has the first two


def test_what_a_record_says(make, tmp_path):
    account = run(make())
    said = json.loads(Path(account.record).read_text())
    assert account.record == f"{tmp_path}/out.tif.run.json"
    assert (said["format"], said["version"], said["state"]) == ("rasteret-dask run", 2, "done")
    assert (said["kind"], said["failures"]) == ("pipeline", 0)
    assert said["counters"]["requests"] == account.requests > 0
    assert "reused" not in said["counters"]
    assert said["collection"]["items"] == 4
    assert said["collection"]["snapshot"]["commit"] == 1
    assert said["outputs"] == [{"kind": "cog", "url": f"{tmp_path}/out.tif"}]
    assert {"python", "dask", "rasteret-dask"} <= set(said["versions"])
    elsewhere = run(make(record=f"{tmp_path}/records/r.json"))
    assert (tmp_path / "records" / "r.json").exists()
    assert elsewhere.record == f"{tmp_path}/records/r.json"


def test_resume_leaves_only_what_is_the_same(make, scenes, collection):
    run(make())
    assert run(make(), resume=True).reused
    assert run(make(name="another name"), resume=True).reused
    assert not run(make()).reused  # without resume it is done again
    median = [{"reduce": {"how": "median"}}]
    assert not run(make(steps=median), resume=True).reused
    assert run(make(steps=median), resume=True).reused
    # A new snapshot is another input.
    write_demo_catalog(scenes.parent, size=64, dates=DATES, blocksize=128)
    collection.append().refresh()
    again = run(make(steps=median), resume=True)
    assert (again.reused, again.items) == (False, 6)


def test_a_failure_is_recorded_and_is_not_done(make, tmp_path, scenes):
    bad = next(scenes.parent.glob("*20230703*")) / "B04.tif"
    bad.rename(tmp_path / "away.tif")
    with pytest.raises(RasteretError, match="B04"):
        run(make())
    said = json.loads((tmp_path / "out.tif.run.json").read_text())
    assert said["state"] == "failed"
    assert "B04" in said["error"]
    (tmp_path / "away.tif").rename(bad)
    assert not run(make(), resume=True).reused


def test_a_run_that_goes_on_goes_on_with_its_own_snapshot(make, tmp_path, scenes, collection):
    bad = next(scenes.parent.glob("*20230708*")) / "B04.tif"
    bad.rename(tmp_path / "away.tif")
    with pytest.raises(RasteretError, match="B04"):
        run(make())
    (tmp_path / "away.tif").rename(bad)
    third = write_demo_catalog(tmp_path / "third", size=64, dates=DATES[2:], blocksize=128)
    items = [
        item.make_asset_hrefs_absolute()
        for item in pystac.Catalog.from_file(third).get_items(recursive=True)
    ]
    assert len(collection.append(items)) == 6
    assert run(make(), resume=True).items == 4
    # It is whole now; the next one sees what there is.
    assert run(make(), resume=True).items == 6


def test_a_collection_that_is_stacked_counts_too(make, tmp_path, scenes, collection):
    other = api.build(
        "earthsearch/sentinel-2-l2a", name="d", static_catalog=scenes, workspace_dir=tmp_path
    )
    stack = {"stack": {"collection": {"load": f"{tmp_path}/d"}, "bands": ["B08"]}}
    made = make(steps=[*STEPS, stack])
    run(made)
    assert run(made, resume=True).reused
    third = write_demo_catalog(tmp_path / "third", size=64, dates=DATES[2:], blocksize=128)
    found = pystac.Catalog.from_file(third).get_items(recursive=True)
    other.append([item.make_asset_hrefs_absolute() for item in found])
    assert not run(made, resume=True).reused


class Strange(Exception):
    """An error of somebody else's, whose text may hold anything."""


def strange(dataset):
    raise Strange("https://host/x.tif?sig=SECRET")


def test_whatever_ends_a_run_is_recorded_without_a_strangers_words(make, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    custom = {"custom": {"function": f"{Path(__file__).stem}:strange", "variables": ["B04"]}}
    with pytest.raises(Exception, match="SECRET"):
        run(make(steps=[custom, *STEPS]), allow_custom=True)
    text = (tmp_path / "out.tif.run.json").read_text()
    assert json.loads(text)["state"] == "failed"
    assert json.loads(text)["error"] == "Strange"
    assert "SECRET" not in text


def test_nothing_else_is_replaced_and_newer_records_are_refused(make, tmp_path):
    mine = tmp_path / "out.tif.run.json"
    mine.write_text('{"my": "thesis"}')
    with pytest.raises(PipelineError, match="is no record"):
        run(make())
    assert mine.read_text() == '{"my": "thesis"}'
    mine.write_text('{"format": "rasteret-dask run", "version": 3}')
    with pytest.raises(SchemaVersionError, match="version 3"):
        run(make())
