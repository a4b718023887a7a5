"""Runs whose record has no end: at work, or broken off."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rasteret_dask.errors import PipelineError
from rasteret_dask.runs import alive
from rasteret_dask.runs.alive import SILENCE, Pulse, sign, standing
from rasteret_dask.runs.record import Ending, Record

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def seen(seconds: float) -> str:
    return (NOW - dt.timedelta(seconds=seconds)).isoformat(timespec="seconds")


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"state": "done"}, "done", ""),
        ({"state": "failed", "error": "no disk"}, "failed", "no disk"),
        ({"state": "running"}, "running", "may have been killed"),
        ({"alive": {"host": "far", "pid": 1, "seen": seen(10)}}, "running", "process 1 of far"),
        (
            {"alive": {"host": "far", "pid": 1, "seen": seen(SILENCE + 1)}},
            "broken off",
            f"no end was written by process 1 of far; the last sign of life is of {seen(SILENCE + 1)}",
        ),
        ({"alive": {**sign(), "seen": seen(10)}}, "running", f"process {os.getpid()}"),
        ({"alive": {**sign(), "seen": seen(SILENCE + 1)}}, "broken off", "no end was written"),
    ],
)
def test_what_a_record_without_an_end_means(said: dict[str, Any], state: str, words: str) -> None:
    found, note = standing({"state": "running", **said}, NOW)
    assert found == state
    assert words in note


def test_a_process_that_is_gone_is_known_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    state, note = standing({"state": "running", "alive": {**sign(), "pid": ended.pid}})
    assert (state, f"process {ended.pid}" in note) == ("broken off", True)


def test_signs_come_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "PERIOD", 0.01)
    record = Record(str(tmp_path / "r.json"), {"state": "running", "alive": {"seen": "before"}})
    with Ending(record):
        while record.document["alive"]["seen"] == "before":
            pass
        record.save(outputs=[1])
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["outputs"] == [1]
    assert said["alive"]["pid"] == os.getpid()
    assert not [t for t in threading.enumerate() if t.name == "rasteret-dask-pulse"]


def test_a_disk_that_is_full_ends_no_signs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alive, "PERIOD", 0.01)
    often, tried = threading.Event(), []

    def give(_: Any) -> None:
        tried.append(1)
        if len(tried) > 2:
            often.set()
        raise PipelineError("the record cannot be written: No space left on device")

    pulse = Pulse(give)
    pulse.start()
    often.wait()
    pulse.stop()
    assert "no sign of life: the record cannot be written" in caplog.text
