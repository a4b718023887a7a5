"""Descriptors from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasteret_dask import catalog
from rasteret_dask.errors import ConfigError, UnknownDatasetError
from rasteret_dask.model import BandInfo, DatasetDescriptor


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
