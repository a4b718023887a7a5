"""Pipelines that wrote down what failed, mended by the records of their runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from holed import FEW, MASK, files
from typer.testing import CliRunner

import rasteret_dask as rd
from rasteret_dask.cli.app import app
from rasteret_dask.errors import (
    ArgumentError,
    PipelineError,
    RasteretWarning,
    RunInterruptedError,
)
from rasteret_dask.pipeline import config, foreach
from rasteret_dask.pipeline.run import run
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.server import Fault, RangeServer


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


SLOW = """
import itertools, os

passed = itertools.count()

def gate(block):
    if os.path.exists(os.environ["GATE"]) and next(passed) > 20:
        raise RuntimeError("the gate is shut")
    return block

def gated(ds):
    return ds.map(lambda a: a.copy(data=a.data.map_blocks(gate, dtype=a.dtype, meta=a.data._meta)))
"""


def pipeline(workspace: Path, folder: Path, name: str, **changes: Any) -> config.Pipeline:
    cube = {
        "bands": ["B04", "B08"],
        "groupby": "solar_day",
        "scale": True,
        "mask": MASK,
        "chunks": {"time": -1, "y": 96, "x": 96},
    }
    said = {
        "version": 1,
        "collection": {"load": str(workspace / "demo")},
        "cube": cube | changes.pop("cube", {}),
        "steps": [
            {"expression": {"ndvi": "(B08 - B04) / (B08 + B04)"}},
            {"reduce": {"how": "median", "looks": "looks"}},
        ],
        "outputs": [
            {"cog": str(folder / f"{name}.tif"), "bands": ["ndvi"]},
            {"zarr": str(folder / f"{name}.zarr")},
        ],
        "record": str(folder / f"{name}.json"),
    }
    return config.from_mapping({**said, **changes})


RECORDING = {"on_error": "record"}


def test_a_pipeline_from_its_record(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    server.configure(faults=FEW)
    account = run(pipeline(workspace, tmp_path, "out", cube=ledger))
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["state"] == "done"
    assert said["failures"] == account.failures > 5
    assert len(read_ledger(said["ledger"]["url"], said["ledger"]["run"])) == account.failures
    server.configure(faults=[])
    server.reset()
    calm = run(pipeline(workspace, tmp_path, "calm"))
    with pytest.raises(PipelineError, match="kept no ledger"):
        rd.repair(tmp_path / "calm.json")
    assert files(tmp_path / "out.zarr") != files(tmp_path / "calm.zarr")
    result = call("repair", str(tmp_path / "out.json"), "--json")
    assert result.exit_code == 0, result.stderr
    done = json.loads(result.stdout)
    assert done["holes"] == account.failures
    assert 0 < done["regions"] < account.regions
    assert 0 < done["requests"] < calm.requests
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")
    with rasterio.open(tmp_path / "out.tif") as one, rasterio.open(tmp_path / "calm.tif") as two:
        assert np.array_equal(one.read(), two.read(), equal_nan=True)
    assert json.loads((tmp_path / "out.json").read_text())["failures"] == 0
    page = call("report", str(tmp_path / "out.json"))
    assert "No tile is missing" in Path(page.stdout.strip()).read_text()
    assert json.loads(call("repair", str(tmp_path / "out.json"), "--json").stdout)["requests"] == 0
    # A run that is resumed after its repair has nothing to do.
    assert run(pipeline(workspace, tmp_path, "out", cube=ledger), resume=True).reused


@pytest.mark.slow
def test_holes_that_stay_make_the_exit_code_1(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    server.configure(faults=FEW)
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    run(pipeline(workspace, tmp_path, "out", cube=ledger))
    result = call("repair", str(tmp_path / "out.json"))
    assert result.exit_code == 1
    assert "tiles still fail" in result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["failures"] > 0


def test_a_run_that_goes_on_keeps_the_holes_of_what_was_done(
    server: RangeServer, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gated_step.py").write_text(SLOW)
    (tmp_path / "gate").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    gate = {"custom": {"function": "gated_step:gated", "variables": ["ndvi", "looks"]}}
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger")}
    steps = [
        *pipeline(workspace, tmp_path, "x").model_dump(mode="json", exclude_none=True)["steps"],
        {**gate, "custom": {**gate["custom"], "time": False}},
    ]

    def made(name: str, **cube: Any) -> config.Pipeline:
        outputs = [{"zarr": str(tmp_path / f"{name}.zarr")}]
        return pipeline(workspace, tmp_path, name, steps=steps, outputs=outputs, cube=cube)

    server.configure(faults=FEW)
    with pytest.raises(RuntimeError, match="gate"):
        run(made("out", **ledger), allow_custom=True)
    before = json.loads((tmp_path / "out.json").read_text())
    assert before["state"] == "failed"
    with pytest.raises(PipelineError, match="--resume first"):
        rd.repair(tmp_path / "out.json", allow_custom=True)
    (tmp_path / "gate").unlink()
    account = run(made("out", **ledger), allow_custom=True, resume=True)
    after = json.loads((tmp_path / "out.json").read_text())
    assert after["ledger"] == before["ledger"]
    assert account.computed < account.regions
    server.configure(faults=[])
    run(made("calm"), allow_custom=True)
    assert files(tmp_path / "out.zarr") != files(tmp_path / "calm.zarr")
    rd.repair(tmp_path / "out.json", allow_custom=True)
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")


def districts(path: Path, count: int = 2) -> Path:
    squares = [shapely.box(11.99 + n * 0.01, 47.2, 12.0 + n * 0.01, 47.21) for n in range(count)]
    frame = geopandas.GeoDataFrame({"code": list("abc"[:count])}, geometry=squares, crs=4326)
    frame.to_parquet(path)
    return path


def test_what_is_made_from_the_store_is_not_forgotten(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    """A repair that ends between the store and the picture made from it; the next one has no hole to mend."""
    server.configure(faults=FEW)
    run(
        pipeline(workspace, tmp_path, "out", cube={**RECORDING, "ledger": str(tmp_path / "ledger")})
    )
    server.configure(faults=[])
    run(pipeline(workspace, tmp_path, "calm"))
    image, record = tmp_path / "out.tif", tmp_path / "out.json"
    image.unlink()
    image.mkdir()
    with pytest.raises(PipelineError, match="could not be written"):
        rd.repair(record)
    assert files(tmp_path / "out.zarr") == files(tmp_path / "calm.zarr")
    image.rmdir()
    said = json.loads(record.read_text())
    record.write_text(json.dumps(said | {"versions": said["versions"] | {"rasteret-dask": "0.0"}}))
    with pytest.warns(RasteretWarning, match="version 0.0"), pytest.raises(ArgumentError):
        rd.repair(tmp_path / "out.json")  # and its digest is that of another version
    record.write_text(json.dumps(said))
    assert rd.repair(record).holes == 0
    with rasterio.open(image) as one, rasterio.open(tmp_path / "calm.tif") as two:
        assert np.array_equal(one.read(), two.read(), equal_nan=True)


@pytest.mark.slow
def test_units_of_a_table_are_mended_by_their_records(
    server: RangeServer, workspace: Path, tmp_path: Path, call: Any
) -> None:
    table = districts(tmp_path / "districts.parquet")
    ledger = {**RECORDING, "ledger": str(tmp_path / "ledger"), "crs": "EPSG:32632"}
    each = {"table": str(table), "id": "code"}

    def made(name: str, cube: dict[str, Any]) -> config.Pipeline:
        outputs = [{"zarr": str(tmp_path / name / "{code}.zarr")}]
        record = str(tmp_path / name / "{code}.json")
        changes = {"foreach": each, "outputs": outputs, "record": record, "cube": cube}
        return pipeline(workspace, tmp_path, name, **changes)

    server.configure(faults=[Fault("status", match="*20230703*/B0?.tif", status=404)])
    told = foreach.run_each(made("out", ledger))
    assert all(u.account is not None and u.account.failures > 0 for u in told.units)
    server.configure(faults=[])
    foreach.run_each(made("calm", {"crs": "EPSG:32632"}))
    records = [unit.record for unit in told.units]
    result = call("repair", *records, "--json")
    assert result.exit_code == 0, result.stderr
    assert all(one["regions"] > 0 for one in json.loads(result.stdout)["repairs"])
    for code in "ab":
        out, calm = (tmp_path / name / f"{code}.zarr" for name in ("out", "calm"))
        assert files(out) == files(calm)


def lose(dataset: xr.Dataset) -> xr.Dataset:
    raise RunInterruptedError("the cluster is gone")


def test_a_lost_cluster_ends_all_units(
    server: RangeServer, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    each = {"table": str(districts(tmp_path / "d.parquet")), "id": "code"}
    custom = {"function": "test_repair_pipelines:lose", "variables": ["ndvi"], "time": False}
    changes = {"record": str(tmp_path / "{code}.json"), "steps": [{"custom": custom}]}
    outputs = [{"zarr": str(tmp_path / "{code}.zarr")}]
    made = pipeline(workspace, tmp_path, "x", foreach=each, outputs=outputs, **changes)
    with pytest.raises(Exception, match="cluster is gone") as caught:
        foreach.run_each(made, allow_custom=True)
    assert type(caught.value).__name__ == "RunInterruptedError"
    assert json.loads((tmp_path / "a.json").read_text())["state"] == "interrupted"
    assert not (tmp_path / "b.json").exists()


def test_a_run_of_what_is_no_more_is_not_mended(
    server: RangeServer, workspace: Path, tmp_path: Path
) -> None:
    field = districts(tmp_path / "field.parquet", 1)
    cube = {**RECORDING, "ledger": str(tmp_path / "ledger"), "geometries": str(field)}
    server.configure(faults=[Fault("status", match="*20230703*/B04.tif", status=404)])
    run(pipeline(workspace, tmp_path, "out", cube=cube))
    flat = [{"cog": str(tmp_path / "flat.tif"), "bands": ["ndvi"]}]
    run(pipeline(workspace, tmp_path, "flat", cube=cube, outputs=flat))
    server.configure(faults=[])
    with pytest.raises(PipelineError, match="Zarr store of all variables"):
        rd.repair(tmp_path / "flat.json")
    with pytest.raises(ArgumentError, match="takes no target"):
        rd.repair(tmp_path / "out.json", tmp_path / "out.zarr")
    before = field.read_bytes()
    districts(field, 2)
    with pytest.raises(ArgumentError, match="another one by now"):
        rd.repair(tmp_path / "out.json")
    field.write_bytes(before)
    shutil.move(workspace / "demo", tmp_path / "away")
    with pytest.raises(ArgumentError, match="no more"):
        rd.repair(tmp_path / "out.json")
    shutil.move(tmp_path / "away", workspace / "demo")
    assert rd.repair(tmp_path / "out.json").regions > 0
