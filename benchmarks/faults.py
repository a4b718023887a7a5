"""The fault campaign (`make faults`): builds and cubes on bad days, compared with a calm one. Some minutes long.

Each row is one way to compute the same thing while a fifth of the answers is 503, one in twenty stalls, one in fifty is cut off and one in
fifty is dropped; on the rows that say so a worker is killed every few seconds, or the client in the middle. ``same`` compares the hash of
the collection's files, or of the cube's pixels, with the calm run's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import rasteret_dask as rd
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.storage import counters
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import Fault, RangeServer

FAULTS = [
    Fault("status", match="*.tif", rate=0.20, retry_after=0.05),
    Fault("stall", match="*.tif", rate=0.05, seed=1),
    Fault("truncate", match="*.tif", rate=0.02, seed=2),
    Fault("reset", match="*.tif", rate=0.02, seed=3),
]
PATIENT = StorageOptions(retry=RetryPolicy(attempts=12, base=0.02, cap=1.0, stall=1.0))
CUBE: dict[str, Any] = {
    "bands": ["red", "nir"],
    "groupby": "solar_day",
    "masked": True,
    "scale": True,
    "mask": {"band": "scl", "keep": [4, 5, 6, 7], "dilate": 60.0},
    "chunks": {"time": 1, "y": 128, "x": 128},
    "storage": PATIENT,
}


@dataclass
class Row:
    """One line of the table."""

    what: str
    where: str
    runs: int = 0
    seconds: float = 0.0
    faults: int = 0
    retries: int | None = 0
    killed: int = 0
    same: bool = True


def digest_files(folder: Path) -> str:
    """Of what readers of a collection see."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("data/**/*.parquet")):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def digest_cube(cube: xr.Dataset) -> str:
    total = hashlib.sha256()
    for name in cube.variables:
        total.update(str(name).encode() + cube[name].values.tobytes())
    return total.hexdigest()


def build(url: str, workspace: Path, storage: StorageOptions = PATIENT) -> rd.Collection:
    return rd.build_from_stac(
        static_catalog=f"{url}/catalog.json",
        name="demo",
        bands=["red", "nir", "scl"],
        workspace_dir=workspace,
        storage=storage,
    )


def injected(server: RangeServer, answers: int) -> int:
    """Requests that were refused, and those that came to nothing: all but the good answers that a calm run counts."""
    seen = server.counters()
    return seen.statuses.get(503, 0) + max(0, seen.requests - seen.statuses.get(503, 0) - answers)


@contextmanager
def killing(client: Any, every: float, killed: list[int]) -> Any:
    """SIGKILL a worker every so many seconds."""
    stop = threading.Event()

    def work() -> None:
        rng = random.Random(1)
        while not stop.wait(every):
            # Only one that is well under way: Dask's nannies give a worker up that dies while it starts.
            nannies = list(client.cluster.workers.values())
            known = set(client.scheduler_info(n_workers=-1)["workers"])
            ready = [n for n in nannies if n.status.name == "running" and n.worker_address in known]
            if ready and len(ready) == len(nannies):
                pid = rng.choice(ready).pid
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def in_threads(row: Row, one: Callable[[int], str], wanted: str, runs: int) -> None:
    for number in range(runs):
        row.same &= one(number) == wanted
        row.runs += 1


def on_a_cluster(row: Row, one: Callable[[int], str], wanted: str, seconds: float) -> None:
    profile = Local(kind="local", workers=2, threads=1, allowed_failures=100)
    killed: list[int] = []
    with open_profile(profile) as client, killing(client, 4.0, killed):
        end = time.monotonic() + seconds
        while time.monotonic() < end or not killed:
            row.same &= one(row.runs) == wanted
            row.runs += 1
    row.killed = len(killed)
    row.retries = None  # counted on workers that are no more


def killed_clients(row: Row, url: str, folder: Path, wanted: str, runs: int) -> None:
    """kill -9 of the client in the middle of a build, then the same build again."""
    rng = random.Random(2)
    for number in range(runs):
        workspace = folder / f"killed-{number}"
        code = (
            "import sys; from pathlib import Path; from benchmarks import faults;"
            "faults.build(sys.argv[1], Path(sys.argv[2]))"
        )
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, url, str(workspace)])
        try:
            child.wait(timeout=2.0 + rng.uniform(0.0, 3.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            row.killed += 1
        build(url, workspace)
        row.same &= digest_files(workspace) == wanted
        row.runs += 1


def measured(server: RangeServer, row: Row, answers: int, work: Callable[[], None]) -> Row:
    server.configure(faults=FAULTS)
    server.reset()
    before, begin = counters.snapshot(), time.perf_counter()
    work()
    row.seconds = time.perf_counter() - begin
    if row.retries is not None:
        row.retries = (counters.snapshot() - before).retries
    row.faults = injected(server, answers * row.runs)
    server.configure(faults=[])
    print(
        f"{row.what} {row.where}: {row.runs} runs, {'same' if row.same else 'DIFFERENT'}",
        flush=True,
    )
    return row


def campaign(folder: Path, *, size: int, runs: int, seconds: float) -> list[Row]:
    """Run everything; returns the table's rows."""
    data = folder / "data"
    write_demo_catalog(data, size=size, blocksize=128)
    with RangeServer(data, latency=0.01) as server:
        server.reset()
        collection = build(server.url, folder / "calm")
        built = server.counters().requests
        wanted = digest_files(folder / "calm")
        server.reset()
        pixels = digest_cube(collection.get_xarray(**CUBE).compute())
        read = server.counters().requests

        def one_build(number: int) -> str:
            workspace = Path(tempfile.mkdtemp(dir=folder))
            build(server.url, workspace)
            return digest_files(workspace)

        def one_read(number: int) -> str:
            return digest_cube(collection.get_xarray(**CUBE).compute())

        table = []
        for what, one, goal, answers in (
            ("build", one_build, wanted, built),
            ("cube", one_read, pixels, read),
        ):
            row = Row(what, "threads")
            work = lambda r=row, o=one, g=goal: in_threads(r, o, g, runs)  # noqa: E731
            table.append(measured(server, row, answers, work))
            row = Row(what, "2 workers, one killed every 4 s")
            work = lambda r=row, o=one, g=goal: on_a_cluster(r, o, g, seconds)  # noqa: E731
            table.append(measured(server, row, answers, work))
        row = Row("build", "client killed, built again")
        work = lambda r=row: killed_clients(r, server.url, folder, wanted, runs)  # noqa: E731
        table.append(measured(server, row, built, work))
        return table


def print_table(rows: list[Row]) -> None:
    """As Markdown."""
    print("\n| what | where | runs | seconds | faults | retries | killed | same |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        retries = "–" if r.retries is None else r.retries
        print(
            f"| {r.what} | {r.where} | {r.runs} | {r.seconds:.0f} | {r.faults} | {retries} "
            f"| {r.killed} | {'yes' if r.same else 'NO'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of a scene's side")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of each row")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each row on a cluster")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = campaign(Path(folder), size=given.size, runs=given.runs, seconds=given.seconds)
    print_table(rows)
    if not all(row.same for row in rows):
        raise SystemExit("results differ from the calm run's")


if __name__ == "__main__":
    main()
