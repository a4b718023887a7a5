"""Pipeline files: what is refused before anything runs, and with which path."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from rasteret_dask.documents import assign, parse
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import check, config
from rasteret_dask.resources import folder

GOOD = parse(
    """
version: 1
collection: {load: ./there, subset: {date_range: [2023-08-01, 2023-08-31]}}
cube: {bands: [B04, B08], bbox: [15, 46, 16, 47], mask: {band: SCL, keep: [4, 5]}}
steps:
  - expression: {ndvi: "(B08 - B04) / (B08 + B04)"}
  - reduce: {how: median}
record: r.json
outputs:
  - zarr: a.zarr
  - cog: a.tif
  - png: a.png
"""
)


def make(*sets: str) -> config.Pipeline:
    pipeline = config.from_mapping(assign(GOOD, sets))
    check.check(pipeline, allow_custom=False)
    return pipeline


def test_a_good_one():
    pipeline = make()
    assert pipeline.collection.subset.date_range == ("2023-08-01", "2023-08-31")
    assert pipeline.masked
    assert not make("steps=[]", "outputs=[{zarr: a.zarr}]").masked


@pytest.mark.parametrize("path", sorted(folder("pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_pipelines_are_valid(path: Path):
    check.check(config.from_file(path))


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        # unknown keys, wrong types
        ("cub.bands=[B04]", "cub", "did you mean 'cube'"),
        ("version=2", "version", "must be 1"),
        ("cube.bands=B04", "cube.bands", "valid tuple"),
        ("cube.bands[1]=8", "cube.bands[1]", "valid string"),
        ("cube.bands=[]", "cube.bands", "at least 1"),
        ("cube.bands=[B04, B04]", "cube", "twice"),
        ("cube.bbox=[15, 46, 16]", "cube.bbox[3]", "missing"),
        ("cube.bbox=[15, 47, 16, 46]", "cube.bbox", "west, south, east, north"),
        ("cube.bbox=[500000, 5000000, 600000, 5100000]", "cube.bbox", "in degrees"),
        ("cube.resolution=-10", "cube.resolution", "greater than 0"),
        ("cube.groupby=[]", "cube.groupby", "at least 1"),
        ("cube.groupby=3", "cube.groupby", "solar_day"),
        ("cube.mosaic=best", "cube.mosaic", "'median'"),
        ("cube.resampling=magic", "cube.resampling", "'bilinear'"),
        ("cube.resampling={B04: magic}", "cube.resampling.B04", "'bilinear'"),
        ("cube.overviews=-1", "cube.overviews", "greater than or equal"),
        ("cube.overviews=all", "cube.overviews", "'auto'"),
        ("cube.mask.dilate=-3", "cube.mask.dilate", "greater than or equal"),
        ("cube.harmonize=landsat", "cube.harmonize", "'sentinel-2'"),
        ("cube.chunks.z=1", "cube.chunks.z", "known here: time, y, x"),
        ("collection.subset.cloud_cover_lt=x", "collection.subset.cloud_cover_lt", "number"),
        ("steps=3", "steps", "valid tuple"),
        ("steps[0]=3", "steps[0]", "exactly one of the keys expression, indices, reduce"),
        (
            "steps[0]={median: time}",
            "steps[0]",
            "exactly one of the keys expression, indices, reduce",
        ),
        ("steps[1].reduce.how=mediam", "steps[1].reduce.how", "'median'"),
        ("steps[1].reduce.dim=x", "steps[1].reduce.dim", "'time'"),
        ("steps[1].reduce.quick=true", "steps[1].reduce.quick", "unknown key"),
        ("steps[0].expression.ndvi=3", "steps[0].expression.ndvi", "valid string"),
        ("outputs[0].zar=x", "outputs[0].zar", "unknown key"),
        ("outputs=[]", "outputs", "at least 1"),
        (
            "outputs[1]={tif: a.tif}",
            "outputs[1]",
            "exactly one of the keys zarr, cog, png, parquet",
        ),
        # combinations
        ("collection.build={static_catalog: c, name: n}", "collection", "both load and build"),
        ("collection={}", "collection", "none is given"),
        ("collection={build: {name: n}}", "collection.build", "none is given"),
        ("collection={build: {name: n, stac_api: u}}", "collection.build", "needs `collection`"),
        (
            "collection={build: {name: n, stac_api: u, dataset: d}}",
            "collection.build",
            "both dataset and stac_api",
        ),
        ("cube.mask.drop=[3]", "cube.mask", "both keep and drop"),
        ("cube.mask={band: SCL}", "cube.mask", "none is given"),
        ("cube.masked=false", "cube.masked", "as if they were measured"),
        ("steps[1].reduce.how=percentile", "steps[1].reduce", "`q`"),
        ("steps[1].reduce.q=5", "steps[1].reduce", "`q`"),
        # what an expression, a step or an output needs is not there
        ("steps[0].expression.ndvi=B08 - B05", "steps[0].expression.ndvi", "'B05'"),
        ("steps[0].expression.ndvi=B08 - SCL", "steps[0].expression.ndvi", "from cube.bands"),
        ("steps[0].expression.ndvi=open('x')", "steps[0].expression.ndvi", "no function"),
        ("steps[0].keep=[B02]", "steps[0].keep[0]", "'B02'"),
        ("steps[2].reduce.how=mean", "steps[2]", "no time dimension left"),
        ("steps=[]", "outputs[1]", "time"),
        ("outputs=[{png: a.png}, {zarr: a.png}]", "outputs[1].zarr", "twice"),
        ("outputs[1].bands=[B04]", "outputs[1].bands[0]", "there are ndvi"),
        ("outputs[2].colormap=jet", "outputs[2].colormap", "there are"),
        ("outputs[2].vmin=3", "outputs[2]", "vmin and vmax"),
        ("outputs[2]={png: a.png, vmin: 3, vmax: 2}", "outputs[2]", "below"),
        (
            "steps[0].keep=[B04]",
            "outputs[2].bands",
            "one variable",
        ),
        # indices, composites, periods, tables, code
        ("steps[0]={indices: [ndvy]}", "steps[0].indices[0]", "there are ndvi, evi"),
        ("steps[0]={indices: [nbr]}", "steps[0].indices[0]", "nothing here is swir22"),
        ("steps[0]={indices: [ndvi], bands: {nier: B08}}", "steps[0].bands.nier", "no role"),
        ("steps[0]={indices: [ndvi], bands: {nir: B8A}}", "steps[0].bands.nir", "'B8A'"),
        ("steps[0]={indices: [savi]}", "steps[0].indices[0]", "cube.scale"),
        ("steps[1]={composite: {by: evi}}", "steps[1].composite.by", "there are ndvi"),
        ("steps[1].reduce.looks=ndvi", "steps[1].reduce.looks", "already"),
        ("steps[1]={resample: {period: monthly, how: mean}}", "steps[1].resample.period", "match"),
        ("steps[2]={resample: {period: 1MS, how: mean}}", "steps[2]", "no time dimension"),
        ("steps[2]={zonal: {polygons: p, stats: [p101]}}", "steps[2].zonal.stats[0]", "p0 … p100"),
        ("steps[2]={zonal: {polygons: p}}", "outputs[0]", "made a table of it"),
        ("outputs[0]={csv: a.csv}", "outputs[0]", "end with a zonal or sample step"),
        ("outputs=[{stac: a.json}]", "outputs", "describes the other outputs"),
        ("outputs[0].zarr=r.json", "outputs[0].zarr", "twice"),
        (
            "steps[0]={custom: {function: os:remove, variables: [x]}}",
            "steps[0].custom.function",
            "--allow-custom",
        ),
        ("steps[0]={custom: {function: os, variables: [x]}}", "steps[0].custom.function", "match"),
    ],
)
def test_refused_with_the_path_of_the_key(change, path, words):
    with pytest.raises(ConfigError) as caught:
        make(change)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_later_expressions_see_earlier_ones():
    make(
        'steps[0].expression={ndvi: "(B08 - B04) / (B08 + B04)", green: "ndvi > 0.5"}',
        "outputs=[{zarr: z}]",
    )


def test_a_dataset_with_a_static_catalogue():
    build = "{dataset: earthsearch/sentinel-2-l2a, static_catalog: c.json, name: n}"
    assert make(f"collection={{build: {build}}}").collection.build.static_catalog == "c.json"


def test_the_environment_fills_values(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text((folder("pipelines") / "ndvi_median.yaml").read_text())
    pipeline = config.from_file(
        file,
        ["outputs=[{zarr: '${OUT}/x.zarr'}]", "cube.resolution=${RES}"],
        {"OUT": "/o", "RES": "20"},
    )
    assert pipeline.outputs[0].zarr == "/o/x.zarr"
    assert pipeline.cube.resolution == 20.0


def test_there_is_a_json_schema():
    schema = config.schema()
    assert set(schema["required"]) == {"version", "collection", "cube"}
    for path in sorted(folder("pipelines").glob("*.yaml")):
        jsonschema.validate(parse_plain(path), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**parse_plain(path), "cubes": {}}, schema)


def test_short_forms_are_the_long_ones_and_editors_know_both():
    long = {
        "version": 1,
        "collection": {"load": "x"},
        "cube": {"bands": ["B04"]},
        "steps": [{"resample": {"period": "1YS", "how": "percentile", "q": 90}}],
        "outputs": [{"zarr": "x.zarr"}],
    }
    short = {key: value for key, value in long.items() if key != "outputs"} | {
        "steps": [{"resample": "1YS", "how": "percentile", "q": 90}],
        "output": {"zarr": "x.zarr"},
    }
    assert config.from_mapping(short) == config.from_mapping(long)
    for form in (short, long):
        jsonschema.validate(form, config.schema())
    for wrong in ({**short, "outputs": long["outputs"]}, {**short, "output": {"zar": "x"}}):
        with pytest.raises(ConfigError):
            config.from_mapping(wrong)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, config.schema())


def parse_plain(path: Path) -> dict:
    """As an editor sees it: dates are text."""
    return json.loads(json.dumps(parse(path.read_text()), default=str))


def test_the_published_schema_is_up_to_date():
    published = Path(__file__).parents[3] / "docs" / "schema" / "pipeline.schema.json"
    assert json.loads(published.read_text()) == config.schema(), "rasteret-dask schema > the file"
