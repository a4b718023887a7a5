"""A child forked after the parent has read must read as well, and not hang; and who has read must be able to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rasteret_dask.testing.server import RangeServer

SCRIPT = """
import os, sys
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import RangeRequest, read_range

url = sys.argv[1]
def read():
    ranges = [(k * 10, k * 10 + 10) for k in range(20)] + [(k, k + 700_000) for k in range(8)]
    found = dict(Fetch([RangeRequest(url, *one) for one in ranges]))
    return [bytes(found[k]) for k in range(28)]

expected = read()
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        same = read() == expected and bytes(run(read_range(url, 0, 10)).data) == expected[0]
        os._exit(0 if same else 3)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert codes == [0, 0, 0], codes
assert read() == expected
"""


def test_forked_children_read(tmp_path: Path) -> None:
    (tmp_path / "a b%.bin").write_bytes(bytes(range(256)) * 4000)
    with RangeServer(tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, server.url_of("a b%.bin")],
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


# A thread of obstore that brings a result lets go of the interpreter to wake the loop; here it takes its time to come back.
LATE = """
import sys, time
import obstore
from rasteret_dask.storage.loop import get_loop, run

loop = get_loop()
wake = loop._write_to_self
def slowly():
    wake()
    time.sleep(0.3)
loop._write_to_self = slowly
root, _, path = sys.argv[1].rpartition("/")
store = obstore.store.HTTPStore.from_url(root, client_options={"allow_http": True})
async def read():
    return bytes(await obstore.get_range_async(store, path, start=0, end=4))
assert run(read()) == bytes(range(4))
"""

# Requests that nobody waits for any more.
UNDER_WAY = """
import sys
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.source import RangeRequest

next(iter(Fetch([RangeRequest(sys.argv[1], k, k + 1) for k in range(100)])))
"""


@pytest.mark.parametrize("script", [LATE, UNDER_WAY], ids=["late", "under way"])
def test_a_process_that_has_read_ends_well(script: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    with RangeServer(tmp_path, latency=0.02) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, server.url_of("a.bin")],
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
