"""The how-to for notebooks is run as it stands, on real scenes; only its search is turned to those."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import rasteret_dask as rd

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "notebooks.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_block_of_the_page_for_notebooks_runs(austria, tmp_path, monkeypatch):
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    build = rd.build

    def here(dataset, name, **_):
        return build(dataset, name=name, static_catalog=str(austria / "catalog.json"))

    monkeypatch.setattr(rd, "build", here)
    said: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), said)
    assert 0.3 < float(said["median"].mean()) < 0.95
    ndvi = said["ndvi"].compute()
    expected = ndvi.quantile(0.9, "time") - ndvi.quantile(0.1, "time")
    np.testing.assert_allclose(said["spreads"], expected, rtol=1e-5)
    assert said["again"].sizes["x"] == said["ds"].sizes["x"]
    assert (tmp_path / "ndvi.tif").is_file()
    assert (tmp_path / "ndvi.zarr" / "zarr.json").is_file()
