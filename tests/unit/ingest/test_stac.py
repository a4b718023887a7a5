"""Items old and new, from an API and from files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
from shapely.geometry import mapping
from stacapi import StacApi

import rasteret_dask as rd
from rasteret_dask.errors import (
    ArgumentError,
    EmptySelectionError,
    RasteretError,
    SourceError,
    TransientError,
    UnknownBandError,
)
from rasteret_dask.index import schema
from rasteret_dask.ingest.asking import api_error
from rasteret_dask.ingest.bands import discover, find_asset, from_map, resolve
from rasteret_dask.ingest.records import Links, make_record, reprocessed
from rasteret_dask.ingest.stac import Search, read_items, search_api, search_static
from rasteret_dask.model import BandInfo
from rasteret_dask.storage.urls import unsigned
from rasteret_dask.testing.server import RangeServer


class Whatever(StacApi):
    """Answers every search with all it has: what counts here is what it was asked."""

    def find(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return self.items


@pytest.fixture
def items(austria: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(austria.glob("*/*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = str(path.parent / asset["href"])
        found.append(item)
    return found


@pytest.fixture
def api(items: list[dict[str, Any]]) -> Iterator[StacApi]:
    with Whatever(items, page=2) as server:
        yield server


def test_an_api_is_searched_page_by_page(api: StacApi, tmp_path: Path) -> None:
    built = rd.build_from_stac(
        stac_api=api.url,
        collection="sentinel-2-l2a",
        name="api",
        bbox=(15, 46, 16, 47),
        date_range=("2023-08-10", "2023-08-20"),
        query={"eo:cloud_cover": {"lt": 100}},
        bands=["red"],
        workspace_dir=tmp_path,
    )
    assert len(built) == 10
    assert len(api.asked) == 6  # five pages, and one to see how many there are
    assert api.asked[0]["collections"] == ["sentinel-2-l2a"]
    assert api.asked[0]["datetime"] == "2023-08-10T00:00:00Z/2023-08-20T23:59:59.999999Z"
    assert api.asked[0]["query"] == {"eo:cloud_cover": {"lt": 100}}


def test_two_threads_that_read_first_read_the_same(austria: Path) -> None:
    """In a fresh interpreter: pystac learns of its extensions with the first document."""
    code = f"""
import threading
from concurrent.futures import ThreadPoolExecutor
from rasteret_dask.ingest.stac import Search, search_static
gate = threading.Barrier(4)
def read(_):
    gate.wait()
    return search_static({str(austria / "catalog.json")!r}, Search())
with ThreadPoolExecutor(4) as pool:
    first, *others = pool.map(read, range(4))
assert all(found == first for found in others)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_box_over_the_antimeridian_is_asked_in_halves(api: StacApi) -> None:
    found = search_api(api.url, Search.of(None, (170, 0, -170, 1), None, {}))
    assert [a["bbox"] for a in api.asked if "token" not in a] == [
        [170, 0, 180, 1],
        [-180, 0, -170, 1],
    ]
    assert len(found) == 10  # what both halves found counts once


def test_an_api_that_fails_is_named(api: StacApi, items: list[dict[str, Any]]) -> None:
    search = Search.of(None, None, None, {})
    items.clear()
    with pytest.raises(EmptySelectionError):
        search_api(api.url, search)
    api.status = 400
    with pytest.raises(SourceError, match="400"):
        search_api(api.url, search)
    assert isinstance(api_error(429, "slow down", api.url), TransientError)


def test_halves_of_an_area_hold_no_more_than_was_asked_for() -> None:
    items = []
    for number, west in enumerate((175, 176, -175, -176)):
        area = shapely.box(west, 0, west + 0.5, 1)
        times = {"datetime": "2020-01-01T00:00:00Z", "start_datetime": None, "end_datetime": None}
        items.append(
            item(
                id=f"i{number}",
                stac_version="1.0.0",
                geometry=mapping(area),
                bbox=list(area.bounds),
                properties=times,
                links=[],
            )
        )
    with StacApi(items) as server:
        area = (170, -1, -170, 2)
        assert len(search_api(server.url, Search.of(None, area, None, {}))) == 4
        assert len(search_api(server.url, Search.of(None, area, None, {"max_items": 3}))) == 3


@pytest.mark.parametrize(
    "sortby",
    [
        "properties.eo:cloud_cover,-id",
        ["+eo:cloud_cover", "-id"],
        [
            {"field": "eo:cloud_cover", "direction": "asc"},
            {"field": "id", "direction": "desc"},
        ],
    ],
)
def test_of_two_halves_the_first_in_order_are_kept(sortby: Any) -> None:
    clouds = {"i0": 50, "i1": 60, "i2": 1, "i3": 2, "i4": 1, "i5": None}
    items = []
    for number, west in enumerate((175, 176, -175, -176, -177, -178)):
        name = f"i{number}"
        times = {"datetime": "2020-01-01T00:00:00Z", "start_datetime": None, "end_datetime": None}
        area = shapely.box(west, 0, west + 0.5, 1)
        items.append(
            item(
                id=name,
                stac_version="1.0.0",
                geometry=mapping(area),
                bbox=list(area.bounds),
                properties={**times, "eo:cloud_cover": clouds[name]},
                links=[],
            )
        )
    with StacApi(items) as server:
        area = (170, -1, -170, 2)
        for most, expected in ((3, ["i4", "i2", "i3"]), (6, ["i4", "i2", "i3", "i0", "i1", "i5"])):
            options = {"sortby": sortby, "max_items": most}
            found = search_api(server.url, Search.of(None, area, None, options))
            assert [one["id"] for one in found] == expected


@pytest.mark.parametrize(
    ("href", "kept"),
    [
        ("a.tif", "s3://bucket/x/a.tif"),
        ("../a.tif", "s3://bucket/a.tif"),
        ("/a.tif", "s3://bucket/a.tif"),
        ("file:/data/a.tif", "file:/data/a.tif"),
        ("https://h/a.tif", "https://h/a.tif"),
    ],
)
def test_links_with_a_scheme_of_their_own_beside_an_item_in_a_bucket(href: str, kept: str) -> None:
    said = {
        "id": "i",
        "assets": {"a": {"href": href}},
        "links": [{"rel": "self", "href": "s3://bucket/x/i.json"}],
    }
    assert read_items(said)[0]["assets"]["a"]["href"] == kept


@pytest.mark.parametrize(
    "url",
    ["https://me:SECRET@h/stac", "https://h/stac?api_key=SECRET", "https://h/stac?x=1&sig=SECRET"],
)
@pytest.mark.parametrize("kind", ["stac_api", "static_catalog"])
def test_a_catalogue_s_url_with_a_secret_is_refused(url: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="written into the collection") as caught:
        rd.build_from_stac(name="x", workspace_dir=tmp_path, **{kind: url})  # type: ignore[arg-type]
    assert "SECRET" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_static_item_that_goes_on_beyond_180_is_found(tmp_path: Path) -> None:
    times = datetime(2020, 1, 1)
    catalogue = pystac.Catalog("c", "x")
    for number, (west, east) in enumerate([(170, 190), (-190, -170), (10, 20)]):
        area = shapely.box(west, -20, east, -10)
        catalogue.add_item(pystac.Item(f"i{number}", mapping(area), list(area.bounds), times, {}))
    catalogue.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    for west, east in [(-175, -172), (175, 178), (178, -178)]:
        search = Search.of(None, (west, -18, east, -12), None, {})
        found = search_static(str(tmp_path / "catalog.json"), search)
        assert sorted(one["id"] for one in found) == ["i0", "i1"]


def test_every_item_of_the_corpus_becomes_a_record(corpus: Path) -> None:
    made = 0
    for path in sorted(corpus.rglob("*.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError:
            continue
        features = found.get("features", [found]) if isinstance(found, dict) else []
        for item in features:
            if not isinstance(item, dict) or not item.get("assets") or not item.get("id"):
                continue
            if item.get("type") != "Feature":
                continue
            record = make_record(item, discover([item]))
            assert record.columns[schema.DATETIME] is not None
            made += 1
    assert made > 150


def item(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "type": "Feature",
        "id": "x",
        "geometry": None,
        "bbox": [0, 1, 2, 3],
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"data": {"href": "https://h/x.tif", "type": "image/tiff; application=geotiff"}},
    }
    return {**base, **changes}


def record(**changes: Any) -> Any:
    made = item(**changes)
    return make_record(made, discover([made]))


def test_times_of_intervals_and_nothing() -> None:
    columns = record(
        properties={
            "datetime": None,
            "start_datetime": "2020-01-01T00:00:00Z",
            "end_datetime": "2020-12-31T23:59:59Z",
        }
    ).columns
    assert columns["datetime"] == columns["start_datetime"]
    assert columns["end_datetime"].year == 2020
    assert (columns["year"], columns["month"]) == (2020, 1)
    with pytest.raises(ArgumentError, match="neither datetime") as caught:
        record(properties={})
    assert caught.value.item == "x"
    with pytest.raises(ArgumentError, match="no date"):
        record(properties={"datetime": "yesterday"})


def test_projection_in_every_spelling() -> None:
    time = {"datetime": "2020-01-01"}
    assert record(properties={**time, "proj:epsg": 32633}).crs == "EPSG:32633"
    assert record(properties={**time, "proj:code": "EPSG:3857"}).crs == "EPSG:3857"
    assert record(properties={**time, "proj:epsg": None}).crs is None
    sinusoidal = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
    assert "sinusoidal" in record(properties={**time, "proj:wkt2": sinusoidal}).crs.lower()


def test_an_acquisition_that_was_processed_twice_is_reported() -> None:
    """By what tells acquisitions apart in `dedupe`, Landsat's too."""
    told = {"platform": "landsat-9", "landsat:wrs_path": "190", "landsat:wrs_row": "027"}
    days = {"a_20230805": "2023-08-03T09:50:00Z", "a_20230811": "2023-08-03T09:50:01Z"}
    days["next_day"] = "2023-08-04T09:50:00Z"
    records = [record(id=k, properties={"datetime": t, **told}) for k, t in days.items()]
    assert reprocessed(records) == ["the same acquisition 2 times: a_20230805, a_20230811"]


def test_properties_are_typed_and_none_is_lost() -> None:
    columns = record(
        properties={
            "datetime": "2020-01-01",
            "eo:cloud_cover": "12.5",
            "sat:relative_orbit": "many",
            "earthsearch:boa_offset_applied": True,
            "odd": {"a": [1]},
        }
    ).columns
    assert columns["eo:cloud_cover"] == 12.5
    assert columns["earthsearch:boa_offset_applied"] is True
    assert columns["sat:relative_orbit"] is None
    rest = json.loads(columns["properties"])
    assert rest["sat:relative_orbit"] == "many"
    assert rest["odd"] == {"a": [1]}


def test_bands_of_stac_1_1_and_before() -> None:
    new = {
        "href": "https://h/x.tif",
        "type": "image/tiff",
        "bands": [
            {"name": "R", "eo:common_name": "red", "nodata": 0, "raster:scale": 0.1},
            {"name": "N", "eo:common_name": "nir", "nodata": "nan"},
        ],
    }
    made = record(assets={"image": new})
    assert [(r.band, r.index) for r in made.assets] == [("R", 0), ("N", 1)]
    assert made.assets[0].claims["scale"] == 0.1
    old = {
        "href": "https://h/x.tif",
        "type": "image/tiff",
        "eo:bands": [{"name": "R", "common_name": "red"}, {"name": "R"}],
        "raster:bands": [{"scale": 2}, {"offset": 3}],
    }
    made = record(assets={"image": old})
    assert [r.band for r in made.assets] == ["image_1", "image_2"]
    assert made.assets[1].claims["offset"] == 3


def test_assets_are_found_by_any_name() -> None:
    def tiff(**more: Any) -> dict[str, Any]:
        return {"href": "https://h/x.tif", "type": "image/tiff", **more}

    red = BandInfo("B04", "red", common_name="red")
    named = tiff(**{"eo:bands": [{"common_name": "red"}]})
    assert find_asset({"red": tiff()}, red) == "red"
    assert find_asset({"B04": tiff()}, red) == "B04"
    assert find_asset({"SR_B4": named}, red) == "SR_B4"
    assert find_asset({"a": named, "b": named}, red) is None
    assert find_asset({"visual": {**named, "roles": ["visual"]}}, red) is None


def test_maps_from_the_caller() -> None:
    rgb = {"R": "image", "G": "image"}
    with pytest.raises(ArgumentError, match="several bands are in the asset 'image'"):
        from_map(rgb, None, [])
    bands = from_map(rgb, {"R": 0, "G": 1}, [])
    assert [(b.name, b.asset, b.index) for b in bands] == [("R", "image", 0), ("G", "image", 1)]
    with pytest.raises(ArgumentError, match="band_index_map names"):
        from_map({"R": "image"}, {"X": 0}, [])


def test_ambiguous_names_are_refused_with_the_choices() -> None:
    bands = [BandInfo(n, n.lower(), common_name="rededge") for n in ("B05", "B06")]
    assert resolve(["b05", "B06"], bands) == [("b05", "B05"), ("B06", "B06")]
    with pytest.raises(UnknownBandError, match="more than one") as caught:
        resolve(["rededge"], bands)
    assert caught.value.hint == "one of: B05, B06"


def test_signatures_never_enter() -> None:
    signed = "https://a.blob.core.windows.net/c/x.tif?st=1&se=2&sig=SECRET"
    assert unsigned(signed) == "https://a.blob.core.windows.net/c/x.tif"
    assert unsigned("https://h/get?id=5") == "https://h/get?id=5"
    asset = {"href": signed, "type": "image/tiff", "alternate": {"s3": {"href": "s3://b/x.tif"}}}
    made = item(assets={"data": asset})
    bands = discover([made])
    assert make_record(made, bands).assets[0].url.endswith("x.tif")
    assert make_record(made, bands, Links(prefer="s3")).assets[0].url == "s3://b/x.tif"


def test_items_in_every_form(items: list[dict[str, Any]], tmp_path: Path) -> None:
    collection = {"type": "FeatureCollection", "features": items}
    pystac_items = [pystac.Item.from_dict(i) for i in items]
    assert len(read_items(items)) == len(read_items(collection)) == len(read_items(pystac_items))
    assert len(read_items(pystac.ItemCollection(pystac_items))) == 10
    path = tmp_path / "items.json"
    path.write_text(json.dumps(collection))
    assert len(read_items(path)) == 10
    for wrong in (5, [5], [{"a": 1}], tmp_path / "no.json"):
        with pytest.raises(ArgumentError):
            read_items(wrong)
    with pytest.raises(RasteretError, match="no items"):
        read_items([])


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "https"])
def test_links_beside_an_item_in_a_bucket(scheme: str) -> None:
    own = {"rel": "self", "href": f"{scheme}://bucket/a/b/i.json"}
    hrefs = ["x.tif", "./x.tif", "../x.tif", "/x.tif", "s3://other/x.tif"]
    assets = {str(k): {"href": href} for k, href in enumerate(hrefs)}
    (found,) = read_items([item(links=[own], assets=assets)])
    assert [asset["href"] for asset in found["assets"].values()] == [
        f"{scheme}://bucket/a/b/x.tif",
        f"{scheme}://bucket/a/b/x.tif",
        f"{scheme}://bucket/a/x.tif",
        f"{scheme}://bucket/x.tif",
        "s3://other/x.tif",
    ]


def test_documents_of_a_far_catalogue_come_side_by_side(austria: Path) -> None:
    with RangeServer(austria, latency=0.05) as server:
        found = search_static(server.url + "/catalog.json", Search())
        seen = server.counters()
    assert len(found) == 10
    # pystac reads the root again when it resolves the first link.
    assert {path: n for path, n in seen.paths.items() if n > 1} in ({}, {"catalog.json": 2})
    assert seen.peak_in_flight > 4
