"""What STAC says and the file denies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasteret_dask.errors import RasteretError
from rasteret_dask.ingest.disagree import Disagreement, compare
from rasteret_dask.ingest.headers import fetch_header, fetch_headers
from rasteret_dask.ingest.records import AssetRef, Record
from rasteret_dask.ingest.slices import disagreements
from rasteret_dask.storage.loop import run
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.tiff.model import TiffHeader


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> TiffHeader:
    path = tmp_path_factory.mktemp("disagree") / "a.tif"
    make_cog(path, np.ones((2, 64, 80), "int16"), nodata=-9999, blocksize=32)
    return run(fetch_header(str(path)))


TRUE: dict[str, Any] = {
    "proj:epsg": 32633,
    "proj:shape": [64, 80],
    "proj:transform": [10, 0, 500000, 0, -10, 5200000, 0, 0, 1],
    "raster:bands": [{"nodata": -9999, "data_type": "int16"}] * 2,
}


def item(properties: dict[str, Any] | None = None, **asset: Any) -> dict[str, Any]:
    return {"id": "i", "properties": properties or {}, "assets": {"a": {"href": "a.tif", **asset}}}


def test_agreement_and_silence(header: TiffHeader) -> None:
    assert compare(item(**TRUE), "a", header) == ()
    assert compare(item(), "a", header) == ()
    assert compare(item({k: v for k, v in TRUE.items() if k != "raster:bands"}), "a", header) == ()
    assert (
        compare(item(bands=TRUE["raster:bands"], **{"proj:code": "EPSG:32633"}), "a", header) == ()
    )
    assert compare(item(data_type="int16", nodata=-9999), "a", header) == ()
    # Declared scales are for the reader; a file without any has not denied them.
    assert compare(item(**{"raster:bands": [{"scale": 0.1, "offset": -1}] * 2}), "a", header) == ()


@pytest.mark.parametrize(
    ("field", "value", "stac", "file"),
    [
        ("proj:shape", [80, 64], "[80, 64]", "[64, 80]"),
        ("proj:epsg", 32634, "EPSG:32634", "EPSG:32633"),
        ("proj:code", "EPSG:4326", "EPSG:4326", "EPSG:32633"),
        (
            "proj:transform",
            [10, 0, 500005, 0, -10, 5200000],
            "[10, 0, 500005, 0, -10, 5200000]",
            "[10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0]",
        ),
        (
            "proj:transform",
            [20, 0, 500000, 0, -20, 5200000],
            "[20, 0, 500000, 0, -20, 5200000]",
            "[10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0]",
        ),
    ],
)
def test_one_contradiction(
    field: str, value: Any, stac: str, file: str, header: TiffHeader
) -> None:
    found = compare(item(**{**TRUE, field: value}), "a", header)
    assert found == (Disagreement("i", "a", field, stac, file),)


def test_an_asset_overrides_its_item(header: TiffHeader) -> None:
    assert compare(item({"proj:shape": [1, 1]}, **{"proj:shape": [64, 80]}), "a", header) == ()
    assert len(compare(item({"proj:shape": [1, 1]}), "a", header)) == 1


def test_bands(header: TiffHeader) -> None:
    wrong = [{"nodata": 0, "data_type": "int16"}, {"nodata": "nan", "data_type": "uint16"}]
    fields = [found.field for found in compare(item(**{"raster:bands": wrong}), "a", header)]
    assert fields == [
        "raster:bands[0].nodata",
        "raster:bands[1].data_type",
        "raster:bands[1].nodata",
    ]
    found = compare(item(bands=[{}]), "a", header)
    assert found == (Disagreement("i", "a", "bands", "1 bands", "2 bands"),)


@pytest.mark.parametrize("value", [None, "10980", [], ["a", "b"], {"x": 1}, [None, None], True])
def test_nonsense_is_no_contradiction(value: Any, header: TiffHeader) -> None:
    said = {"proj:shape": value, "proj:transform": value, "raster:bands": value}
    assert compare(item(**said), "a", header) == ()


def _local_assets(root: Path) -> list[tuple[dict[str, Any], str, Path]]:
    """Every asset of every item below a folder whose file lies beside the item."""
    found = []
    for path in sorted(root.rglob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if not isinstance(document, dict) or document.get("type") != "Feature":
            continue
        for key, asset in document.get("assets", {}).items():
            href = str(asset.get("href", ""))
            file = path.parent / (href if "://" not in href else Path(href).name)
            if file.suffix.lower() in (".tif", ".tiff") and file.is_file():
                found.append((document, key, file))
    return found


def test_the_austrian_scenes_speak_of_ten_metres(austria: Path) -> None:
    assets = _local_assets(austria)
    assert len(assets) == 50
    for document, key, file in assets:
        found = compare(document, key, run(fetch_header(str(file))))
        assert [f.field for f in found] == ["proj:shape", "proj:transform"]
        assert found[0].file == "[915, 915]"
        assert found[1].file.startswith("[120.0, ")


def test_the_items_of_the_corpus(corpus: Path) -> None:
    fields: Counter[str] = Counter()
    agreed = 0
    for document, key, file in _local_assets(corpus):
        try:
            found = compare(document, key, run(fetch_header(str(file))))
        except RasteretError:
            continue  # JPEG 2000 by another name
        fields.update(f.field for f in found)
        agreed += not found
    # Thinned-out copies of Sentinel-2, and overviews listed as assets.
    assert fields == {"proj:shape": 8, "proj:transform": 8}
    assert agreed == 42


def test_files_that_are_alike_are_each_held_to_what_is_said_of_them(tmp_path: Path) -> None:
    said = [{"proj:shape": [64, 64]}, {"proj:shape": [64, 65]}, {"proj:shape": [64, 64]}]
    for number in range(3):
        array = np.full((64, 64), number, "uint16") + np.arange(64, dtype="uint16")
        make_cog(tmp_path / f"{number}.tif", array, nodata=None if number < 2 else 7, blocksize=32)
    said.append({"raster:bands": [{"nodata": 5}]})
    paths = [str(tmp_path / f"{number}.tif") for number in (0, 1, 0, 2)]
    headers = dict(zip(paths, run(fetch_headers(paths)), strict=True))
    records = [
        Record(f"i{k}", {}, None, (AssetRef("B", 0, "b", path, {}, told),))
        for k, (path, told) in enumerate(zip(paths, said, strict=True))
    ]
    found = [(d.item, d.field, d.stac, d.file) for d in disagreements(records, headers)]
    assert found == [
        ("i1", "proj:shape", "[64, 65]", "[64, 64]"),
        ("i3", "raster:bands[0].nodata", "5", "7"),
    ]
