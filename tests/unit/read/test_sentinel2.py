"""One acquisition of Sentinel-2 as four catalogues publish it: the same reflectance, whatever was done to its numbers.

The rules of the semantics page as a table that is walked through, from STAC items with the fields that each catalogue writes, through a
build, to pixels. Truth is a picture of reflectances that every publication is made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

SIDE = 64
AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
TRUTH = np.random.default_rng(8).integers(1, 9000, (SIDE, SIDE))
TRUTH[0, :5] = (1, 999, 1000, 1001, 8999)
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[3:9, 5:20] = True

V1 = {"scale": 0.0001, "offset": -0.1, "nodata": 0, "data_type": "uint16"}
OLD = {**V1, "offset": 0}
BARE: dict[str, Any] = {}

PUBLISHED = [
    # collection, baseline, earthsearch:boa_offset_applied, raster:bands, what the file holds beyond the truth, the offset in DN
    ("sentinel-2-l2a", "05.09", True, V1, 0, 0),
    ("sentinel-2-l2a", "04.00", True, V1, 0, 0),
    ("sentinel-2-l2a", "05.10", False, V1, 1000, -1000),
    ("sentinel-2-l2a", "04.00", False, OLD, 1000, -1000),
    ("sentinel-2-l2a", "02.14", False, OLD, 0, 0),
    ("sentinel-2-l2a", "03.01", False, V1, 0, 0),
    ("sentinel-2-c1-l2a", "05.00", None, V1, 1000, -1000),
    ("sentinel-2-c1-l2a", "05.10", None, V1, 1000, -1000),
    ("sentinel-2-c1-l2a", "05.11", False, V1, 1000, -1000),
    ("sentinel-2-c1-l2a", "02.14", None, OLD, 0, 0),
    # Planetary Computer says nothing of scales.
    ("sentinel-2-l2a", "05.09", None, BARE, 1000, -1000),
    ("sentinel-2-l2a", "03.00", None, BARE, 0, 0),
]


def publish(
    path: Path, number: int, row: tuple[Any, ...], *, key: str = "red", day: int = 3
) -> dict[str, Any]:
    """A STAC item and its file."""
    collection, baseline, applied, told, beyond, _ = row
    image = np.where(HOLE, 0, TRUTH + beyond).astype(np.uint16)
    file = make_cog(
        path / f"{number}.tif", image, transform=AT, nodata=0, blocksize=64, overviews=0
    )
    properties = {"datetime": f"2023-07-{day:02d}T10:00:00Z", "s2:processing_baseline": baseline}
    if applied is not None:
        properties["earthsearch:boa_offset_applied"] = applied
    asset: dict[str, Any] = {"href": str(file), "roles": ["data", "reflectance"]}
    if told:
        asset["raster:bands"] = [told]
    corners = [[15, 46], [16, 46], [16, 47], [15, 47], [15, 46]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number}",
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [15, 46, 16, 47],
        "properties": properties,
        "assets": {key: asset},
        "links": [],
    }


def build(path: Path, items: list[dict[str, Any]], band_map: dict[str, str]) -> rd.Collection:
    return rd.build_from_items(items, name="s2", band_map=band_map, workspace_dir=path / "ws")


# float32 of 0.1 and of 0.0001 are each off by up to half a unit in their last place.
CLOSE = {"rtol": 0.0, "atol": 1.5e-7}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    """All publications in one collection, a day for each."""
    path = tmp_path_factory.mktemp("published")
    items = [publish(path, k, row, day=k + 1) for k, row in enumerate(PUBLISHED)]
    return build(path, items, {"B04": "red"})


@pytest.mark.parametrize("masked", [True, False])
def test_scaled_every_publication_is_the_same_reflectance(
    together: rd.Collection, masked: bool
) -> None:
    cube = together.get_xarray(bands=["B04"], scale=True, masked=masked)
    expected = np.where(HOLE, np.nan, TRUTH * 1e-4)
    for k, row in enumerate(PUBLISHED):
        np.testing.assert_allclose(cube.B04.values[k], expected, err_msg=str(row), **CLOSE)
        assert np.array_equal(np.isnan(cube.B04.values[k]), HOLE)
    assert cube.s2_offset.values.tolist() == [row[-1] for row in PUBLISHED]
    assert all(cube.s2_offset_rule.values)


def test_harmonised_every_publication_is_the_same_number(together: rd.Collection) -> None:
    cube = together.get_xarray(bands=["B04"], harmonize="sentinel-2")
    expected = np.where(HOLE, -32768, TRUTH)
    assert cube.B04.dtype == np.int16
    assert all(np.array_equal(cube.B04.values[k], expected) for k in range(len(PUBLISHED)))
    # A median over baselines is the picture itself: nothing of 1000 is left in it.
    masked = together.get_xarray(bands=["B04"], harmonize="sentinel-2", masked=True)
    assert np.array_equal(
        masked.B04.median("time").values, np.where(HOLE, np.nan, TRUTH), equal_nan=True
    )


@pytest.mark.parametrize("method", ["mean", "median", "first", "max"])
def test_a_mosaic_across_baselines_is_consistent(together: rd.Collection, method: str) -> None:
    cube = together.get_xarray(bands=["B04"], groupby="1MS", mosaic=method, scale=True)
    expected = np.where(HOLE, np.nan, TRUTH * 1e-4)
    np.testing.assert_allclose(cube.B04.values[0], expected, **CLOSE)


@pytest.mark.parametrize("name", ["B04", "red", "rot"])
def test_a_band_is_a_reflectance_by_its_name_or_its_assets(tmp_path: Path, name: str) -> None:
    items = [publish(tmp_path, k, PUBLISHED[k], day=k + 1) for k in (0, 2)]
    cube = build(tmp_path, items, {name: "red"}).get_xarray(bands=[name], scale=True)
    expected = np.where(HOLE, np.nan, TRUTH * 1e-4)
    for k in range(2):
        np.testing.assert_allclose(cube[name].values[k], expected, **CLOSE)


def test_what_may_be_no_reflectance_is_not_harmonised_in_silence(tmp_path: Path) -> None:
    item = publish(tmp_path, 0, PUBLISHED[2], key="picture")
    collection = build(tmp_path, [item], {"picture": "picture"})
    with pytest.raises(rd.errors.ArgumentError, match="picture"):
        collection.get_xarray(bands=["picture"], harmonize="sentinel-2")


def test_other_sensors_beside_sentinel2_keep_what_they_declare(tmp_path: Path) -> None:
    image = np.where(HOLE, 0, np.rint((TRUTH * 1e-4 + 0.2) / 0.0000275)).astype(np.uint16)
    file = make_cog(tmp_path / "l.tif", image, transform=AT, nodata=0, blocksize=64, overviews=0)
    landsat = Scene(
        "LC09",
        {"red": file},
        "2023-07-04T10:00:00",
        declared={"red": {"scale": 0.0000275, "offset": -0.2, "nodata": 0}},
        columns={"collection": "landsat-c2-l2"},
    )
    s2 = make_cog(
        tmp_path / "s.tif",
        np.where(HOLE, 0, TRUTH + 1000).astype(np.uint16),
        transform=AT,
        nodata=0,
        blocksize=64,
        overviews=0,
    )
    sentinel = Scene(
        "S2A",
        {"red": s2},
        "2023-07-03T10:00:00",
        columns={"collection": "sentinel-2-l2a", "s2:processing_baseline": "05.09"},
    )
    cube = rd.concat([collect(sentinel), collect(landsat)]).get_xarray(bands=["red"], scale=True)
    expected = np.where(HOLE, np.nan, TRUTH * 1e-4)
    np.testing.assert_allclose(cube.red.values[0], expected, **CLOSE)
    np.testing.assert_allclose(cube.red.values[1], expected, atol=0.0000275, rtol=0)
    assert cube.s2_offset.values.tolist()[0] == -1000
    assert np.isnan(cube.s2_offset.values[1])
    assert cube.s2_offset_rule.values.tolist()[1] == ""
