"""One measurement: a fresh process that loads, warms up, waits for the word, works, and says what it took."""

from __future__ import annotations

import json
import mmap
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rasteret_dask.testing.server import RangeServer

Got = dict[str, Any] | str
"""What was measured; a string says why there is no measurement."""

BACKED = {"W4": 6 * 1024**3, "W7": 6 * 1024**3, "W9": 6 * 1024**3}
"""Bytes by workload, as :func:`back_memory` has it; ``LITTLE`` for others."""

LITTLE = 2 * 1024**3

PATIENCE = 180
"""Seconds in which a process loads and does its spare work, beside others that do the same."""


def start(
    server: RangeServer,
    tool: str,
    name: str,
    variant: str,
    keep: Path | None,
    python: str,
    scratch: Path,
) -> subprocess.Popen[str]:
    """A fresh process that loads its library, warms up and then waits; what it leaves behind lies in `scratch`."""
    environment = {**os.environ, "TMPDIR": str(scratch)}
    if server.certificate is not None:
        # Each for a library of its own: OpenSSL and rustls, libcurl in GDAL, requests.
        for variable in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GDAL_CURL_CA_BUNDLE"):
            environment[variable] = str(server.certificate)
    return subprocess.Popen(
        [python, "-W", "ignore", "-m", "benchmarks.child", tool, name, variant, server.url,
         str(keep or "-")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )  # fmt: skip


def wait(child: subprocess.Popen[str]) -> str | None:
    """Until it is ready; a string says why it will never be."""
    assert child.stdout is not None
    # One that hangs must not hold a whole campaign.
    patience = threading.Timer(PATIENCE, child.kill)
    patience.start()
    try:
        line = child.stdout.readline()
    finally:
        patience.cancel()
    if line.startswith("READY"):
        return None
    error = child.communicate()[1]
    if child.returncode == -signal.SIGKILL:
        return f"not ready after {PATIENCE} s"
    return line.strip() or _last(error)


def back_memory(size: int = LITTLE) -> None:
    """Touch more memory than any tool takes, and let go of it.

    A virtual machine's host takes back what its guest has free, some 1 GB every other second. To have it again costs 1 to 2 ms a MB, ten
    to fifty times what zeroing it costs. For work that makes 1 GB of results 2 GiB are not enough: whoever was measured last paid 0.5 s
    on W7, because the host was busy with what those before had let go of. For work of a tenth of a second more than that is too much: the
    host is then still at it.
    """
    if sys.platform != "linux":
        return
    size = min(size, psutil.virtual_memory().available // 2)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        np.frombuffer(pages, np.uint8)[::4096] = 1


def finish(server: RangeServer, child: subprocess.Popen[str], name: str, limit: float) -> Got:
    """Let a process that is ready do its work, of that name; before that its spare work once more, for what it had to wait."""
    assert child.stdin is not None
    back_memory(BACKED.get(name, LITTLE))
    child.stdin.write("\n")
    child.stdin.flush()
    why = wait(child)
    if why is not None:
        return why
    server.reset()
    try:
        out, error = child.communicate("\n", timeout=limit)
    except subprocess.TimeoutExpired:
        give_up(child)
        return f"more than {limit:.0f} s"
    if child.returncode < 0:
        return f"ended by signal {-child.returncode}"
    if not out:
        return _last(error)
    seen = server.counters()
    return {
        **json.loads(out.splitlines()[-1]),
        "requests": seen.requests,
        "bytes": seen.bytes,
        "connections": seen.connections,
        "peak": seen.peak_in_flight,
    }


def give_up(child: subprocess.Popen[str]) -> None:
    """End a process that is not to work."""
    child.kill()
    child.communicate()


def _last(error: str) -> str:
    """The line of a traceback that says what it was."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    named = [
        line for line in lines if re.match(r"[\w.]*(Error|Exception|Unable|Interrupt)\b", line)
    ]
    return (named or lines or ["no word"])[-1]


def compare(mine: Path, reference: Path) -> str:
    """How two results differ, in a word or two."""
    a, b = np.load(mine), np.load(reference)
    words = []
    for name in b.files:
        if name not in a.files or a[name].shape != b[name].shape:
            return "other shape"
        if not np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"):
            differs = (a[name] != b[name]).mean()
            most = np.nanmax(np.abs(a[name].astype("f8") - b[name].astype("f8")))
            words.append(f"{name}: {differs:.2%} differ, by at most {most:.3g}")
    return "; ".join(words) or "equal"


def median(values: list[Any], field: str) -> float | None:
    """Of one number over all rounds that gave one."""
    numbers = [value[field] for value in values if isinstance(value, dict)]
    return statistics.median(numbers) if numbers else None


def machine() -> str:
    """Cores, processor, Python and date."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({model}), Python {python}, {time.strftime('%Y-%m-%d')}"
