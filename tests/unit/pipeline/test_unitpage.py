"""All units of a `foreach` as one page: from their records, whoever ran them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import geopandas
import imagecodecs
import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from rasteret_dask import resources
from rasteret_dask.cli.app import app
from rasteret_dask.pipeline import config, foreach, unitpage
from rasteret_dask.testing.catalog import write_demo_catalog

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
STATES = {
    "a&b": "done",
    "far": "empty",
    "taken": "failed",
    "c": "done",
    "later": "unbegun",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[str]:
    """Units of every state: done, of no item, failed, and not begun."""
    root = tmp_path_factory.mktemp("units")
    scenes = write_demo_catalog(root / "scenes", size=128, dates=("2023-07-03",), blocksize=128)
    squares = [shapely.box(12 + n * 0.002, 47.2, 12.004 + n * 0.002, 47.203) for n in range(5)]
    squares[1] = shapely.box(0, 0, 1, 1)
    frame = geopandas.GeoDataFrame({"code": list(STATES)}, geometry=squares, crs="EPSG:4326")
    frame.to_parquet(root / "districts.parquet")
    (root / "out" / "taken.tif").mkdir(parents=True)
    said = [
        f"collection.build.static_catalog={scenes}",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        f"collection.build.workspace_dir={root}/workspace",
        "collection.subset=null",
        "cube.bbox=null",
        f"foreach={{table: {root}/districts.parquet, id: code}}",
        f"outputs=[{{cog: '{root}/out/{{code}}.tif'}}, "
        f"{{png: '{root}/out/{{code}}.png', colormap: ndvi}}]",
    ]
    source = resources.find("ndvi_median", "pipelines")
    for shard in (0, 2, 3, 1):  # as a job array does, of which one task is still to come
        foreach.run_each(config.from_file(source, [*said, f"foreach.shard={shard}/5"]))
    return said


def pipeline(sets: list[str]) -> config.Pipeline:
    return config.from_file(resources.find("ndvi_median", "pipelines"), sets)


def rows_of(html: str) -> dict[str, str]:
    """The row of each unit, without its tags."""
    lines = re.findall(r"<tr><td>(.*?)</tr>", html, re.DOTALL)
    plain = [re.sub(r"<[^>]*>", " ", line).split() for line in lines]
    return {words[0]: " ".join(words[1:]) for words in plain}


def test_every_unit_with_its_state_whoever_ran_it(sets, tmp_path):
    made = unitpage.page(pipeline([*sets, "foreach.shard=0/5"]), f"{tmp_path}/p.html")
    assert dict(made.states) == {"done": 2, "empty": 1, "failed": 1, "unbegun": 1}
    assert len(made.records) == 4
    rows = rows_of(made.html)
    assert {name.replace("&amp;", "&"): words.split()[0] for name, words in rows.items()} == STATES
    assert "Is a directory" in rows["taken"]
    assert "items" in rows["far"]
    # What somebody has to look after comes first.
    assert list(rows)[:2] == ["taken", "later"]
    assert made.html.count("<path") == 5
    assert made.html.count("data:image/png") == 2


class Links(HTMLParser):
    """Where a page leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name == "href"]


def test_links_lead_somewhere_from_where_the_page_lies(sets, tmp_path):
    target = tmp_path / "deep" / "p.html"
    target.parent.mkdir()
    made = unitpage.page(pipeline(sets), str(target), each=True)
    found = Links(made.html).found
    assert (
        len(found) == 2 * 2 + 4
    )  # outputs of the two that are done, pages of all that have a record
    assert "%26" in "".join(found)
    for href in found:
        assert (target.parent / href.replace("%26", "&")).is_file(), href
    page = Path(unitpage.page_of(made.records[1])).read_text()
    assert "<b>empty</b>" in page
    assert "ndvi" in page


def test_the_command_takes_the_pipeline_and_says_how_many_there_are(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = [part for one in sets for part in ("--set", one)]
    done = CliRunner().invoke(app, ["report", "ndvi_median", *more, "--json"])
    said = json.loads(done.stdout)
    assert said["report"] == "ndvi-median.report.html"
    assert said["units"] == {"done": 2, "empty": 1, "failed": 1, "unbegun": 1}
    assert (tmp_path / said["report"]).is_file()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_units_in_the_colours_of_their_states(sets, tmp_path):
    unit = [*sets, f"foreach.table={near(tmp_path, sets)}"]
    made = unitpage.page(pipeline(unit), f"{tmp_path}/p.html")
    (tmp_path / "p.html").write_text(made.html)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1000,1400"]
    command += ["--proxy-server=127.0.0.1:9", f"--screenshot={tmp_path}/p.png"]
    subprocess.run([*command, f"file://{tmp_path}/p.html"], capture_output=True, check=True)
    shot = imagecodecs.png_decode((tmp_path / "p.png").read_bytes())[..., :3].astype(int)

    def seen(colour: tuple[int, int, int]) -> int:
        # Six parts of ten of the colour over white.
        mixed = np.array(colour) * 0.6 + 255 * 0.4
        return int((np.abs(shot - mixed).max(axis=-1) <= 12).sum())

    assert seen((42, 127, 98)) > 500, "done"
    assert seen((165, 0, 38)) > 500, "failed"


def near(tmp_path: Path, sets: list[str]) -> Path:
    """The same units without the one that lies far away, so that the others are large."""
    (table,) = re.findall(r"table: ([^,]+),", " ".join(sets))
    frame = geopandas.read_parquet(table)
    frame[frame.code != "far"].to_parquet(tmp_path / "near.parquet")
    return tmp_path / "near.parquet"
