"""What arrives while the thread of a task decodes is taken by another thread at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import Scene, collect

from rasteret_dask.errors import TileReadError
from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.read import engine
from rasteret_dask.read.crew import Crew
from rasteret_dask.read.engine import Load, Loading, decode_use
from rasteret_dask.read.wanted import TileUse
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import Fault, RangeServer

SIDE = 64
LATE = StorageOptions(
    rate=RatePolicy(budget=40_000_009), retry=RetryPolicy(attempts=4, base=0.2, cap=0.2)
)
"""A request that is refused comes a fifth of a second later."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two")
    for number, name in enumerate(("early", "late")):
        image = np.random.default_rng(number).integers(1, 60_000, (SIDE, SIDE)).astype("uint16")
        make_cog(path / f"{name}.tif", image, nodata=0, blocksize=SIDE, overviews=0)
    return path


@pytest.fixture
def loads(server: RangeServer) -> list[Load]:
    urls = {name: server.url_of(f"{name}.tif") for name in ("early", "late")}
    collection = collect(Scene("s", urls, "2023-07-01T10:00:00"))
    found = []
    for name in urls:
        plan = next(iter(collection.get_xarray(bands=[name])[name].data.dask.layers.values()))
        source = plan.io_deps[next(iter(plan.io_deps))][0, 0, 0].plan.sources[0]
        whole = Piece(0, 0, (0, SIDE), (0, SIDE), 0, 0)
        found.append(Load(source, [whole], np.zeros((SIDE, SIDE), "uint16"), name))
    server.configure(faults=[Fault("status", "late.tif", first=1)])
    return found


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    made = Crew(2)
    monkeypatch.setattr(engine, "crew", lambda: made)
    return made


def comes_back(crew: Crew) -> bool:
    """Whether nobody holds a token, soon: they are given back after whoever waits for the work is told."""
    for _ in range(2000):
        if crew._tokens._value == 2:
            return True
        time.sleep(0.005)
    return False


def test_another_thread_decodes_what_arrives_meanwhile(loads: list[Load], crew: Crew) -> None:
    other, threads = threading.Event(), {}

    def decode(use: TileUse, data: memoryview) -> None:
        name = use.users[0][0].band
        threads[name] = threading.current_thread()
        if name == "late":
            other.set()
        else:
            assert other.wait(20), "nobody took what had arrived"
        decode_use(use, data)

    Loading(loads, LATE, decode=decode).finish()
    assert threads["early"] is threading.current_thread()
    assert threads["late"] is not threading.current_thread()
    assert all(load.out.any() for load in loads)
    assert comes_back(crew)


def test_what_fails_there_is_raised_here(loads: list[Load], crew: Crew) -> None:
    failed = threading.Event()

    def decode(use: TileUse, data: memoryview) -> None:
        load: Any = use.users[0][0]
        if load.band == "late":
            failed.set()
            raise TileReadError("broken", band="late")
        assert failed.wait(20)

    with pytest.raises(TileReadError, match="broken"):
        Loading(loads, LATE, decode=decode).finish()
    assert comes_back(crew)
