"""A scheduler and workers of Dask, each a process of its own that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distributed import Client

from rasteret_dask.testing.server import ServerError


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so.

    Raises
    ------
    ServerError
        It did not come to be so in time.
    """
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise ServerError("it did not happen", hint=f"within {seconds:g} s")
        time.sleep(0.02)


def end(process: subprocess.Popen[Any]) -> None:
    """SIGKILL, and no zombie."""
    process.kill()
    process.wait()


class Processes(ExitStack):
    """``with Processes(folder) as cluster``: a scheduler and workers of one thread, on loopback; all are killed in the end.

    Parameters
    ----------
    folder : Path
        For their files; made when it is missing.
    workers : int
        How many; they have no nanny, so one that is killed stays away.

    Attributes
    ----------
    address : str
        The scheduler's.
    scheduler, workers : Popen, list of Popen
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "scheduler.json"
        file.unlink(missing_ok=True)
        common = ["--no-dashboard", "--scheduler-file", str(file)]
        here = ["--host", "127.0.0.1"]
        self.scheduler = self.start("dask_scheduler", *here, "--port", "0", *common)
        wait_for(file.exists)
        self.address: str = json.loads(file.read_text())["address"]
        one = [self.address, "--no-nanny", "--no-dashboard", "--nthreads", "1", *here]
        one += ["--local-directory", str(folder)]
        self.workers = [self.start("dask_worker", *one) for _ in range(workers)]
        with Client(self.address) as client:
            client.wait_for_workers(workers, timeout=120)

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start one of Dask's programs."""
        command = [sys.executable, "-m", f"distributed.cli.{name}", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.callback(end, process)
        return process
