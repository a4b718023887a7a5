"""Units of `foreach` of which one goes wrong: who is stopped by it, and who is not."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import pytest
import shapely
from distributed import CancelledError, KilledWorker

from rasteret_dask.errors import RunInterruptedError, WorkersKilledError
from rasteret_dask.pipeline import foreach
from rasteret_dask.pipeline import run as runner
from rasteret_dask.runs import record


@pytest.fixture
def units(make, tmp_path):
    """A pipeline over two districts."""
    field = shapely.box(12.0, 47.2, 12.002, 47.201)
    frame = geopandas.GeoDataFrame({"code": ["a", "b"]}, geometry=[field, field], crs=4326)
    frame.to_parquet(tmp_path / "d.parquet")
    each = {"table": f"{tmp_path}/d.parquet", "id": "code"}
    return make(foreach=each, outputs=[{"cog": f"{tmp_path}/{{code}}.tif"}])


@pytest.fixture
def first_unit(monkeypatch):
    """Have the first unit end with an error; call it with that."""

    def fail(error: Exception) -> None:
        opened = runner.open_cube

        def open_cube(collection, pipeline, vectors, ledger):
            if pipeline.outputs[0].cog.endswith("a.tif"):
                raise error
            return opened(collection, pipeline, vectors, ledger)

        monkeypatch.setattr(runner, "open_cube", open_cube)

    return fail


def state(folder: Path, code: str) -> str:
    return json.loads((folder / f"{code}.tif.run.json").read_text())["state"]


def test_a_unit_that_is_too_large_for_the_workers_stops_nobody(units, first_unit, tmp_path):
    first_unit(KilledWorker("a task", "tcp://w", 10))
    told = foreach.run_each(units)
    assert [unit.state for unit in told.units] == ["failed", "done"]
    assert "smaller chunks, or workers with more memory" in told.failed[0].error
    assert [state(tmp_path, code) for code in "ab"] == ["interrupted", "done"]


def test_alone_it_can_go_on(units, first_unit):
    """Exit code 75 is that of RunInterruptedError."""
    first_unit(KilledWorker("a task", "tcp://w", 10))
    [one, _] = foreach.units(units)
    with pytest.raises(WorkersKilledError) as caught:
        runner.run(one.pipeline, area=one.area)
    assert isinstance(caught.value, RunInterruptedError)


def test_a_lost_cluster_stops_all(units, first_unit, tmp_path):
    first_unit(CancelledError("a task"))
    with pytest.raises(RunInterruptedError) as caught:
        foreach.run_each(units)
    assert type(caught.value) is RunInterruptedError
    assert not (tmp_path / "b.tif.run.json").exists()


def test_a_record_that_cannot_be_written_stops_nobody(units, monkeypatch, tmp_path):
    put = record.put_bytes

    def put_bytes(data, url):
        if url.endswith("a.tif.run.json"):
            raise OSError(5, "HttpResponseError")
        return put(data, url)

    monkeypatch.setattr(record, "put_bytes", put_bytes)
    told = foreach.run_each(units)
    assert [unit.state for unit in told.units] == ["failed", "done"]
    where = f"the record of the run, {tmp_path}/a.tif.run.json, cannot be written: "
    assert told.failed[0].error == f"{where}HttpResponseError"
    assert (tmp_path / "b.tif").exists()
