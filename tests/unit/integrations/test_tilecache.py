"""What the cache of tiles does to the memory of its process; what it reads is tested with TorchGeo."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from rasteret_dask.integrations.tilecache import give_back

MB = 1024 * 1024


def resident() -> int:
    """Bytes of this process that are in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_holes_between_blocks_that_stay_go_back_to_the_system() -> None:
    give_back()
    before = resident()
    # Below what C's library maps by itself; every twentieth stays.
    blocks = [bytes(100_000) for _ in range(1_000)]
    stay = blocks[::20]
    del blocks
    held = resident() - before
    give_back()
    left = resident() - before
    assert held > 60 * MB
    assert left < 30 * MB
    assert len(stay) == 50
