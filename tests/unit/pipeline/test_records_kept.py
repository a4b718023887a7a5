"""What a record may carry over to the run that goes on, what it says of itself, and where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from typer.testing import CliRunner

import rasteret_dask as rd
from rasteret_dask.cli.app import app
from rasteret_dask.documents import read
from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.pipeline import config, foreach
from rasteret_dask.pipeline.run import run
from rasteret_dask.read.ledger import read_ledger

CUBE = {"bands": ["B04"], "crs": "EPSG:32633", "groupby": "solar_day"}


def said_by(path: Path) -> dict:
    return json.loads(path.with_name(f"{path.name}.run.json").read_text())


class Scene:
    """One file of the collection, which can be away."""

    def __init__(self, scenes: Path) -> None:
        self.path = sorted(scenes.parent.rglob("B04.tif"))[0]
        self.beside = self.path.with_name("away")

    def leave(self) -> None:
        self.path.rename(self.beside)

    def back(self) -> None:
        self.beside.rename(self.path)


@pytest.fixture
def scene(scenes, collection):
    return Scene(scenes)


@pytest.fixture
def recording(make, tmp_path):
    cube = {**CUBE, "on_error": "record", "ledger": f"{tmp_path}/ledger"}
    return make(cube=cube, outputs=[{"zarr": f"{tmp_path}/z.zarr"}])


# --- a store that is gone takes along what was known of its holes ---------------------------------
def test_a_mended_store_that_is_written_again_has_its_own_holes(recording, scene, tmp_path):
    store = tmp_path / "z.zarr"
    scene.leave()
    first = run(recording)
    assert first.failures > 0
    scene.back()
    assert rd.repair(f"{store}.run.json").failures == 0
    shutil.rmtree(store)
    scene.leave()
    again = run(recording, resume=True)
    assert again.failures == first.failures
    assert "repairs" not in said_by(store)
    scene.back()
    done = rd.repair(f"{store}.run.json")
    assert (done.holes, done.failures) == (first.failures, 0)
    assert done.computed > 0


def test_a_store_that_is_written_again_without_failures_has_none(recording, scene, tmp_path):
    scene.leave()
    assert run(recording).failures > 0
    scene.back()
    shutil.rmtree(tmp_path / "z.zarr")
    assert run(recording, resume=True).failures == 0
    ledger = said_by(tmp_path / "z.zarr")["ledger"]
    assert len(read_ledger(ledger["url"], ledger["run"])) == 0


def test_a_store_that_is_there_keeps_its_holes(make, scene, tmp_path):
    cube = {**CUBE, "on_error": "record", "ledger": f"{tmp_path}/ledger"}
    outputs = [{"zarr": f"{tmp_path}/z.zarr"}, {"png": f"{tmp_path}/z.png"}]
    made = make(cube=cube, outputs=outputs)
    scene.leave()
    first = run(made)
    scene.back()
    (tmp_path / "z.png").unlink()
    again = run(made, resume=True)
    assert (again.failures, again.computed) == (first.failures, 0)
    assert rd.repair(tmp_path / "z.zarr.run.json").holes == first.failures > 0


# --- units ---------------------------------------------------------------------------------------
def test_a_unit_that_never_began_is_made_from_its_record(make, tmp_path):
    field = shapely.box(12.0, 47.2, 12.002, 47.201)
    geopandas.GeoDataFrame({"code": ["a"]}, geometry=[field], crs=4326).to_parquet(
        tmp_path / "d.parquet"
    )
    each = {"table": f"{tmp_path}/d.parquet", "id": "code"}
    made = make(foreach=each, outputs=[{"cog": f"{tmp_path}/{{code}}.tif"}])
    shutil.move(tmp_path / "c", tmp_path / "away")
    assert [unit.state for unit in foreach.run_each(made).units] == ["failed"]
    shutil.move(tmp_path / "away", tmp_path / "c")
    run(config.from_file(tmp_path / "a.tif.run.json"))
    with rasterio.open(tmp_path / "a.tif") as image:
        first = image.read()
    foreach.run_each(made)
    with rasterio.open(tmp_path / "a.tif") as image:
        assert np.array_equal(image.read(), first, equal_nan=True)


def test_a_table_of_numbers_names_units_as_it_has_them(make, tmp_path):
    pd.DataFrame({"year": [2019, 2**53 + 1], "cloud": [10.5, 20.0]}).to_parquet(
        tmp_path / "years.parquet"
    )
    each = {"table": f"{tmp_path}/years.parquet", "id": "year"}
    made = make(foreach=each, outputs=[{"cog": f"{tmp_path}/{{year}}-{{cloud}}.tif"}])
    found = foreach.units(made)
    assert [unit.id for unit in found] == ["2019", str(2**53 + 1)]
    assert found[0].pipeline.outputs[0].cog == f"{tmp_path}/2019-10.5.tif"


# --- places ----------------------------------------------------------------------------------------
def test_a_place_that_cannot_be_written_is_said_by_name(make, tmp_path, monkeypatch):
    (tmp_path / "plain").write_text("")
    made = make(outputs=[{"cog": f"{tmp_path}/plain/x.tif"}])
    with pytest.raises(PipelineError, match=r"plain/x\.tif\.run\.json, cannot be"):
        run(made)
    document = made.model_dump(mode="json", exclude_none=True)
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["run", str(tmp_path / "p.yaml")])
    assert result.exit_code == 1
    assert "cannot be" in result.stderr
    assert "Traceback" not in result.stderr


# --- a record is JSON ------------------------------------------------------------------------------
def test_values_come_back_from_a_record_as_they_were(tmp_path):
    document = {"a": 1e-05, "b": "𠮷野 😀", "c": ["no", "2020-01-01", "1_000", None, True, 1e300]}
    (tmp_path / "r.json").write_text(json.dumps(document, indent=1))
    assert read(tmp_path / "r.json") == document


def test_a_record_may_be_long_and_a_pipeline_may_not(tmp_path):
    document = {"wkt": "x" * (5 * 2**20)}
    (tmp_path / "r.json").write_text(json.dumps(document))
    assert read(tmp_path / "r.json") == document
    (tmp_path / "p.yaml").write_text(f"wkt: {document['wkt']}")
    with pytest.raises(ConfigError, match="is larger than"):
        read(tmp_path / "p.yaml")


def test_a_key_given_twice_is_refused_in_braces_too(tmp_path):
    (tmp_path / "p.yaml").write_text('{"version": 1, "version": 2}')
    with pytest.raises(ConfigError, match="given twice"):
        read(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("{version: 1, name: a}")
    assert read(tmp_path / "p.yaml") == {"version": 1, "name": "a"}
