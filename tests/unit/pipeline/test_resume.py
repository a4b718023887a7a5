"""What `--resume`, a record and `repair` may take for the same run, and what they must not lose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr

import rasteret_dask as rd
from rasteret_dask.documents import parse
from rasteret_dask.errors import ConfigError, PipelineError, RasteretError
from rasteret_dask.pipeline import config, foreach, record
from rasteret_dask.pipeline.run import explain, run

FIELD = shapely.box(12.00000012345678, 47.2, 12.00212345678901, 47.2012)
CUBE = parse("{bands: [B04, B08], crs: EPSG:32633, groupby: solar_day}")


def record_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.run.json")


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as image:
        return image.read()


# --- a record is a pipeline ----------------------------------------------------------------------
def test_the_order_of_expressions_survives_a_record(make, tmp_path):
    steps = [{"expression": {"b": "B04 + 0", "a": "b * 2"}}, {"reduce": {"how": "mean"}}]
    run(make(cube=CUBE, steps=steps))
    again = config.from_file(record_of(tmp_path / "out.tif"))
    assert run(again, resume=True).reused
    run(again)
    with rasterio.open(tmp_path / "out.tif") as image:
        assert image.descriptions == ("b", "a")


@pytest.fixture
def units(make, tmp_path):
    """A pipeline over one district; call it with keys to change."""
    frame = geopandas.GeoDataFrame({"code": ["a"], "n": [1]}, geometry=[FIELD], crs=4326)
    frame.to_parquet(tmp_path / "d.parquet")
    each = {"table": f"{tmp_path}/d.parquet", "id": "code"}

    def pipeline(**changes):
        return make(
            **{"foreach": each, "outputs": [{"cog": f"{tmp_path}/{{code}}.tif"}], **changes}
        )

    return pipeline


def test_a_units_record_crops_as_the_unit_did(units, tmp_path):
    foreach.run_each(units())
    first = pixels(tmp_path / "a.tif")
    again = config.from_file(record_of(tmp_path / "a.tif"))
    assert run(again, resume=True).reused
    run(again)
    assert np.array_equal(pixels(tmp_path / "a.tif"), first, equal_nan=True)
    whole = {"bbox": [11.9, 47.1, 12.1, 47.3]}
    assert explain(again)["bytes"] <= explain(make_whole(again, whole))["bytes"]
    run(make_whole(again, whole))
    assert pixels(tmp_path / "a.tif").size > first.size


def make_whole(pipeline, cube):
    said = pipeline.model_dump(mode="json", exclude_none=True)
    return config.from_mapping({**said, "cube": {**said["cube"], **cube}})


def test_a_table_of_a_unit_is_made_again_from_its_record(units, tmp_path):
    outputs = [{"parquet": f"{tmp_path}/{{code}}.parquet"}]
    foreach.run_each(units(steps=[{"zonal": {"stats": ["mean"]}}], outputs=outputs))
    first = geopandas.pd.read_parquet(tmp_path / "a.parquet")
    run(config.from_file(record_of(tmp_path / "a.parquet")))
    assert geopandas.pd.read_parquet(tmp_path / "a.parquet").equals(first)
    assert list(first["code"].unique()) == ["a"]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32633"])
def test_a_units_record_is_the_unit_whatever_its_coordinates(units, tmp_path, crs):
    field = geopandas.GeoSeries([FIELD], crs=4326).to_crs(crs)
    geopandas.GeoDataFrame({"code": ["a"]}, geometry=field).to_parquet(tmp_path / "d.parquet")
    cube = {"bands": ["B04"], "crs": "EPSG:32633", "groupby": "solar_day"}
    ledger = {"on_error": "record", "ledger": f"{tmp_path}/ledger"}
    outputs = [{"zarr": f"{tmp_path}/{{code}}.zarr"}]
    foreach.run_each(units(cube={**cube, **ledger}, outputs=outputs))
    path = record_of(tmp_path / "a.zarr")
    assert rd.repair(path).failures == 0
    assert run(config.from_file(path), resume=True).reused


def test_areas_come_back_to_the_last_bit(tmp_path):
    numbers = np.random.default_rng(3).random((2000, 2)) * [1e-3, 1.0]
    frame = geopandas.GeoDataFrame(geometry=shapely.points(numbers), crs=3857)
    said = json.loads(json.dumps(record.said_of_area(frame, [])))
    back = record.area_of(said)
    assert np.array_equal(shapely.get_coordinates(back.geometry.to_numpy()), numbers)
    assert back.crs == frame.crs


# --- what decides the result ---------------------------------------------------------------------
@pytest.mark.parametrize("change", ["label", "crs", "unused"])
def test_a_vector_file_that_changed_is_another_input(make, tmp_path, change):
    frame = geopandas.GeoDataFrame(
        {"id": [1], "label": ["x"], "note": ["n"]}, geometry=[shapely.Point(12.0, 47.2)], crs=4326
    )
    frame.to_parquet(tmp_path / "p.parquet")
    points = {"points": f"{tmp_path}/p.parquet", "id": "id", "keep": ["label"]}
    outputs = [{"parquet": f"{tmp_path}/o.parquet"}]
    made = make(steps=[{"sample": points}], outputs=outputs)
    run(made)
    assert run(made, resume=True).reused
    if change == "label":
        frame = frame.assign(label="y")
    elif change == "crs":
        frame = frame.set_crs(4258, allow_override=True)
    else:
        frame = frame.assign(note="m")
    frame.to_parquet(tmp_path / "p.parquet")
    assert run(made, resume=True).reused == (change == "unused")


def test_the_file_that_chooses_what_is_stacked_counts_too(make, tmp_path, collection):
    def choose(*shapes):
        geopandas.GeoDataFrame(geometry=list(shapes), crs=4326).to_parquet(tmp_path / "g.parquet")

    west, south, east, north = collection.bounds
    edges = [shapely.box(x, south, x + 1e-4, north) for x in (west, east - 1e-4)]
    assert len(collection.subset(geometries=edges[:1])) < len(collection)
    choose(edges[0])
    other = {"load": f"{tmp_path}/c", "subset": {"geometries": f"{tmp_path}/g.parquet"}}
    steps = [{"reduce": {"how": "mean"}}, {"stack": {"collection": other, "bands": ["B08"]}}]
    made = make(steps=steps)
    run(made)
    assert run(made, resume=True).reused
    choose(*edges)
    assert not run(made, resume=True).reused


# --- what is there is kept -----------------------------------------------------------------------
@pytest.mark.parametrize("state", ["done", "failed"])
def test_an_outage_does_not_take_the_record_away(make, tmp_path, state):
    run(make())
    path = record_of(tmp_path / "out.tif")
    before = json.loads(path.read_text()) | {"state": state}
    path.write_text(json.dumps(before))
    shutil.move(tmp_path / "c", tmp_path / "away")
    with pytest.raises(RasteretError):
        run(make(), resume=True)
    assert json.loads(path.read_text()) == before
    with pytest.raises(RasteretError):  # without resume it is this run that counts
        run(make())
    assert json.loads(path.read_text())["state"] == "failed"
    path.write_text(json.dumps(before))
    shutil.move(tmp_path / "away", tmp_path / "c")
    assert run(make(), resume=True).reused == (state == "done")


def test_outputs_that_were_written_are_kept_when_a_later_one_failed(make, tmp_path):
    outputs = [
        {"zarr": f"{tmp_path}/z.zarr"},
        {"png": f"{tmp_path}/z.png"},
        {"cog": f"{tmp_path}/z.tif"},
    ]
    (tmp_path / "z.tif").mkdir()
    with pytest.raises(PipelineError, match=r"z\.tif"):
        run(make(outputs=outputs))
    (tmp_path / "z.tif").rmdir()
    times = [(tmp_path / name).stat().st_mtime_ns for name in ("z.zarr/zarr.json", "z.png")]
    account = run(make(outputs=outputs), resume=True)
    assert (account.computed, account.reused) == (0, False)
    assert times == [(tmp_path / n).stat().st_mtime_ns for n in ("z.zarr/zarr.json", "z.png")]
    assert {"z.zarr", "z.png", "z.tif"} <= {p.name for p in tmp_path.iterdir()}
    said = json.loads(record_of(tmp_path / "z.zarr").read_text())
    assert [one["kind"] for one in said["outputs"]] == ["zarr", "png", "cog"]
    assert run(make(outputs=outputs), resume=True).reused


def test_an_output_that_is_gone_is_written_again(make, tmp_path):
    outputs = [{"zarr": f"{tmp_path}/z.zarr"}, {"cog": f"{tmp_path}/z.tif"}]
    run(make(outputs=outputs))
    first = pixels(tmp_path / "z.tif")
    (tmp_path / "z.tif").unlink()
    account = run(make(outputs=outputs), resume=True)
    assert (account.reused, account.computed) == (False, 0)
    assert np.array_equal(pixels(tmp_path / "z.tif"), first, equal_nan=True)
    shutil.rmtree(tmp_path / "z.zarr")
    account = run(make(outputs=outputs), resume=True)
    assert account.computed == account.regions > 0


# --- tables of units -----------------------------------------------------------------------------
def test_a_row_without_a_geometry_is_refused_before_anything_runs(units, tmp_path):
    for nothing in (None, shapely.Polygon()):
        frame = geopandas.GeoDataFrame({"code": ["a", "b"]}, geometry=[FIELD, nothing], crs=4326)
        frame.to_parquet(tmp_path / "d.parquet")
        with pytest.raises(ConfigError, match="b has no geometry") as caught:
            foreach.run_each(units())
        assert caught.value.path == "foreach.table"
    assert not (tmp_path / "a.tif").exists()
    each = {"table": f"{tmp_path}/d.parquet", "id": "code", "crop": False}
    assert [unit.area for unit in foreach.units(units(foreach=each))] == [None, None]


def test_a_geometry_may_be_called_anything(units, tmp_path):
    frame = geopandas.read_parquet(tmp_path / "d.parquet").rename_geometry("geom")
    frame.to_parquet(tmp_path / "d.parquet")
    [unit] = foreach.units(units())
    assert unit.area is not None
    assert unit.area.geometry.iloc[0].equals(FIELD)


def test_zones_without_a_geometry_are_empty_rows(make, tmp_path):
    frame = geopandas.GeoDataFrame({"code": ["a", "b"]}, geometry=[FIELD, None], crs=4326)
    frame.to_parquet(tmp_path / "d.parquet")
    zonal = {"polygons": f"{tmp_path}/d.parquet", "id": "code", "stats": ["count"]}
    steps = [{"reduce": {"how": "mean"}}, {"zonal": zonal}]
    run(make(steps=steps, outputs=[{"parquet": f"{tmp_path}/o.parquet"}]))
    counts = geopandas.read_parquet(tmp_path / "o.parquet").set_index("code")["B04_count"]
    assert counts["b"] == 0


def test_what_was_made_of_a_store_before_it_was_mended_is_written_again(make, tmp_path):
    outputs = [
        {"zarr": f"{tmp_path}/z.zarr"},
        {"cog": f"{tmp_path}/z.tif"},
        {"png": f"{tmp_path}/z.png"},
    ]
    run(make(outputs=outputs))
    path = record_of(tmp_path / "z.zarr")
    # As a repair leaves it that was killed after the store was mended.
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stale": True, "repairs": {}}))
    (tmp_path / "z.png").unlink()
    before = (tmp_path / "z.tif").stat().st_mtime_ns
    account = run(make(outputs=outputs), resume=True)
    assert account.computed == 0
    assert (tmp_path / "z.tif").stat().st_mtime_ns > before
    said = json.loads(path.read_text())
    assert "stale" not in said
    assert said["repairs"] == {}


def test_a_store_that_cannot_be_read_back_is_a_failure_without_a_strangers_words(
    make, tmp_path, monkeypatch
):
    class Refused(Exception):
        """As Azure's, which is no OSError."""

    def refuse(*_, **__):
        raise Refused("https://host/x?sig=SECRET")

    monkeypatch.setattr(xr, "open_zarr", refuse)
    outputs = [{"zarr": f"{tmp_path}/z.zarr"}, {"cog": f"{tmp_path}/z.tif"}]
    with pytest.raises(PipelineError, match="read back: Refused") as caught:
        run(make(outputs=outputs))
    assert "SECRET" not in str(caught.value)
    monkeypatch.undo()
    assert run(make(outputs=outputs), resume=True).computed == 0
