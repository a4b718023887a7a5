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
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=384, blocksize=128, dates=DATES)
    with RangeServer(folder) as found:
        yield found


@pytest.fixture
def server(demo_files: RangeServer) -> Iterator[RangeServer]:
    """The demo catalogue in tiles of 128 pixels, served without faults."""
    demo_files.configure(faults=[], latency=0.0)
    yield demo_files
    demo_files.configure(faults=[], latency=0.0)


@pytest.fixture
def workspace(server: RangeServer, tmp_path: Path) -> Path:
    """Where the collection `demo` of what `server` serves lies."""
    rd.build(
        "earthsearch/sentinel-2-l2a",
        static_catalog=f"{server.url}/catalog.json",
        name="demo",
        workspace_dir=tmp_path / "workspace",
    )
    return tmp_path / "workspace"
