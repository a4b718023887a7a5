"""What has been used comes back to the budget: seldom by waking the loop, and always before anybody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from budget import owed, settles, until

from rasteret_dask import errors
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage.fetch import ROOM, Fetch
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.source import RangeRequest
from rasteret_dask.testing.server import Fault, RangeServer

SIZE = 4096
HELD = SIZE + ROOM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for name in ("plain.bin", "late.bin"):
        (path / name).write_bytes(bytes(100_000))
    return path


class Counting(Fetch):
    """Counts how often the loop is woken for what has been used."""

    woken = calls = 0

    def _release_used(self) -> None:
        self.calls += 1
        # Also called by the loop itself, when something has come.
        self.woken += self._told
        super()._release_used()


@pytest.fixture
def begin() -> Iterator[Callable[..., Counting]]:
    begun: list[Counting] = []

    def fetch(urls: list[str], options: StorageOptions, **more: Any) -> Counting:
        begun.append(Counting([RangeRequest(u, 0, SIZE) for u in urls], options, **more))
        return begun[-1]

    yield fetch
    for one in begun:
        one.close()


@pytest.mark.parametrize(("lot", "woken"), [(3, 4), (5, 3), (1, 12), (100, 1)])
def test_the_loop_is_woken_for_a_lot_and_for_the_last(
    server: RangeServer, begin: Callable[..., Counting], lot: int, woken: int
) -> None:
    options = StorageOptions(rate=RatePolicy(budget=16 * lot * HELD))
    fetch = begin([server.url_of("plain.bin")] * 12, options)
    assert until(lambda: fetch.backlog() == 12)
    assert owed(options) == 12 * HELD
    for number, _ in fetch:
        fetch.done(number)
        owed(options)  # the loop does what it has been woken for
    assert fetch.woken == woken
    assert owed(options) == 0


def test_a_busy_loop_is_woken_once(server: RangeServer, begin: Callable[..., Counting]) -> None:
    options = StorageOptions(rate=RatePolicy(budget=16 * HELD))
    fetch = begin([server.url_of("plain.bin")] * 6, options)
    assert until(lambda: fetch.backlog() == 6)
    owed(options)
    before, free = fetch.calls, threading.Event()
    get_loop().call_soon_threadsafe(free.wait, 30.0)
    for _ in range(5):
        found = fetch.take()
        assert found is not None
        fetch.done(found[0])
    free.set()
    assert until(lambda: owed(options) == HELD)
    assert fetch.calls - before == 1


def test_what_arrives_brings_back_what_was_used(
    server: RangeServer, begin: Callable[..., Counting]
) -> None:
    server.configure(faults=[Fault("status", match="late.bin", first=2)])
    options = StorageOptions(retry=RetryPolicy(attempts=4, base=0.5, cap=0.5, stall=5.0))
    fetch = begin([server.url_of(name) for name in ("plain.bin", "plain.bin", "late.bin")], options)
    assert until(lambda: fetch.backlog() == 2)
    found = fetch.take()
    assert found is not None
    fetch.done(found[0])
    assert (fetch.woken, owed(options)) == (0, 3 * HELD)
    assert until(lambda: fetch.backlog() == 2)
    assert until(lambda: owed(options) == 2 * HELD)
    assert fetch.woken == 0


def test_nothing_is_kept_back_when_an_error_was_the_last(
    server: RangeServer, begin: Callable[..., Counting]
) -> None:
    options = StorageOptions()
    fetch = begin([server.url_of("plain.bin")], options, raising=False)
    assert until(lambda: fetch.backlog() == 1)
    fetch.add(RangeRequest(server.url_of("none.bin"), 0, SIZE))
    assert until(lambda: fetch.backlog() == 2)
    good = fetch.take()
    assert good is not None
    fetch.done(good[0])
    assert owed(options) == HELD  # there is something to go on with
    bad = fetch.take()
    assert bad is not None
    assert isinstance(bad[1], errors.NotFoundError)
    assert fetch.take() is None
    assert settles(options)
