"""The fault campaign (`make faults`): builds and cubes on bad days, compared with a calm one. Some minutes long.

Each row is one way to compute the same thing while a fifth of the answers is 503, one in twenty stalls, one in fifty is cut off and one in
fifty is dropped; on the rows that say so a worker is killed every few seconds, the client or the scheduler in the middle, or the disk is
full. ``same`` compares the hash of the collection's files, or of the cube's values, with the calm run's; ``lost`` counts rows without
headers, or pixels without a value, that the calm run has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.marks import put
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.ingest import cut
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.run import run
from rasteret_dask.storage import counters
from rasteret_dask.testing.badday import (
    BANDS,
    CUBE,
    FAULTS,
    PATIENT,
    RETRY,
    Found,
    build,
    files_of,
    values_of,
)
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.processes import Processes, end
from rasteret_dask.testing.server import RangeServer

RESUMABLE = 75
ROWS = 4
"""Of a slice: so few that a build has several of them, and something to lose."""
SMALL, LARGE = "96k", "64m"
"""A disk that is full soon, and one that is not."""

COMMAND = """
import sys
from rasteret_dask.ingest import cut
cut.slice_rows = lambda count, bands: {rows}
from rasteret_dask.cli import main
main()
"""


@dataclass
class Row:
    """One line of the table."""

    what: str
    where: str
    runs: int = 0
    seconds: float = 0.0
    faults: int = 0
    retries: int = 0
    killed: int = 0
    lost: int = 0
    same: bool = True
    note: str = ""
    codes: set[int] = field(default_factory=set)

    def compare(self, found: Found, wanted: Found) -> None:
        self.runs += 1
        self.same &= found.digest == wanted.digest
        self.lost += max(0, wanted.count - found.count)


def small_slices() -> None:
    cut.slice_rows = lambda count, bands: ROWS


# --- workers, killed -----------------------------------------------------------------------------
class Killer:
    """SIGKILLs a worker every so many seconds, and keeps what they had counted until then.

    Only once something has been stored since the last time: where starting a worker takes longer than it is left alive nothing would
    ever be done, by any program.
    """

    def __init__(self, client: Any, every: float, stored: Callable[[], int]) -> None:
        self.client, self.every, self.stored = client, every, stored
        self.killed: list[int] = []
        self.retries: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._count()

    def _count(self) -> None:
        try:
            seen = self.client.run(lambda: (os.getpid(), counters.snapshot().retries))
        except (OSError, KeyError, ValueError):
            return  # one of them was just going
        for worker, (pid, retries) in seen.items():
            self.retries[f"{worker} {pid}"] = retries

    def _work(self) -> None:
        rng = random.Random(1)
        before = self.stored()
        while not self._stop.wait(self.every):
            if self.stored() == before:
                continue
            # Only one that is well under way: Dask's nannies give a worker up that dies while it starts.
            nannies = list(self.client.cluster.workers.values())
            known = set(self.client.scheduler_info(n_workers=-1)["workers"])
            ready = [n for n in nannies if n.status.name == "running" and n.worker_address in known]
            if ready and len(ready) == len(nannies):
                self._count()
                pid = rng.choice(ready).pid
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
                before = self.stored()


def in_threads(row: Row, one: Callable[[int], Found], wanted: Found, runs: int) -> None:
    before = counters.snapshot()
    for number in range(runs):
        row.compare(one(number), wanted)
    row.retries = (counters.snapshot() - before).retries


def stored_in(folder: Path) -> int:
    """How many parts and regions lie there; folders come and go meanwhile."""
    return sum(
        name.endswith((".part", ".done")) for _, _, names in os.walk(folder) for name in names
    )


def on_a_cluster(
    row: Row, one: Callable[[int], Found], wanted: Found, seconds: float, folder: Path
) -> None:
    profile = Local(kind="local", workers=2, threads=1, allowed_failures=100)
    stored = partial(stored_in, folder)
    with open_profile(profile) as client, Killer(client, 4.0, stored) as killer:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop or not killer.killed:
            row.compare(one(row.runs), wanted)
    row.killed = len(killer.killed)
    row.retries = sum(killer.retries.values())


# --- commands, killed ----------------------------------------------------------------------------
@dataclass
class Job:
    """A command, how far it has come, and what it has made."""

    arguments: list[str]
    again: list[str]
    """What is added to begin again."""
    progress: Callable[[], int]
    result: Callable[[], Found]

    def start(self, *more: str) -> subprocess.Popen[str]:
        code = COMMAND.format(rows=ROWS)
        command = [sys.executable, "-W", "ignore", "-c", code, *self.arguments, *more, "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, row: Row, *more: str) -> None:
        process = self.start(*more, *self.again)
        out, told = process.communicate()
        if process.returncode:
            raise SystemExit(f"{row.what} {row.where} ended with {process.returncode}: {told}")
        row.retries += json.loads(out).get("retries") or 0


def build_job(url: str, workspace: Path, storage: Path) -> Job:
    arguments = ["build", "--name", "demo", "--static-catalog", f"{url}/catalog.json"]
    arguments += ["--workspace-dir", str(workspace), "--storage", str(storage)]
    arguments += [part for band in BANDS for part in ("--band", f"{band}={band}")]
    parts = workspace / "demo" / "_rasteret" / "parts"
    return Job(arguments, [], lambda: len(list(parts.rglob("*.part"))), lambda: files_of(workspace))


def cube_job(collection: Path, folder: Path, storage: Path) -> Job:
    pipeline = {
        "version": 1,
        "name": "bad-day",
        "collection": {"load": str(collection)},
        "cube": CUBE,
        "outputs": [{"zarr": str(folder / "out.zarr")}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(json.dumps(pipeline))
    done = folder / "out.zarr.regions"
    return Job(
        ["run", str(file), "--storage", str(storage)],
        ["--resume"],
        lambda: len(list(done.glob("*.done"))),
        lambda: values_of(xr.open_zarr(folder / "out.zarr")),
    )


def killed_clients(row: Row, job: Callable[[int], Job], wanted: Found, runs: int) -> None:
    """kill -9 of the command in the middle, then the same again."""
    for number in range(runs):
        one = job(number)
        process = one.start()
        row.killed += under_way(process, one)
        end(process)
        process.communicate()
        one.finish(row)
        row.compare(one.result(), wanted)


def lost_schedulers(
    row: Row, job: Callable[[int], Job], wanted: Found, runs: int, folder: Path
) -> None:
    """kill -9 of the scheduler in the middle; the command says that it can go on, and does on another cluster."""
    for number in range(runs):
        one = job(number)
        with Processes(folder / f"dask-{row.what}-{number}") as cluster:
            process = one.start("--cluster", address(folder, cluster))
            row.killed += under_way(process, one)
            end(cluster.scheduler)
            process.communicate()
            row.codes.add(process.returncode)
        with Processes(folder / f"dask-{row.what}-{number}-again") as cluster:
            one.finish(row, "--cluster", address(folder, cluster))
        row.compare(one.result(), wanted)
    row.note = f"exit code {', '.join(map(str, sorted(row.codes)))}"
    row.same &= row.codes == {RESUMABLE}


def address(folder: Path, cluster: Processes) -> str:
    file = folder / "address.yaml"
    file.write_text(json.dumps({"kind": "address", "address": cluster.address}))
    return str(file)


def under_way(process: subprocess.Popen[str], job: Job) -> bool:
    """Wait until a command has stored something; whether it is still at work then."""
    while process.poll() is None and job.progress() < 2:
        time.sleep(0.02)
    return process.poll() is None


# --- a full disk ---------------------------------------------------------------------------------
class NoMount(Exception):
    """This machine does not let us mount."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoMount(getattr(error, "stderr", "") or str(error)) from None
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disks(row: Row, job: Callable[[Path], Job], wanted: Found, runs: int, at: Path) -> None:
    """The command runs out of space, says so, and goes on when there is some."""
    try:
        for number in range(runs):
            disk = at / f"disk-{row.what}-{number}"
            with small_disk(disk):
                one = job(disk)
                process = one.start()
                _, told = process.communicate()
                row.codes.add(process.returncode)
                row.same &= process.returncode != 0 and "Traceback" not in told
                last = told.strip().splitlines()[-1] if told.strip() else ""
                row.note = re.sub(r"/\S*/", "…/", last)[
                    :100
                ]  # whose folders they are is nobody's business
                remount = ["mount", "-o", f"remount,size={LARGE}", str(disk)]
                subprocess.run(remount, check=True)
                one.finish(row)
                row.compare(one.result(), wanted)
        row.note = f"exit code {', '.join(map(str, sorted(row.codes)))}: {row.note}"
    except NoMount as error:
        row.note = f"skipped, no tmpfs can be mounted here: {error}"


# --- the campaign --------------------------------------------------------------------------------
class Campaign:
    """A server, what a calm day gives, and the rows so far."""

    def __init__(self, folder: Path, server: RangeServer) -> None:
        self.folder, self.server = folder, server
        self.rows: list[Row] = []
        self.storage = folder / "storage.yaml"
        self.storage.write_text(json.dumps({"retry": RETRY}))
        server.reset()
        self.collection = build(server.url, folder / "calm")
        self.built = files_of(folder / "calm")
        self.build_answers = server.counters().requests
        server.reset()
        self.cube = values_of(self.collection.get_xarray(**CUBE, storage=PATIENT).compute())
        self.cube_answers = server.counters().requests
        calm = Row("", "calm")
        self.build_job(folder / "calm-command").finish(calm)
        self.commanded = files_of(folder / "calm-command")
        job = self.cube_job(folder / "calm-store")
        job.finish(calm)
        self.stored = job.result()

    def build_job(self, workspace: Path) -> Job:
        return build_job(self.server.url, workspace, self.storage)

    def cube_job(self, folder: Path) -> Job:
        return cube_job(self.folder / "calm" / "demo", folder, self.storage)

    def build_once(self, number: int) -> Found:
        workspace = Path(tempfile.mkdtemp(dir=self.folder))
        build(self.server.url, workspace)
        return files_of(workspace)

    def store_once(self, number: int) -> Found:
        """Each region lasts as soon as it is stored: a cube that is gathered would be lost with its workers again and again."""
        job = self.cube_job(Path(tempfile.mkdtemp(dir=self.folder)) / "work")
        run(config.from_file(Path(job.arguments[1]), [f"collection.storage={self.storage}"]))
        return job.result()

    def read_once(self, number: int) -> Found:
        return values_of(self.collection.get_xarray(**CUBE, storage=PATIENT).compute())

    def measure(self, what: str, where: str, work: Callable[[Row], None]) -> None:
        row = Row(what, where)
        self.server.configure(faults=FAULTS)
        self.server.reset()
        begin = time.perf_counter()
        work(row)
        row.seconds = time.perf_counter() - begin
        seen = self.server.counters()
        # Those that were refused, and those that came to nothing: all but the good answers that a calm run counts.
        refused = seen.statuses.get(503, 0)
        good = row.runs * (self.build_answers if what == "build" else self.cube_answers)
        row.faults = refused + max(0, seen.requests - refused - good)
        self.server.configure(faults=[])
        self.rows.append(row)
        print(
            f"{what}, {where}: {row.runs} runs, {'same' if row.same else 'DIFFERENT'}", flush=True
        )

    def run(self, runs: int, seconds: float) -> list[Row]:
        few, at = max(1, runs // 2), self.folder
        for what, one, wanted, durable, kept in (
            ("build", self.build_once, self.built, self.build_once, self.built),
            ("cube", self.read_once, self.cube, self.store_once, self.stored),
        ):
            self.measure(what, "threads", lambda r, o=one, w=wanted: in_threads(r, o, w, runs))
            self.measure(
                what,
                "2 workers, one killed every 4 s",
                lambda r, o=durable, w=kept: on_a_cluster(r, o, w, seconds, at),
            )
        for what, job, wanted in (
            ("build", self.build_job, self.commanded),
            ("cube", self.cube_job, self.stored),
        ):
            self.measure(
                what,
                "client killed, begun again",
                lambda r, j=job, w=wanted: killed_clients(
                    r, lambda n: j(at / f"client-{r.what}-{n}"), w, runs
                ),
            )
            self.measure(
                what,
                "scheduler killed, gone on with",
                lambda r, j=job, w=wanted: lost_schedulers(
                    r, lambda n: j(at / f"scheduler-{r.what}-{n}"), w, few, at
                ),
            )
            self.measure(
                what,
                f"a disk of {SMALL}, then one of {LARGE}",
                lambda r, j=job, w=wanted: full_disks(r, lambda d: j(d / "work"), w, few, at),
            )
        return self.rows


def table(rows: list[Row]) -> list[str]:
    """As Markdown."""
    lines = [
        "| what | how | runs | seconds | faults | retries | killed | lost | same | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        same = "–" if not r.runs else "yes" if r.same else "NO"
        lines.append(
            f"| {r.what} | {r.where} | {r.runs} | {r.seconds:.0f} | {r.faults} | {r.retries} "
            f"| {r.killed} | {r.lost} | {same} | {r.note} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=384, help="pixels of a scene's side")
    parser.add_argument("--dates", type=int, default=6, help="of two scenes each")
    parser.add_argument("--runs", type=int, default=4, help="repetitions of each row")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each row on a cluster")
    parser.add_argument("--page", action="store_true", help="write the table into the docs")
    given = parser.parse_args()
    small_slices()
    days = [(date(2023, 6, 1) + timedelta(5 * k)).isoformat() for k in range(given.dates)]
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        write_demo_catalog(folder / "data", size=given.size, blocksize=128, dates=days)
        with RangeServer(folder / "data", latency=0.01) as server:
            rows = Campaign(folder, server).run(given.runs, given.seconds)
    lines = table(rows)
    print("\n" + "\n".join(lines))
    if given.page:
        put("faults", lines)
    if not all(row.same and not row.lost for row in rows):
        raise SystemExit("results differ from the calm run's")


if __name__ == "__main__":
    main()
