"""A run as a page: what failed is in it, and a browser shows what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

import rasteret_dask as rd
from rasteret_dask import resources
from rasteret_dask.errors import PipelineError
from rasteret_dask.pipeline import config, report
from rasteret_dask.pipeline.run import run
from rasteret_dask.testing.catalog import write_demo_catalog

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DATES = ("2023-07-03", "2023-07-08", "2023-07-13")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Run the shipped pipeline on small scenes of which one file is gone; its record's URL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    scenes = write_demo_catalog(tmp_path / "scenes", size=128, dates=DATES, blocksize=128)

    def go(*sets: str) -> str:
        own = [
            f"collection.build.static_catalog={scenes}",
            "collection.build.bbox=null",
            "collection.build.date_range=null",
            "collection.subset=null",
            "cube.bbox=null",
        ]
        return str(
            run(config.from_file(resources.find("ndvi_median", "pipelines"), [*own, *sets])).record
        )

    return go


def lose_a_file(made) -> str:
    """A run that goes on without a file which was there when its header was read."""
    made("outputs=[{cog: before.tif}]")
    next(Path("scenes").glob("*33TTN_20230708*/B08.tif")).unlink()
    return made(
        "cube.on_error=record", "cube.ledger=ledger", "outputs=[{png: ndvi.png, colormap: ndvi}]"
    )


def test_what_failed_is_in_the_page(made):
    page = report.page(lose_a_file(made))
    assert re.search(r"Tiles that could not be had, and are nodata: [1-9]", page)
    assert "S2B_33TTN_20230708_0_L2A" in page
    assert "B08" in page


def test_a_run_without_pictures_has_quick_looks(made):
    page = report.page(made("outputs=[{cog: ndvi.tif}, {zarr: ndvi.zarr}]"))
    assert "every tile" not in page.lower()
    (picture,) = re.findall(r"alt='ndvi.tif' src='data:image/png;base64,([^']+)'", page)
    assert len(picture) > 1000


def test_the_record_of_a_cube_is_refused_by_name(made, tmp_path):
    made("outputs=[{cog: ndvi.tif}]")
    collection = rd.load("ndvi-median")
    cube = collection.get_xarray(bands=["B04"], on_error="record", ledger="ledger", groupby="id")
    with pytest.raises(PipelineError, match="record of a cube"):
        report.page(f"ledger/{cube.attrs['rasteret_run']}/run.json")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_map_timeline_picture_and_failures(made, tmp_path):
    """Screenshots differ from machine to machine in fonts alone: what is looked for is colour."""
    text = report.page(lose_a_file(made))
    (tmp_path / "run.html").write_text(text)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1000,2400"]
    command += ["--proxy-server=127.0.0.1:9", f"--screenshot={tmp_path}/run.png"]
    subprocess.run([*command, f"file://{tmp_path}/run.html"], capture_output=True, check=True)
    shot = imagecodecs.png_decode((tmp_path / "run.png").read_bytes())[..., :3].astype(int)
    assert shot.shape == (2400, 1000, 3)

    def near(colour: tuple[int, int, int], within: int = 12) -> np.ndarray:
        return np.abs(shot - colour).max(axis=-1) <= within

    assert near((125, 177, 159), 30).sum() > 2000, "footprints"
    assert near((64, 145, 196), 40).sum() > 20, "clear items of the timeline"
    assert near((165, 0, 38)).sum() > 50, "the sentence about failures"
    # The picture is as large as it says, and looks as its file does.
    picture = imagecodecs.png_decode(Path("ndvi.png").read_bytes())
    seen = picture[picture[..., 3] == 255][:, :3].astype(int)
    rows = np.flatnonzero(near(tuple(np.median(seen, axis=0).astype(int)), 30).any(axis=1))
    assert rows.size > 50
    text_area = (shot < 128).all(axis=-1)
    assert text_area[:, :500].any(axis=1).mean() > 0.05, "there is something to read"
