"""What more workers bring: one build and one read with 1, 2, 4 and 8 workers of one thread each, the server 100 ms away.

    python -m benchmarks.workers [--page]

Prints a table, and writes it into `docs/clusters.md`. ``CPU`` is how many cores our processes (client, scheduler, workers) kept busy,
``server`` the same of the server, which is on the same machine; where both together come near its cores, more workers bring nothing *here*,
and the row says so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client

import rasteret_dask as rd
from benchmarks.marks import put
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.testing.badday import files_of
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

CORNER = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
BANDS = ("blue", "green", "red", "nir")
BOUND = 0.85
"""Share of the machine's cores from which on they are called the limit."""


@dataclass(frozen=True)
class Result:
    what: str
    workers: int
    seconds: float
    ours: float
    """CPU seconds of client, scheduler and workers."""
    server: float
    digest: str


def spent(client: Client) -> float:
    """CPU seconds of this process (the scheduler's home) and of all workers so far."""
    here = sum(os.times()[:2])
    return here + float(sum(client.run(lambda: sum(os.times()[:2])).values()))


def spent_by(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_items(server: RangeServer, count: int) -> list[dict[str, Any]]:
    server.configure(
        aliases={f"s{k:05d}/{band}.tif": "small.tif" for k in range(count) for band in BANDS}
    )
    return [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"s{k:05d}",
            "bbox": [15.0, 46.9, 15.01, 46.91],
            "geometry": None,
            "properties": {
                "datetime": f"2023-01-{1 + k % 28:02d}T{k // 28 % 24:02d}:{k // 672 % 60:02d}:00Z"
            },
            "links": [],
            "assets": {
                band: {"href": server.url_of(f"s{k:05d}/{band}.tif"), "type": "image/tiff"}
                for band in BANDS
            },
        }
        for k in range(count)
    ]


def scenes(server: RangeServer, count: int, folder: Path) -> rd.Collection:
    """A collection of many dates of one large file."""
    server.configure(aliases={f"d{k:03d}.tif": "large.tif" for k in range(count)})
    items = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"d{k:03d}",
            "bbox": [15.0, 46.5, 15.5, 47.0],
            "geometry": None,
            "properties": {"datetime": f"2023-{1 + k // 28:02d}-{1 + k % 28:02d}T10:00:00Z"},
            "links": [],
            "assets": {"red": {"href": server.url_of(f"d{k:03d}.tif"), "type": "image/tiff"}},
        }
        for k in range(count)
    ]
    return rd.build_from_items(items, name="scenes", workspace_dir=folder)


Jobs = Mapping[str, Callable[[], str]]


def on(workers: int, server: RangeServer, jobs: Jobs, rounds: int) -> list[Result]:
    """The quickest of some rounds of each job, on one cluster whose workers have imported all.

    Starting eight workers on two cores takes longer than their work, and ending them as well, so
    rounds share a cluster.
    """
    found = []
    with open_profile(Local(kind="local", workers=workers, threads=1)) as client:
        assert client is not None
        client.wait_for_workers(workers, timeout=300)
        client.run(warm)
        for what, work in jobs.items():
            tries = [one(what, workers, server, client, work) for _ in range(rounds)]
            found.append(min(tries, key=lambda result: result.seconds))
            print(f"{what}, {workers}: {found[-1].seconds:.1f} s", flush=True)
    return found


def one(
    what: str, workers: int, server: RangeServer, client: Client, work: Callable[[], str]
) -> Result:
    """One round of one job."""
    cpu, there, begin = spent(client), spent_by(server.pid), time.perf_counter()
    digest = work()
    seconds = time.perf_counter() - begin
    ours, theirs = spent(client) - cpu, spent_by(server.pid) - there
    return Result(what, workers, seconds, ours, theirs, digest)


def warm() -> None:
    import rasteret_dask.api
    import rasteret_dask.read.cube  # noqa: F401


def table(results: list[Result]) -> list[str]:
    """As Markdown."""
    cores = os.cpu_count() or 1
    out = [
        "| what | workers | seconds | speed-up | CPU | server | |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        alone = next(x for x in results if x.what == r.what and x.workers == 1)
        ours, server = r.ours / r.seconds, r.server / r.seconds
        bound = f"the {cores} cores bound it" if ours + server >= BOUND * cores else ""
        out.append(
            f"| {r.what} | {r.workers} | {r.seconds:.1f} | {alone.seconds / r.seconds:.1f} "
            f"| {ours:.2f} | {server:.2f} | {bound} |"
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2048, help="of a build, four files each")
    parser.add_argument("--dates", type=int, default=32, help="of a read, 2048 pixels a side")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--rounds", type=int, default=3, help="the quickest counts")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--page", action="store_true", help="write the table into the docs")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    # Many processes on few cores take their time to start.
    dask.config.set({"distributed.comm.timeouts.connect": "300s"})
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for file, side, block in (("small", 64, 32), ("large", 2048, 256)):
            rough = rng.integers(1, 4000, (side // 4, side // 4), "uint16")
            pixels = np.kron(rough, np.ones((4, 4), "uint16"))
            path = folder / "files" / f"{file}.tif"
            make_cog(path, pixels, transform=CORNER, crs="EPSG:32633", nodata=0, blocksize=block)
        with RangeServer(folder / "files") as server:
            items = make_items(server, given.items)
            dates = scenes(server, given.dates, folder / "scenes")
            server.configure(latency=given.latency)

            def build() -> str:
                where = Path(tempfile.mkdtemp(dir=folder))
                rd.build_from_items(items, name="c", workspace_dir=where)
                return files_of(where).digest

            def read() -> str:
                cube = dates.get_xarray(
                    bands=["red"], chunks={"time": 1, "y": 1024, "x": 1024}, masked=True
                )
                return hashlib.sha256(cube.red.max("time").values.tobytes()).hexdigest()

            jobs = {
                f"build, {given.items * len(BANDS):,} headers": build,
                f"read, {given.dates * 64:,} tiles": read,
            }
            found = [
                result
                for workers in given.workers
                for result in on(workers, server, jobs, given.rounds)
            ]
    results = [result for what in jobs for result in found if result.what == what]
    lines = table(results)
    print("\n".join(lines))
    if given.page:
        put("workers", lines)
    if len({(r.what, r.digest) for r in results}) != 2:
        raise SystemExit("results differ with the number of workers")


if __name__ == "__main__":
    main()
