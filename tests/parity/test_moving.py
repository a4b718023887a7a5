"""The page for people who move over (docs/howto/moving.md): every row is run on both sides, with the words that stand there."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

import rasteret_dask as rd
from rasteret_dask.testing.catalog import write_demo_catalog

stackstac = pytest.importorskip("stackstac")

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "moving.md"
# Keywords that odc.stac.load hands on, and what else the columns name.
BESIDE = {
    "odc-stac": {"use_overviews", "nodata", "configure_rio"},
    "stackstac": {"stackstac.mosaic"},
    "here": {"rd.repair", "Collection.explain", "ds.rasteret.explain"},
}


def rows() -> list[list[str]]:
    """Cells of the first table: here, odc-stac, stackstac, lazycogs, rasteret."""
    text = PAGE.read_text()
    table = text[text.index("| here |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def names(cell: str) -> set[str]:
    """Words in code, without values in brackets."""
    words = re.findall(r"`([^`]+)`", re.sub(r"\([^()]*\)", "", cell))
    return {w.split("=")[0] for w in words if not w.startswith('"')}


@pytest.mark.parametrize(
    ("column", "function", "who"),
    [
        (0, rd.Collection.get_xarray, "here"),
        (1, odc.stac.load, "odc-stac"),
        (2, stackstac.stack, "stackstac"),
    ],
)
def test_every_word_of_the_table_is_an_argument(column: int, function: Any, who: str) -> None:
    known = set(inspect.signature(function).parameters) | BESIDE[who]
    if who == "here":
        known |= set(inspect.signature(rd.Collection.subset).parameters)
    used = set().union(*(names(row[column]) for row in rows()))
    assert {w for w in used if w not in known} == set()
    assert len(used) > 10


def test_no_argument_of_ours_is_left_out() -> None:
    told = set().union(*(names(row[0]) for row in rows()))
    ours = set(inspect.signature(rd.Collection.get_xarray).parameters)
    aside = {"self", "filters", "geometry_column", "target_crs"}
    assert ours - aside - told == set()


# --- each row on both sides ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_catalog(
        tmp_path_factory.mktemp("moving"),
        size=128,
        blocksize=64,
        dates=("2023-07-03", "2023-07-08"),
    )


@pytest.fixture(scope="module")
def items(catalog: Path) -> list[pystac.Item]:
    """Those of one tile."""
    found = pystac.Catalog.from_file(str(catalog)).get_items(recursive=True)
    out = []
    for item in sorted(found, key=lambda i: (i.datetime, i.id)):
        item.make_asset_hrefs_absolute()
        for asset in item.assets.values():
            for name in ("proj:shape", "proj:transform", "proj:code"):
                asset.extra_fields.pop(name, None)
        with rasterio.open(item.assets["red"].href) as file:
            if file.crs.to_epsg() == 32633:
                out.append(item)
    tile = out[0].bbox
    return [item for item in out if item.bbox == tile]


@pytest.fixture(scope="module")
def collection(items: list[pystac.Item], tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    place = tmp_path_factory.mktemp("workspace")
    return rd.build_from_items(items, name="moving", workspace_dir=place)


@pytest.fixture(scope="module")
def whole(collection: rd.Collection) -> xr.Dataset:
    return collection.get_xarray(bands=["red"]).load()


def by_odc(items: list[pystac.Item], **how: Any) -> xr.Dataset:
    options: dict[str, Any] = {"bands": ["red"], "use_overviews": False}
    if not {"geobox", "like"} & set(how):
        options |= {"crs": "EPSG:32633", "resolution": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return odc.stac.load(items, **{**options, **how})


def by_stackstac(items: list[pystac.Item], **how: Any) -> xr.DataArray:
    options = {
        "assets": ["red"],
        "rescale": False,
        "fill_value": np.uint16(0),
        "dtype": "uint16",
        **how,
    }
    options |= {} if "xy_coords" in how else {"xy_coords": "center"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stackstac.stack(items, **options).compute()


def same(mine: xr.Dataset, theirs: xr.Dataset) -> None:
    assert mine.sizes["time"] == theirs.sizes["time"]
    for axis in ("x", "y"):
        np.testing.assert_allclose(mine[axis].values, theirs[axis].values, rtol=0, atol=1e-6)
    assert np.array_equal(mine.red.values, theirs.red.values)
    assert (mine.red.values != 0).any()


def box_of(cube: xr.Dataset, rows: slice, cols: slice) -> tuple[float, float, float, float]:
    """In lon/lat, within some pixels."""
    part = cube.isel(y=rows, x=cols)
    return part.rio.transform_bounds("OGC:CRS84")


# Thrice the pixel: the middle of a pixel is the middle of one of the file's, and no tie decides.
COARSE = {"crs": "EPSG:32633", "resolution": 30}
ROWS: dict[str, Any] = {
    "everything": lambda w: ({}, {}),
    "crs, resolution": lambda w: ({**COARSE, "overviews": "off"}, COARSE),
    "geobox": lambda w: ({"geobox": w.isel(x=slice(7, 57), y=slice(9, 49)).odc.geobox},) * 2,
    "like": lambda w: ({"like": w.isel(x=slice(5, 60), y=slice(9, 50))},) * 2,
    "bbox": lambda w: ({"bbox": box_of(w, slice(10, 60), slice(20, 70))},) * 2,
    "chunks": lambda w: ({"chunks": {"y": 50, "x": 30}},) * 2,
    "groupby time": lambda w: ({"groupby": "time"},) * 2,
    "groupby solar_day": lambda w: ({"groupby": "solar_day"},) * 2,
    "groupby id": lambda w: ({"groupby": "id"},) * 2,
    "groupby a property": lambda w: ({"groupby": "platform"},) * 2,
    "resampling by band": lambda w: (
        {**COARSE, "resampling": {"red": "max"}, "overviews": "off"},
        {**COARSE, "resampling": {"red": "max"}},
    ),
    "nodata, dtype": lambda w: (
        {"dtype": "float32", "fill_value": 0},
        {"dtype": "float32", "nodata": 0},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_odc_stacs_words_give_odc_stacs_cube(
    collection: rd.Collection, items: list[pystac.Item], whole: xr.Dataset, row: str
) -> None:
    mine, theirs = ROWS[row](whole)
    cube, other = collection.get_xarray(bands=["red"], **mine), by_odc(items, **theirs)
    if "resampling" in theirs:
        # Where a pixel's middle is beyond the file, GDAL's area methods take what overlaps, and ours nothing.
        inner = {"x": slice(1, -1), "y": slice(1, -1)}
        cube, other = cube.isel(inner), other.isel(inner)
    same(cube, other)


def test_a_polygon_crops_on_both_sides_and_masks_here(
    collection: rd.Collection, items: list[pystac.Item], whole: xr.Dataset
) -> None:
    west, south, east, north = box_of(whole, slice(10, 80), slice(20, 90))
    shape = shapely.Polygon([(west, south), (east, south), ((west + east) / 2, north)])
    mine = collection.get_xarray(shape, ["red"]).load()
    theirs = by_odc(items, geopolygon=Geometry(shape, "EPSG:4326"))
    shared = theirs.sel(x=mine.x, y=mine.y, method="nearest", tolerance=1e-3)
    inside = mine.red.values != 0
    assert 0.3 < inside.mean() < 0.7
    assert np.array_equal(mine.red.values[inside], shared.red.values[inside])


def test_properties_become_coordinates(collection: rd.Collection, items: list[pystac.Item]) -> None:
    mine = collection.get_xarray(bands=["red"], properties=["eo:cloud_cover"])
    theirs = by_odc(items, with_properties=["eo:cloud_cover"])
    assert np.allclose(mine["eo:cloud_cover"].values, np.asarray(theirs["eo_cloud_cover"], float))
    stack = by_stackstac(items, epsg=32633, resolution=10, properties=["eo:cloud_cover"])
    assert np.allclose(mine["eo:cloud_cover"].values, np.ravel(stack["eo:cloud_cover"].values))


def test_files_that_fail_are_nodata_where_that_was_said(
    catalog: Path, items: list[pystac.Item], tmp_path: Path
) -> None:
    collection = rd.build_from_items(items, name="holes", workspace_dir=tmp_path)
    url = items[0].assets["red"].href
    Path(url).rename(f"{url}.away")
    try:
        with pytest.raises(rd.RasteretError):
            collection.get_xarray(bands=["red"]).compute()
        how = {"on_error": "record", "ledger": str(tmp_path / "ledger")}
        mine = collection.get_xarray(bands=["red"], **how).compute()
        geobox = GeoBox.from_bbox(mine.rio.bounds(), "EPSG:32633", resolution=10)
        theirs = by_odc(items, fail_on_error=False, geobox=geobox)
        same(mine, theirs)
        assert not mine.red.values[0].any()
    finally:
        Path(f"{url}.away").rename(url)


STACKS: dict[str, Any] = {
    "assets, epsg, resolution": ({}, {}),
    "resolution": ({**COARSE, "overviews": "off"}, {"resolution": 30}),
    "chunksize": ({"chunks": {"y": 50, "x": 50}}, {"chunksize": 50}),
    "resampling": (
        {**COARSE, "resampling": "max", "overviews": "off"},
        {"resolution": 30, "resampling": rasterio.enums.Resampling.max},
    ),
    "dtype": ({"dtype": "float64", "fill_value": 0}, {"dtype": "float64"}),
    "fill_value": ({"masked": True}, {"dtype": "float64", "fill_value": np.nan}),
    "sortby_date": ({}, {"sortby_date": "asc"}),
}


@pytest.mark.parametrize("row", STACKS)
def test_stackstacs_words_give_stackstacs_array(
    collection: rd.Collection, items: list[pystac.Item], row: str
) -> None:
    mine, theirs = STACKS[row]
    cube = collection.get_xarray(bands=["red"], groupby="id", **mine)
    stack = by_stackstac(items, **{"epsg": 32633, "resolution": 10, **theirs})
    if "resampling" in theirs:
        # As above.
        cube = cube.isel(x=slice(1, -1), y=slice(1, -1))
    part = stack.sel(band="red").reindex(x=cube.x, y=cube.y, method="nearest", tolerance=1e-3)
    assert np.array_equal(cube.red.values, part.values, equal_nan=True)


def test_bounds_in_the_crs_are_a_geobox_and_in_degrees_a_bbox(
    collection: rd.Collection, items: list[pystac.Item], whole: xr.Dataset
) -> None:
    part = whole.isel(x=slice(10, 60), y=slice(20, 50))
    how = {"epsg": 32633, "resolution": 10}
    stack = by_stackstac(items, bounds=part.rio.bounds(), **how).sel(band="red")
    assert np.array_equal(stack.values, part.red.values)
    mine = collection.get_xarray(bands=["red"], geobox=part.odc.geobox)
    assert np.array_equal(mine.red.values, part.red.values)
    box = box_of(whole, slice(20, 50), slice(10, 60))
    degrees = by_stackstac(items, bounds_latlon=box, **how).sel(band="red")
    mine = collection.get_xarray(bands=["red"], bbox=box)
    shared = degrees.reindex(x=mine.x, y=mine.y, method="nearest", tolerance=1e-3, fill_value=0)
    both = (shared.values != 0) & (mine.red.values != 0)
    assert both.mean() > 0.9
    assert np.array_equal(shared.values[both], mine.red.values[both])
