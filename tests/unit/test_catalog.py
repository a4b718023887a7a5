"""Descriptors from YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasteret_dask import catalog
from rasteret_dask.errors import ConfigError, UnknownDatasetError
from rasteret_dask.ingest.bands import find_asset
from rasteret_dask.model import BandInfo, DatasetDescriptor
from rasteret_dask.opening import storage_of
from rasteret_dask.storage.recipes import make_recipe


def test_what_ships_is_whole() -> None:
    found = catalog.built_in()
    sentinel = found["earthsearch/sentinel-2-l2a"]
    red = next(b for b in sentinel.bands if b.name == "B04")
    assert (red.asset, red.common_name) == ("red", "red")
    assert next(b for b in sentinel.bands if b.name == "SCL").categorical
    for key in found:
        one = found[key]
        assert one.title
        assert one.license
        assert one.stac_api or one.static_catalog or one.parquet
        assert len({b.name for b in one.bands}) == len(one.bands) > 0
        assert one.example_bbox is not None


RASTERET = [
    "aef/v1-annual",
    *(f"earthsearch/{n}" for n in ("sentinel-2-l2a", "landsat-c2-l2", "naip")),
    *(f"earthsearch/cop-dem-glo-{n}" for n in (30, 90)),
    *(f"pc/{n}" for n in ("sentinel-2-l2a", "io-lulc-annual-v02", "alos-dem", "nasadem")),
    *(f"pc/{n}" for n in ("esa-worldcover", "usda-cdl")),
]
MORE = [
    "earthsearch/sentinel-2-c1-l2a",
    *(f"lpdaac/{n}" for n in ("hlsl30", "hlss30")),
    *(f"pc/{n}" for n in ("sentinel-1-rtc", "landsat-c2-l2", "modis-09A1-061", "modis-13A1-061")),
]


def test_the_ids_that_people_know() -> None:
    found = catalog.built_in()
    assert sorted([*RASTERET, *MORE]) == list(found)
    naip = found["earthsearch/naip"]
    assert [(b.name, b.asset, b.index) for b in naip.bands] == [
        ("R", "image", 0), ("G", "image", 1), ("B", "image", 2), ("NIR", "image", 3),
    ]  # fmt: skip
    aef = found["aef/v1-annual"]
    assert [(b.name, b.index) for b in aef.bands] == [(f"A{k:02d}", k) for k in range(64)]
    l30, s30 = ({b.name for b in found[f"lpdaac/{k}"].bands} for k in ("hlsl30", "hlss30"))
    assert {"red", "nir", "swir16", "Fmask"} <= l30 & s30
    for key, one in found.items():
        if storage_of(one).auth is not None:
            make_recipe(storage_of(one))
        assert one.requires_auth in (None, "planetary-computer", "earthdata", "aws"), key


@pytest.mark.parametrize(
    ("dataset", "path", "lacking"),
    [
        ("pc/landsat-c2-l2", "stac-utils+stac-geoparquet/tests/data/landsat-c2-l2-pc.json", {"cloud_qa"}),
        ("pc/sentinel-2-l2a", "stac-utils+stac-geoparquet/tests/data/sentinel-2-l2a-pc.json", set()),
        ("earthsearch/naip", "stac-utils+stac-geoparquet/tests/data/naip-pc.json", set()),
        ("earthsearch/cop-dem-glo-30", "stac-utils+stac-geoparquet/tests/data/cop-dem-glo-30-pc.json", set()),
    ],
)  # fmt: skip
def test_bands_are_found_in_items(corpus: Path, dataset: str, path: str, lacking: set[str]) -> None:
    text = (corpus / path).read_text() if (corpus / path).exists() else None
    if text is None:
        pytest.skip("no such items in the corpus")
    items = json.loads(text)
    items = items["features"] if isinstance(items, dict) and "features" in items else items
    items = items if isinstance(items, list) else [items]
    found = {
        band.name
        for band in catalog.built_in()[dataset].bands
        for item in items
        if find_asset(item["assets"], band) is not None
    }
    assert {b.name for b in catalog.built_in()[dataset].bands} - found == lacking


def test_a_catalogue_comes_back_from_its_file(tmp_path: Path) -> None:
    mine = DatasetDescriptor(
        id="me/x",
        title="X",
        static_catalog="/data/catalog.json",
        bands=(BandInfo("R", "image", 0, "red"), BandInfo("G", "image", 1, aliases=("g", "grn"))),
        storage={"region": "eu-central-1"},
        example_bbox=(0, 1, 2, 3),
        example_dates=("2020-01-01", "2020-02-01"),
    )
    whole = catalog.built_in().register(mine)
    path = whole.save(tmp_path / "deep" / "catalog.yaml")
    assert catalog.read(path) == whole


def test_the_users_file_lies_over_the_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("datasets:\n  me/x: {title: X, parquet: s3://b/x, bands: {R: {}}}\n")
    monkeypatch.setenv(catalog.ENVIRONMENT, str(path))
    found = catalog.default()
    assert found["me/x"].bands == (BandInfo("R", "R"),)
    assert "earthsearch/sentinel-2-l2a" in found
    monkeypatch.setenv(catalog.ENVIRONMENT, str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match="not there"):
        catalog.default()


def test_searching() -> None:
    found = catalog.built_in()
    assert found.search("sentinel collection")[0].id == "earthsearch/sentinel-2-c1-l2a"
    api = "https://earth-search.aws.element84.com/v1/"
    one = found.find(api, "sentinel-2-l2a")
    assert one is not None
    assert one.id == "earthsearch/sentinel-2-l2a"
    assert found.find(api, None) is None


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError, match="did you mean 'earthsearch/sentinel-2-l2a'"):
        catalog.built_in()["earthsearch/sentinel2-l2a"]
    path = tmp_path / "c.yaml"
    path.write_text("datasets: {a/b: {tittle: X}}")
    with pytest.raises(ConfigError, match="did you mean 'title'") as caught:
        catalog.read(path)
    assert caught.value.path == 'datasets."a/b".tittle'
