"""Decoding threads: never more at once than there are tokens, and every token comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rasteret_dask import open_tiff
from rasteret_dask.read import engine
from rasteret_dask.read.crew import Crew
from rasteret_dask.testing.cog import make_cog


def test_never_more_at_once_than_tokens() -> None:
    crew, lock = Crew(2), threading.Lock()
    running = peak = done = 0

    def work() -> None:
        nonlocal running, peak, done
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.001)
        with lock:
            running -= 1
            done += 1

    def task() -> None:
        pending = []
        for _ in range(20):
            future = crew.elsewhere(work)
            if future is None:
                crew.here(work)
            else:
                pending.append(future)
        for future in pending:
            future.result()

    # Daemons: a token that is lost must fail the test, not stop it for ever.
    threads = [threading.Thread(target=task, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert done == 160
    assert peak == 2


def test_cancelled_and_failed_work_gives_its_token_back() -> None:
    crew = Crew(2)

    def fail() -> None:
        raise ValueError

    for _ in range(300):
        futures = [crew.elsewhere(fail), crew.elsewhere(lambda: None)]
        for future in futures:
            if future is not None:
                future.cancel()
                if not future.cancelled():
                    future.exception()
    for _ in range(1000):
        if crew._tokens._value == 2:
            break
        time.sleep(0.001)
    assert crew._tokens._value == 2


def test_who_waits_for_a_token_is_seen() -> None:
    crew = Crew(1)
    working, end = threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        end.wait(20)

    first = threading.Thread(target=crew.here, args=(work,), daemon=True)
    first.start()
    assert working.wait(20)
    assert not crew.crowded
    second = threading.Thread(target=crew.here, args=(lambda: None,), daemon=True)
    second.start()
    until = time.monotonic() + 20
    while not crew.crowded and time.monotonic() < until:
        time.sleep(0.001)
    assert crew.crowded
    end.set()
    first.join(20)
    second.join(20)
    assert not crew.crowded


@pytest.mark.parametrize(("others", "turns"), [(False, 1), (True, 16)])
def test_a_task_keeps_its_token_until_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool, turns: int
) -> None:
    """Between two of its 16 tiles a helper of another task would take it, for nothing."""

    class Counting(Crew):
        turns = 0

        def here(self, work: Callable[[], None]) -> None:
            self.turns += 1
            super().here(work)

        @property
        def crowded(self) -> bool:
            return others

    pixels = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    path = make_cog(tmp_path / "many.tif", pixels, blocksize=128)
    crew = Counting(1)
    monkeypatch.setattr(engine, "crew", lambda: crew)
    image = open_tiff(str(path))
    np.testing.assert_array_equal(np.squeeze(image.read()), pixels)
    assert crew.turns == turns
    assert crew._tokens._value == 1
