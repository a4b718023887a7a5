"""An append on real processes, killed by `kill -9`: the same bytes in the end, headers read again for unfinished slices only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lasting import hashes, parts
from stacapi import StacApi, item

import rasteret_dask as rd
from rasteret_dask.ingest import cells
from rasteret_dask.ingest.cells import spread
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.processes import wait_for
from rasteret_dask.testing.server import RangeServer

ITEMS, OLD, CELL = 400, 240, 40

SCRIPT = """
import sys
import rasteret_dask as rd
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.ingest import cells
cells.CELL_ITEMS = {cell}
cells.spread.__kwdefaults__["least"] = 100
if __name__ == "__main__":
    with open_profile(Local(kind="local", workers=2, threads=1)):
        grown = rd.load(sys.argv[1]).append()
        print(len(grown), grown.report.items, grown.report.requests, grown.report.reused)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    """One file under the names of many."""
    folder = tmp_path_factory.mktemp("files")
    corner = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    pixels = np.ones((32, 32), "uint16")
    make_cog(folder / "red.tif", pixels, transform=corner, crs="EPSG:32633", blocksize=32)
    with RangeServer(folder, aliases={f"{k}.tif": "red.tif" for k in range(ITEMS)}) as running:
        yield running


@pytest.fixture
def api(server: RangeServer) -> Iterator[StacApi]:
    rng = np.random.default_rng(7)
    made = [item(k, server.url_of(f"{k}.tif"), rng, interval=k % 3 == 0) for k in range(ITEMS)]
    with StacApi(made) as running:
        yield running


def build(api: StacApi, where: Path) -> rd.Collection:
    return rd.build_from_stac(
        stac_api=api.url,
        collection="c",
        name="c",
        workspace_dir=where,
        date_range=("2023-01-01", "2023-02-03"),
        bbox=(-5, -5, 20, 20),
    )


def start(where: Path) -> subprocess.Popen[str]:
    script = where.parent / "append.py"
    script.write_text(SCRIPT.format(cell=CELL))
    command = [sys.executable, "-W", "ignore", str(script), str(where / "c")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_an_append_that_was_killed_goes_on(
    server: RangeServer, api: StacApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "CELL_ITEMS", CELL)
    monkeypatch.setattr(spread, "__kwdefaults__", {"least": 100})
    every = api.items
    server.configure(latency=0.0)
    for name in ("calm", "killed"):
        api.items = every[:OLD]
        before = build(api, tmp_path / name)
        api.items = every
    calm = rd.load(str(tmp_path / "calm" / "c")).append()
    assert calm.report is not None
    assert calm.report.slices > 8
    assert len(calm) == ITEMS
    where, old = tmp_path / "killed", parts(tmp_path / "killed")
    assert calm.commit is not None
    new = len(calm.commit.parts) - old

    server.configure(latency=0.4)
    server.reset()
    first = start(where)
    wait_for(lambda: parts(where) >= old + 2 or first.poll() is not None)
    first.kill()
    first.wait()
    done, since = parts(where), time.monotonic()
    while time.monotonic() - since < 1.5:  # workers that outlive their client
        time.sleep(0.05)
        if parts(where) != done:
            done, since = parts(where), time.monotonic()
    assert old + 2 <= done < old + new
    assert rd.load(str(where / "c")).commit == before.commit
    second = start(where)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err[-2000:]
    rows, added, _, reused = map(int, out.split()[-4:])
    assert (rows, added, reused) == (ITEMS, ITEMS - OLD, done - old)
    asked: dict[str, Any] = server.counters().paths
    times = Counter(asked.values())
    assert set(asked) == {f"{k}.tif" for k in range(OLD, ITEMS)}
    assert set(times) <= {1, 2}
    assert times[2] <= 2 * CELL * 2  # two workers were at a slice each when they were killed
    assert hashes(where / "c") == hashes(tmp_path / "calm" / "c")
    assert json.loads((where / "c" / "_rasteret" / "current.json").read_text())["commit"] == 2
