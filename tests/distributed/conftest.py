"""What holds for every test that starts a cluster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from holed import DATES

import rasteret_dask as rd
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer


@pytest.fixture(autouse=True, scope="module")
def no_scheduler_stays_behind() -> Iterator[None]:
    """A client that cannot start leaves Dask's default scheduler set until it is collected; what runs
    later would then fail for want of a client. Collecting here puts the blame where it belongs."""
    yield
    gc.collect()
    assert dask.config.get("scheduler", None) is None


@pytest.fixture(scope="module")
def tiles_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=384, blocksize=128, dates=DATES)
    with RangeServer(folder) as found:
        yield found


@pytest.fixture
def tiles_server(tiles_running: RangeServer) -> Iterator[RangeServer]:
    tiles_running.configure(faults=[], latency=0.0)
    yield tiles_running
    tiles_running.configure(faults=[], latency=0.0)


@pytest.fixture
def tiles_workspace(tiles_server: RangeServer, tmp_path: Path) -> Path:
    rd.build(
        "earthsearch/sentinel-2-l2a",
        static_catalog=f"{tiles_server.url}/catalog.json",
        name="demo",
        workspace_dir=tmp_path / "workspace",
    )
    return tmp_path / "workspace"
