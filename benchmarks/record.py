"""What was measured so far: a JSON file that a campaign adds to after each measurement, and resumes from."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Got, machine, median


@dataclass(frozen=True, order=True)
class Key:
    """One cell of the table: who did what."""

    setting: str  # a variant of the images; with "-tls" over https
    workload: str
    latency: int  # ms a request
    tool: str

    def __str__(self) -> str:
        return f"{self.setting}/{self.workload}/{self.latency}/{self.tool}"


@dataclass
class Record:
    """Measurements by key, round after round.

    `runs` holds a list for each key; a string in it says why there is no number. `verdicts` says how the pixels differ from the floor's.
    """

    path: Path | None = None
    runs: dict[str, list[Got]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    where: str = field(default_factory=machine)
    commands: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path | None, command: str) -> Record:
        """The record in a file, if there is one; else a new one."""
        record = cls(path)
        if path is not None and path.exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            record = cls(path, told["runs"], told["verdicts"], told["where"], told["commands"])
        if command not in record.commands:
            record.commands.append(command)
        return record

    def of(self, key: Key) -> list[Got]:
        """Measurements of one cell."""
        return self.runs.get(str(key), [])

    def add(self, key: Key, got: Got) -> None:
        """Keep a measurement, on disk too."""
        self.runs.setdefault(str(key), []).append(got)
        self.save()

    def failed(self, key: Key) -> str | None:
        """Why a cell has no number."""
        got = self.of(key)
        return got[0] if got and isinstance(got[0], str) else None

    def median(self, key: Key, name: str) -> float | None:
        """Of one number of a cell."""
        return median(self.of(key), name)

    def rounds(self, key: Key) -> int:
        """How many measurements of a cell gave numbers."""
        return sum(isinstance(got, dict) for got in self.of(key))

    def stage(self, key: Key, name: str) -> float | None:
        """The median of one part of the work of a cell, in seconds."""
        found = [
            got["stages"][name]
            for got in self.of(key)
            if isinstance(got, dict) and name in got.get("stages", {})
        ]
        return statistics.median(found) if found else None

    def versions(self) -> dict[str, str]:
        """Of the libraries that were measured, as their processes gave them."""
        found: dict[str, str] = {}
        for rounds in self.runs.values():
            for got in rounds:
                found |= got.get("versions", {}) if isinstance(got, dict) else {}
        return found

    def cells(self) -> list[Key]:
        """Every cell, in the order of the measurements."""
        found = []
        for text in self.runs:
            setting, workload, latency, tool = text.split("/")
            found.append(Key(setting, workload, int(latency), tool))
        return found

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        told: dict[str, Any] = {
            "where": self.where, "commands": self.commands, "verdicts": self.verdicts,
            "runs": self.runs,
        }  # fmt: skip
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(told, indent=1), encoding="utf-8")
        os.replace(partial, self.path)
