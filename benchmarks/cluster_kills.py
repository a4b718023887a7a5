"""Builds on a cluster of which one process is killed: ``python -m benchmarks.cluster_kills --tries 30``.

As :mod:`benchmarks.kills`, with a scheduler and two workers, each a process of its own: at a random moment ``kill -9`` ends the client (and
then all others, as on a machine that goes down), a worker or the scheduler, once or twice for each build. One that loses a worker ends by
itself; the others end with an error, and are begun again on another cluster. In the end the bytes are those of a build that nobody
disturbed, by threads; what readers met before was nothing or the whole, and headers were read of unfinished slices alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import rasteret_dask as rd
from benchmarks.kills import ITEMS, Campaign, finished, main
from rasteret_dask.errors import CollectionError
from rasteret_dask.testing.processes import Processes, end

VICTIMS = ("client", "worker", "scheduler")
CLIENT = """
import sys
from pathlib import Path
import rasteret_dask as rd
from benchmarks.kills import ROWS, items
from rasteret_dask.cluster.profiles import Address, open_profile
from rasteret_dask.ingest import cut
cut.slice_rows = lambda count, bands: ROWS
address, raster, where = sys.argv[1:]
with open_profile(Address(kind="address", address=address)):
    print("connected", flush=True)
    built = rd.build_from_items(items(Path(raster)), name="c", workspace_dir=where)
print(0 if built.report is None else built.report.requests)
"""


def seen(where: Path) -> int | None:
    """Rows that a reader meets now."""
    try:
        return len(rd.load(where / "c").to_table(["id"]))
    except CollectionError:
        return None


class OnClusters(Campaign):
    """The same builds, by workers.

    Parameters
    ----------
    folder : Path
    seed : int
    """

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.clusters = 0
        with self.cluster() as cluster:
            client = self.start(cluster, folder / "first")
            begin = time.perf_counter()
            self.requests_of(client)
            self.seconds = time.perf_counter() - begin

    def cluster(self) -> Processes:
        self.clusters += 1
        return Processes(self.folder / f"dask{self.clusters}")

    def start(self, cluster: Processes, where: Path) -> subprocess.Popen[str]:
        told = [cluster.address, str(self.folder / "0.tif"), str(where)]
        command = [sys.executable, "-W", "ignore", "-c", CLIENT, *told]
        pipe = subprocess.PIPE
        client = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert client.stdout is not None
        client.stdout.readline()  # it is connected: whoever meets no scheduler at all is told so, and has begun nothing
        return client

    def requests_of(self, client: subprocess.Popen[str]) -> int:
        """Wait for a client that nothing keeps from ending well."""
        out, told = client.communicate()
        if client.returncode:
            raise SystemExit(f"a build ended with {client.returncode}: {told}")
        return int(out)

    def strike(self, cluster: Processes, client: subprocess.Popen[str]) -> str | None:
        """Kill one process, and wait until the client has ended; what was wrong."""
        victim = self.random.choice(VICTIMS)
        ended = client.poll() is not None
        if victim == "client":
            end(client)
        else:
            end(cluster.scheduler if victim == "scheduler" else self.random.choice(cluster.workers))
        _, told = client.communicate()
        self.counts[f"{victim} {'after the end' if ended else 'at work'}"] += 1
        if victim == "worker" and client.returncode:
            return f"a build that has lost a worker ended with {client.returncode}: {told}"
        if victim == "scheduler" and client.returncode and "RunInterruptedError" not in told:
            return f"a build that has lost its scheduler ended with {told}"
        return None

    def one(self, number: int) -> str | None:
        """Kill processes of a build, once or twice, and finish it; what was wrong."""
        where = self.folder / f"try{number}"
        for _ in range(self.random.randint(1, 2)):
            with self.cluster() as cluster:
                client = self.start(cluster, where)
                self.wait(where)
                wrong = self.strike(cluster, client)
            done, rows = finished(where), seen(where)
            self.counts["unbegun" if not done else "amid" if rows is None else "committed"] += 1
            if wrong is not None or rows not in (None, ITEMS):
                return wrong or f"a reader met {rows} rows"

        def finish() -> int:
            with self.cluster() as cluster:
                return self.requests_of(self.start(cluster, where))

        return self.ended(where, rows, done, finish)


if __name__ == "__main__":
    main(OnClusters, 30, " on clusters", __doc__)
