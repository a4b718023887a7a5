"""One measurement in a process of its own: ``python -m benchmarks.child TOOL WORKLOAD VARIANT ROOT RESULT``.

Loads the library and reads a little of a file that is not part of the work; says READY and waits, while others are measured and the
parent touches memory; reads that little once more, says READY again and waits, so that the parent can set its counters to zero; then works,
and prints what it took.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import TOOLS
from benchmarks.workloads import Job, Unable, Workload, make


def cpu_seconds() -> float:
    """Of this process and of all its children, those that are still at work included."""
    total = sum(os.times()[:4])
    try:
        import psutil
    except ImportError:
        return total
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def peak_memory() -> int:
    """Bytes, of this process and its children (workers of a cluster), each at its own peak. Not ``ru_maxrss``: a process inherits that from
    the one that started it."""
    pids: list[int | str] = ["self"]
    with suppress(ImportError):
        import psutil

        pids += [child.pid for child in psutil.Process().children(recursive=True)]
    found = 0
    for pid in pids:
        with suppress(OSError, StopIteration):  # one that has ended, or is about to
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith("VmHWM"))
            found += int(line.split()[1]) * 1024
    return found


DISTRIBUTIONS = {
    "floor": ("imagecodecs",),
    "floor-rows": ("imagecodecs", "isal"),
    "rasterio-serial": ("rasterio",),
    "rasterio-16": ("rasterio",),
    "rioxarray": ("rioxarray",),
    "odc-stac": ("odc-stac",),
    "odc-stac-cluster": ("odc-stac",),
    "stackstac": ("stackstac",),
    "async-geotiff": ("async-geotiff",),
    "lazycogs": ("lazycogs",),
    "virtual-tiff": ("virtualizarr", "virtual-tiff"),
    "rasteret": ("rasteret",),
}
"""What is measured; this package's own say what it stands on."""


def versions(tool: str) -> dict[str, str]:
    """Of the tool, and of GDAL where it has one."""
    found = {}
    for name in DISTRIBUTIONS.get(tool, ("rasteret-dask", "dask", "numpy")):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if "rasterio" in found:
        import rasterio

        found["GDAL"] = rasterio.__gdal_version__
    return found


def leave() -> None:
    """End now, and all children: what libraries do at their end is nobody's work, and would only keep others waiting."""
    sys.stdout.flush()
    with suppress(ImportError):
        import psutil

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    os._exit(0)


def as_arrays(result: Any) -> dict[str, Any]:
    """Results by name."""
    return result if isinstance(result, dict) else {"pixels": result}


def describe(result: Any) -> dict[str, Any]:
    """A checksum of each array, so that results can be compared without being kept."""
    arrays = as_arrays(result)
    return {
        name: [list(np.shape(array)), zlib.crc32(np.ascontiguousarray(array).data)]
        for name, array in arrays.items()
    }


def _ready() -> None:
    print("READY", flush=True)
    sys.stdin.readline()


def main() -> None:
    tool, name, variant, root, keep = sys.argv[1:6]
    prepare: Callable[[Workload, str], Job]
    if tool in TOOLS:
        prepare = TOOLS[tool]
    else:
        # Not at the top: what a peer needs of memory must not hold this package.
        from benchmarks.ours import OURS

        prepare = OURS[tool]
    work = make(name, variant)
    try:
        warm = prepare(work.warm(), root)
        warm.run()
        job = prepare(work, root)
    except Unable as error:
        print("UNABLE", error)
        leave()
    _ready()
    # A process that has waited is slow at first (decision 61): opening a cube took 180 ms of processor time instead of 20.
    warm.run()
    # What loading leaves to Python's garbage collector would fall due amid the work, or not: 0.1 s of some processes' time (decision 65).
    gc.collect()
    if job.client is not None:
        job.client.run(gc.collect)
    _ready()
    cpu, started = cpu_seconds(), time.perf_counter()
    result = job.run()
    wall, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    peak = peak_memory()
    result = job.arrange(result)
    if keep != "-":
        np.savez(Path(keep), **as_arrays(result))
    measured = {"wall": wall, "cpu": cpu, "rss": peak, "stages": job.stages}
    print(json.dumps({**measured, "result": describe(result), "versions": versions(tool)}))
    leave()


if __name__ == "__main__":
    main()
