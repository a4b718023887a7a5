"""Stretches of work, measured one tool after the other: everyone stands next to everyone else on the same work.

The processes of one stretch load and warm up together, and then work in turns while the others wait: a round costs what its work costs,
and little more. What was measured is kept after each measurement, so that a campaign that was broken off goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.data import aliases
from benchmarks.measure import Got
from benchmarks.ours import OURS, build
from benchmarks.record import Key, Record
from benchmarks.workloads import make
from rasteret_dask.testing.server import RangeServer

TLS = "-tls"
TOGETHER = 7
"""Processes of a stretch that load and wait at once."""


@dataclass(frozen=True)
class Stretch:
    """One workload at one latency, by some tools in turns; `rounds` is how many measurements each tool is to have in the end."""

    setting: str
    workload: str
    latency: int
    tools: tuple[str, ...]
    rounds: int = 1

    @property
    def variant(self) -> str:
        """Of the images."""
        return self.setting.removesuffix(TLS)


@dataclass
class Campaign:
    """Runs stretches and keeps what they gave.

    `until` is a time of ``time.monotonic``: a measurement that would not end before is not begun, and its key goes to `left`.
    """

    record: Record
    pythons: Mapping[str, str] = field(default_factory=dict)
    limit: float = 300.0
    until: float = float("inf")
    left: list[Key] = field(default_factory=list)
    took: dict[Key, float] = field(default_factory=dict)

    def go(self, stretches: Sequence[Stretch], data: Path) -> None:
        """Every stretch, in this order."""
        os.environ["RASTERET_BENCH_DATA"] = str(data)
        with servers(stretches, data) as (started, scratch):
            for stretch in stretches:
                server, collections = started[stretch.setting]
                os.environ["RASTERET_BENCH_COLLECTIONS"] = str(collections)
                server.configure(latency=stretch.latency / 1000)
                for tools in _some(self._wanted(turned(stretch)), TOGETHER):
                    self._together(stretch, tools, server, scratch)

    def _wanted(self, stretch: Stretch) -> Iterator[str]:
        for tool in stretch.tools:
            key = Key(stretch.setting, stretch.workload, stretch.latency, tool)
            enough = len(self.record.of(key)) >= stretch.rounds
            if not enough and self.record.failed(key) is None and not self._unable(key):
                yield tool

    def _unable(self, key: Key) -> bool:
        """Whether it has said elsewhere that it cannot do such work."""
        return any(
            (other.workload, other.tool) == (key.workload, key.tool)
            and (self.record.failed(other) or "").startswith("UNABLE")
            for other in self.record.cells()
        )

    def _together(
        self, stretch: Stretch, tools: Sequence[str], server: RangeServer, scratch: Path
    ) -> None:
        children: dict[Key, Any] = {}
        for tool in tools:
            key = Key(stretch.setting, stretch.workload, stretch.latency, tool)
            # Twelve seconds: until all are ready. What a first measurement takes is not known.
            if self.until - time.monotonic() < 12 + self.took.get(key, 0.0):
                self.left.append(key)
                continue
            keep = _kept(scratch, key) if self._is_kept(key) else None
            children[key] = measure.start(
                server, tool, key.workload, stretch.variant, keep, self._python(key), scratch
            )
        failed = {key: measure.wait(child) for key, child in children.items()}
        for key, child in children.items():
            got = failed[key] or self._one(key, child, server)
            if got is None:
                self.left.append(key)
                continue
            self.record.add(key, got)
            self._verify(key, got, scratch)
            say(key, got, self.record.verdicts.get(str(key), ""))

    def _one(self, key: Key, child: Any, server: RangeServer) -> Got | None:
        """A measurement, or None when time is up."""
        remaining = self.until - time.monotonic()
        if remaining < max(self.took.get(key, 0.0), 1.0):
            measure.give_up(child)
            return None
        began = time.monotonic()
        limit = min(self.limit, remaining)
        got = measure.finish(server, child, key.workload, limit)
        self.took[key] = time.monotonic() - began
        if isinstance(got, str) and limit < self.limit and got.startswith("more"):
            return None
        return got

    def _python(self, key: Key) -> str:
        """Of the tool on this workload, of the tool, or this one."""
        for name in (f"{key.tool}@{key.workload}", key.tool):
            if name in self.pythons:
                return self.pythons[name]
        return sys.executable

    def _is_kept(self, key: Key) -> bool:
        # W7's pixels are compared by checksum; 1 GB a tool is not written.
        return key.workload != "W7" and str(key) not in self.record.verdicts

    def _verify(self, key: Key, got: Got, scratch: Path) -> None:
        """Compare the pixels of a first measurement with the floor's, and of the others with the first."""
        if isinstance(got, str):
            return
        if str(key) in self.record.verdicts:
            before = next(one for one in self.record.of(key) if isinstance(one, dict))
            if before["result"] != got["result"]:
                self.record.verdicts[str(key)] = "differs from round to round"
                self.record.save()
            return
        floor = Key(key.setting, key.workload, key.latency, "floor")
        first = next(iter(self.record.of(floor)), None)
        if isinstance(first, dict) and first["result"] == got["result"]:
            self.record.verdicts[str(key)] = "equal"
        elif _kept(scratch, key).exists() and _kept(scratch, floor).exists():
            self.record.verdicts[str(key)] = measure.compare(
                _kept(scratch, key), _kept(scratch, floor)
            )
        elif isinstance(first, dict):
            self.record.verdicts[str(key)] = "differs"
        if key != floor:
            _kept(scratch, key).unlink(missing_ok=True)
        self.record.save()


def turned(stretch: Stretch) -> Stretch:
    """The same with its tools in another order in each round: whoever comes first, or after whom, is not always the same."""
    tools = stretch.tools
    shift = (stretch.rounds - 1) * max(1, len(tools) // 3) % len(tools)
    return replace(stretch, tools=(*tools[shift:], *tools[:shift]))


def _kept(scratch: Path, key: Key) -> Path:
    return scratch / f"{str(key).replace('/', '-')}.npz"


def _some(items: Iterable[str], count: int) -> list[list[str]]:
    every = list(items)
    return [every[k : k + count] for k in range(0, len(every), count)]


@contextmanager
def servers(
    stretches: Sequence[Stretch], data: Path
) -> Iterator[tuple[dict[str, tuple[RangeServer, Path]], Path]]:
    """A server and a folder of collections for each setting, the collections built; and a scratch folder."""
    names: dict[str, str] = {}
    for variant, workload in {(s.variant, s.workload) for s in stretches}:
        work = make(workload, variant)
        names |= aliases([*work.scenes, *work.warm().scenes])
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        shared: dict[bool, RangeServer] = {}
        started = {}
        for setting in dict.fromkeys(s.setting for s in stretches):
            tls = setting.endswith(TLS)
            if tls not in shared:
                shared[tls] = stack.enter_context(RangeServer(data, aliases=names, tls=tls))
            collections = scratch / setting
            workloads = {s.workload for s in stretches if s.setting == setting}
            if any(tool in OURS for s in stretches if s.setting == setting for tool in s.tools):
                if shared[tls].certificate is not None:
                    os.environ["SSL_CERT_FILE"] = str(shared[tls].certificate)
                build(collections, shared[tls].url, [setting.removesuffix(TLS)], sorted(workloads))
            started[setting] = (shared[tls], collections)
        yield started, scratch


def say(key: Key, got: Got, verdict: str) -> None:
    """One line on the screen."""
    if isinstance(got, str):
        print(f"{key!s:40s} {got}", flush=True)
        return
    print(
        f"{key!s:40s} wall {got['wall']:7.3f}  cpu {got['cpu']:7.3f}  requests {got['requests']:6d}  "
        f"MB {got['bytes'] / 1e6:8.1f}  RSS {got['rss'] / 1e6:6.0f}  {verdict}",
        flush=True,
    )
