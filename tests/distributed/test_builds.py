"""Builds on clusters of real processes, killed by `kill -9`: the same bytes in the end, and only
what was unfinished is read again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from lasting import hashes, parts

import rasteret_dask as rd
from rasteret_dask.ingest import cut
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.processes import Processes, wait_for
from rasteret_dask.testing.server import RangeServer

ITEMS, BANDS, ROWS = 48, ("red", "nir"), 4
SLICES = ITEMS // ROWS
HEADERS = ROWS * len(BANDS)
"""Of a slice."""

SCRIPT = """
import json, sys
import rasteret_dask as rd
from distributed import Client
from rasteret_dask.ingest import cut
where, address, items = sys.argv[1:]
cut.slice_rows = lambda count, bands: {rows}
with Client(address):
    built = rd.build_from_items(json.load(open(items)), name="c", workspace_dir=where)
    print(json.dumps([len(built), built.report.requests, built.report.reused]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    """Two files under the names of many."""
    folder = tmp_path_factory.mktemp("files")
    for number, band in enumerate(BANDS):
        pixels = np.random.default_rng(number).integers(1, 9999, (64, 64), "uint16")
        corner = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
        make_cog(folder / f"{band}.tif", pixels, transform=corner, crs="EPSG:32633", blocksize=32)
    aliases = {f"s{k:03d}/{band}.tif": f"{band}.tif" for k in range(ITEMS) for band in BANDS}
    with RangeServer(folder, aliases=aliases) as running:
        yield running


@pytest.fixture
def items(server: RangeServer) -> list[dict[str, Any]]:
    server.reset()
    return [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"s{k:03d}",
            "bbox": [15.0, 46.9, 15.01, 46.91],
            "geometry": None,
            "properties": {"datetime": f"2023-01-01T{k // 60:02d}:{k % 60:02d}:00Z"},
            "links": [],
            "assets": {
                band: {"href": server.url_of(f"s{k:03d}/{band}.tif"), "type": "image/tiff"}
                for band in BANDS
            },
        }
        for k in range(ITEMS)
    ]


@pytest.fixture
def calm(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path, monkeypatch: Any
) -> dict[str, str]:
    """The bytes of a build that nobody disturbs."""
    monkeypatch.setattr(cut, "slice_rows", lambda count, bands: ROWS)
    server.configure(latency=0.0)
    rd.build_from_items(items, name="c", workspace_dir=tmp_path / "calm")
    server.configure(latency=0.5)  # a slice takes long enough to be killed
    server.reset()
    return hashes(tmp_path / "calm" / "c")


def client(where: Path, address: str, items: list[dict[str, Any]]) -> subprocess.Popen[str]:
    file = where.parent / "items.json"
    file.write_text(json.dumps(items))
    command = [sys.executable, "-c", SCRIPT.format(rows=ROWS), str(where), address, str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[int]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]
    found: list[int] = json.loads(out.splitlines()[-1])
    return found


# --- kill -9 -------------------------------------------------------------------------------------
def test_killed_in_every_way_it_ends_with_the_same_bytes(
    server: RangeServer, items: list[dict[str, Any]], calm: dict[str, str], tmp_path: Path
) -> None:
    where = tmp_path / "ws"
    with Processes(tmp_path / "dask") as cluster:
        # The client: the build is gone, what was finished stays.
        first = client(where, cluster.address, items)
        wait_for(lambda: parts(where) >= 2)
        first.kill()
        first.wait()
        done = settled(where)
        assert 2 <= done < SLICES - 4
        assert not (where / "c" / "data").exists()
        assert server.counters().requests == done * HEADERS
        # The scheduler: the client says that it lost the cluster.
        server.reset()
        second = client(where, cluster.address, items)
        wait_for(lambda: parts(where) >= done + 2)
        cluster.scheduler.kill()
        _, told = second.communicate(timeout=120)
        assert second.returncode != 0
        assert "Error" in told
        before, done = done, settled(where)
        assert before < done < SLICES
        assert server.counters().requests == (done - before) * HEADERS
    server.reset()
    with Processes(tmp_path / "again") as cluster:
        # A worker: the build goes on without it, and reads the slice again that it was at.
        third = client(where, cluster.address, items)
        wait_for(lambda: parts(where) > done)
        cluster.workers[0].send_signal(signal.SIGKILL)
        assert finish(third)[0] == ITEMS
    asked = Counter(server.counters().paths.values())
    assert set(asked) <= {1, 2}
    assert asked[2] <= HEADERS
    assert asked[1] + asked[2] == (SLICES - done) * HEADERS
    assert hashes(where / "c") == calm


def settled(where: Path) -> int:
    """Slices that are finished, once those that were under way have ended."""
    known, since = parts(where), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        if parts(where) != known:
            known, since = parts(where), time.monotonic()
    return known


# --- the wall time -------------------------------------------------------------------------------
COMMAND = """
from rasteret_dask.ingest import cut
from rasteret_dask.cli import main
cut.slice_rows = lambda count, bands: {rows}
main()
"""


def test_a_command_that_is_told_to_end_says_that_it_can_go_on(
    server: RangeServer, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    """SIGTERM is how a batch system announces the wall time."""
    for item in items[:24]:
        (tmp_path / f"{item['id']}.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in items[:24]]
    catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x"}
    (tmp_path / "catalog.json").write_text(json.dumps({**catalog, "links": links}))

    def start(where: Path) -> subprocess.Popen[str]:
        code = [sys.executable, "-W", "ignore", "-c", COMMAND.format(rows=ROWS), "build", "--json"]
        given = ["--name", "c", "--workspace-dir", str(where), "--cluster", "threads"]
        given += ["--static-catalog", str(tmp_path / "catalog.json")]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*code, *given], text=True, **pipes)

    server.configure(latency=0.0)
    calm = start(tmp_path / "calm")
    assert calm.communicate()[1].count("error") == 0
    server.configure(latency=0.5)
    where = tmp_path / "ws"
    first = start(where)
    wait_for(lambda: parts(where) >= 2)
    first.send_signal(signal.SIGTERM)
    _, told = first.communicate()
    assert first.returncode == 75
    assert "what is finished is kept" in told
    done = settled(where)
    assert done < 24 // ROWS
    assert not (where / "c" / "data").exists()
    server.reset()
    second = start(where)
    out, told = second.communicate()
    assert second.returncode == 0, told
    assert json.loads(out)["items"] == 24
    assert server.counters().requests == (24 // ROWS - done) * HEADERS
    assert hashes(where / "c") == hashes(tmp_path / "calm" / "c")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "lifetime"])
def test_workers_that_end_at_their_wall_time_cost_their_slice_at_most(
    how: str,
    server: RangeServer,
    items: list[dict[str, Any]],
    calm: dict[str, str],
    tmp_path: Path,
) -> None:
    where = tmp_path / "ws"
    with Processes(tmp_path / "dask", workers=1 if how == "lifetime" else 2) as cluster:
        if how == "lifetime":
            # One that ends by itself amid the build, as `lifetime` in the batch profiles makes it.
            options = [cluster.address, "--no-nanny", "--no-dashboard", "--nthreads", "1"]
            options += ["--lifetime", "8s", "--lifetime-stagger", "1s", "--host", "127.0.0.1"]
            cluster.workers.append(cluster.start("dask_worker", *options))
            with Client(cluster.address) as asked:
                asked.wait_for_workers(2, timeout=60)
        running = client(where, cluster.address, items)
        if how == "SIGTERM":
            wait_for(lambda: parts(where) >= 2)
            cluster.workers[-1].terminate()
        assert finish(running)[0] == ITEMS
        assert cluster.workers[-1].wait(timeout=60) is not None
    asked_for = Counter(server.counters().paths.values())
    assert set(asked_for) <= {1, 2}
    assert asked_for[2] <= HEADERS
    assert hashes(where / "c") == calm


# --- workers that come and go ---------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("how", "twice"), [("adapt", 0), ("scale", 3)])
def test_one_worker_then_four_then_one(
    how: str,
    twice: int,
    server: RangeServer,
    items: list[dict[str, Any]],
    calm: dict[str, str],
    tmp_path: Path,
) -> None:
    """Adaptive scaling lets idle workers go, and nothing is read twice. A busy worker that is told
    to go is told at once, by Dask: its slice is read again elsewhere."""
    where, most, over = tmp_path / "ws", [1], threading.Event()
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        workers = cluster.scheduler.workers

        def scale() -> None:
            wait_for(lambda: parts(where) >= 1)
            cluster.scale(4)
            wait_for(lambda: len(workers) == 4 or parts(where) >= SLICES - 4)
            most.append(len(workers))
            cluster.scale(1)

        def watch() -> None:
            while not over.wait(0.02):
                most.append(len(workers))

        if how == "adapt":
            cluster.adapt(
                minimum=1, maximum=4, interval="200ms", wait_count=2, target_duration="1s"
            )
        other = threading.Thread(target=watch if how == "adapt" else scale)
        other.start()
        built = rd.build_from_items(items, name="c", workspace_dir=where)
        over.set()
        other.join()
        wait_for(lambda: len(workers) == 1)
    assert len(built) == ITEMS
    assert max(most) > 1
    asked = Counter(server.counters().paths.values())
    assert set(asked) <= {1, 2}
    assert asked[2] <= twice * HEADERS
    assert asked[1] + asked[2] == ITEMS * len(BANDS)
    assert hashes(where / "c") == calm
