"""What a build did, and what went wrong in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from rasteret_dask.errors import AccessError, RasteretError, TransientError
from rasteret_dask.ingest.disagree import Disagreement

_KEPT: Final = 1000
"""Failures, and disagreements, that a commit lists; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A header that could not be had.

    Parameters
    ----------
    item, band, url : str
        Where; the URL is unsigned.
    kind : str
        Name of the error's class.
    reason : str
        Its message.
    transient : bool
        Trying again may help.
    """

    item: str
    band: str
    url: str
    kind: str
    reason: str
    transient: bool = False

    @classmethod
    def of(cls, error: RasteretError, item: str, band: str, url: str) -> Failure:
        """The failure that an error is."""
        transient = isinstance(error, TransientError)
        return cls(item, band, url, type(error).__name__, error.message, transient)

    @property
    def passing(self) -> bool:
        """Whether a build that is begun again should ask again: a credential may have been lacking."""
        return self.transient or self.kind == AccessError.__name__


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The account of a build.

    Parameters
    ----------
    items, assets, headers : int
        Items indexed, bands of items that have an asset, and those whose header was read.
    failures : tuple of Failure
        Headers that could not be had.
    disagreements : tuple of Disagreement
        Where STAC and files differ.
    warnings : tuple of str
        What else a person should know.
    failure_count, disagreement_count : int
        How many there were in all; the lists end at a thousand.
    requests, bytes, retries : int
        Of this run alone, by all processes; 0 when nothing had to be fetched.
    slices, reused : int
        Slices of the build, and how many of them a former run had finished.
    """

    items: int = 0
    assets: int = 0
    headers: int = 0
    failures: tuple[Failure, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    warnings: tuple[str, ...] = ()
    failure_count: int = 0
    disagreement_count: int = 0
    requests: int = 0
    bytes: int = 0
    retries: int = 0
    slices: int = 0
    reused: int = field(default=0)

    def lasting(self) -> dict[str, Any]:
        """What a commit keeps: all that is the same for the same input, whatever the run was
        like."""
        found = asdict(self)
        for run in ("requests", "bytes", "retries", "reused"):
            del found[run]
        for name in ("failures", "disagreements"):
            found[name] = list(found[name])[:_KEPT]
        found["warnings"] = list(found["warnings"])[:_KEPT]
        return found

    def plus(self, other: BuildReport) -> BuildReport:
        """The account of both, as of one build."""
        return BuildReport(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @classmethod
    def from_lasting(cls, found: Mapping[str, Any]) -> BuildReport:
        """The report that a commit keeps."""
        known = {key: value for key, value in found.items() if key in cls.__slots__}
        known["failures"] = tuple(Failure(**f) for f in found.get("failures", ()))
        known["disagreements"] = tuple(Disagreement(**d) for d in found.get("disagreements", ()))
        known["warnings"] = tuple(found.get("warnings", ()))
        return cls(**known)

    def __str__(self) -> str:
        lines = [
            f"{self.items} items, {self.headers} of {self.assets} headers, "
            f"{self.requests} requests, {self.bytes / 1e6:.1f} MB"
        ]
        if self.reused:
            lines.append(f"{self.reused} of {self.slices} slices were there from a former run")
        lines += _shown(self.failure_count, "could not be read", map(_failure_line, self.failures))
        lines += _shown(
            self.disagreement_count,
            "claims of STAC are contradicted by their files",
            map(_disagreement_line, self.disagreements),
        )
        return "\n".join([*lines, *self.warnings[:10]])


def _shown(count: int, what: str, lines: Iterable[str], limit: int = 5) -> list[str]:
    if not count:
        return []
    shown = list(lines)[:limit]
    more = [] if count <= len(shown) else [f"  … and {count - len(shown)} more"]
    return [f"{count} {what}:", *shown, *more]


def _failure_line(failure: Failure) -> str:
    return f"  {failure.item} {failure.band}: {failure.reason} ({failure.url})"


def _disagreement_line(found: Disagreement) -> str:
    return f"  {found.item} {found.asset}: {found.field} is {found.stac}, in the file {found.file}"
