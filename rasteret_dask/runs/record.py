"""What a run leaves behind: enough to say what was done, to do it again, and to mend it.

See ``docs/formats.md``, "Run record". A pipeline leaves one beside its first output, a cube that
records what fails leaves one in its ledger. URLs are written without queries and passwords: those
can be signatures.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import platform
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rasteret_dask.errors import (
    EmptySelectionError,
    PipelineError,
    RasteretError,
    RunInterruptedError,
    SchemaVersionError,
)
from rasteret_dask.model import Ledger
from rasteret_dask.runs.alive import RUNNING, Pulse, sign
from rasteret_dask.storage.ask import ask, reason_of
from rasteret_dask.storage.urls import public
from rasteret_dask.write.target import put_bytes, resolve

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection

log = logging.getLogger(__name__)

VERSION = 2
FORMAT = "rasteret-dask run"
PIPELINE, CUBE = "pipeline", "cube"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_PACKAGES = ("rasteret-dask", "dask", "distributed", "numpy", "xarray", "zarr", "pyarrow")


@dataclass(slots=True)
class Record:
    """The record of one run; written again whenever something in it changes.

    Parameters
    ----------
    url : str
        Where it lies.
    document : dict
        What it says.
    """

    url: str
    document: dict[str, Any] = field(default_factory=dict)
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether everything was written."""
        return bool(self.document.get("state") == "done")

    @property
    def begun(self) -> bool:
        """Whether it came as far as to know what it works on."""
        return "collection" in self.document

    @property
    def ledger(self) -> Ledger | None:
        """Where the run writes down what fails; None when it does not."""
        said = self.document.get("ledger")
        return None if said is None else Ledger(said["url"], said["run"])

    @property
    def open_holes(self) -> Ledger | None:
        """Where what is missing now is written down: by the last repair that came to its end, else
        by the run."""
        ledger = self.ledger
        ended = [r for r in self.document.get("repairs", {}).values() if r["state"] == "done"]
        if ledger is None or not ended:
            return ledger
        return Ledger(ledger.url, max(ended, key=lambda repair: str(repair["ended"]))["run"])

    def save(self, **changes: Any) -> None:
        """Change some keys, and write it.

        Raises
        ------
        PipelineError
            Its place cannot be written to.
        """
        with self._writing:  # signs of life come from a thread of their own
            self.document |= changes
            # In the order it was said: that of expressions is the order of their bands.
            text = json.dumps(self.document, indent=1, default=str)
            try:
                put_bytes(text.encode(), self.url)
            except OSError as error:
                raise _refused(self.url, "written", error) from None


def begin(
    url: str, kind: str, collection: Collection, *, ids: list[str] | None = None, **more: Any
) -> Record:
    """A new record, written at once.

    Parameters
    ----------
    url : str
    kind : {"pipeline", "cube"}
    collection : Collection
        What the run works on; its snapshot is pinned.
    ids : list of str, optional
        The items that it works on, where those are not all of the snapshot.
    **more
        Further keys.
    """
    record = Record(url)
    place = None if collection.place is None else placed(collection.place.url)
    record.save(
        format=FORMAT,
        version=VERSION,
        kind=kind,
        state=RUNNING if kind == PIPELINE else "open",
        started=now(),
        **({"alive": sign()} if kind == PIPELINE else {}),
        versions=_versions(),
        collection={
            "name": collection.name,
            "url": place,
            "snapshot": snapshot_of(collection),
            "items": len(collection) if ids is None else len(ids),
            **({} if ids is None else {"ids": ids}),
        },
        **more,
    )
    return record


def unbegun(url: str, error: BaseException, **more: Any) -> Record:
    """The record of a run that ended before it had anything to work on, written in place of any
    other."""
    said = {"kind": PIPELINE, "state": state_after(error), "error": said_of(error), **more}
    record, time = Record(url), now()
    try:
        record.save(
            format=FORMAT, version=VERSION, started=time, ended=time, versions=_versions(), **said
        )
    except PipelineError as problem:
        log.warning("%s", problem)
    return record


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{n: version(n) for n in _PACKAGES}}


def end(record: Record, state: str, **more: Any) -> None:
    """How it ended: `done`, `failed`, `empty` or `interrupted`."""
    record.save(state=state, ended=now(), **more)


@dataclass(slots=True)
class Ending:
    """A block that gives signs of life, and writes down how it ended, whatever it ended with; `done`
    is for the caller to say.

    Parameters
    ----------
    record : Record
    """

    record: Record
    _pulse: Pulse = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pulse = Pulse(lambda sign: self.record.save(alive=sign))

    def __enter__(self) -> None:
        self._pulse.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pulse.stop()
        if error is None:
            return
        try:
            end(self.record, state_after(error), error=said_of(error))
        except PipelineError as problem:  # a disk is full; it is the first error that matters
            log.warning("%s", problem)


def state_after(error: BaseException) -> str:
    """Whether a run was `interrupted` from outside (a signal, a lost cluster), found nothing to do
    (`empty`), or has `failed`."""
    if isinstance(error, EmptySelectionError):
        return "empty"
    broken_off = isinstance(error, RunInterruptedError) or not isinstance(error, Exception)
    return "interrupted" if broken_off else "failed"


def said_of(error: BaseException) -> str:
    """What may be written down of an error: a stranger's text may hold anything, a signed URL
    too."""
    return str(error) if isinstance(error, RasteretError) else type(error).__name__


def load(url: str) -> Record | None:
    """The record that lies there; None when there is none.

    Raises
    ------
    SchemaVersionError
        A newer version of this package wrote it.
    PipelineError
        Something else lies there, and is not replaced; or its place cannot be read.
    """
    try:
        fs, path = ask(resolve, url)
        if not fs.exists(path):
            return None
        document = json.loads(fs.cat_file(path))
    except OSError as error:
        raise _refused(url, "read", error) from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PipelineError(
            f"{url} is no record of a run, and is not replaced", hint="set record: to another URL"
        )
    if document["version"] > VERSION:
        raise SchemaVersionError(
            f"the record is of version {document['version']}; {VERSION} is known", url=url
        )
    # Version 1 knew pipelines alone.
    return Record(url, {"kind": PIPELINE, **document})


def _refused(url: str, what: str, error: OSError) -> PipelineError:
    reason = reason_of(error)
    return PipelineError(f"the record of the run, {unsigned(url)}, cannot be {what}: {reason}")


def placed(url: str) -> str:
    """Where something lies, as another process in another folder finds it."""
    return str(unsigned(url)) if "://" in url else str(Path(url).expanduser().absolute())


def snapshot_of(collection: Collection) -> dict[str, Any]:
    """Which rows a run works on."""
    commit = collection.commit
    if commit is not None:
        parts = hashlib.sha256("".join(part.sha256 for part in commit.parts).encode())
        return {"commit": commit.number, "identity": commit.identity, "parts": parts.hexdigest()}
    return {"items": ids_of(collection)}


def ids_of(collection: Collection) -> str:
    """A hash of the items' ids."""
    ids = collection.to_table(["id"]).column("id").to_pylist()
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def unsigned(value: Any) -> Any:
    """The same without queries, user names and passwords in URLs, be they values or within a text."""
    if isinstance(value, Mapping):
        return {key: unsigned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [unsigned(one) for one in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    if _URL.match(value):  # all of it, for a store's key may hold blanks
        return _bare(value)
    return _URL.sub(lambda found: _bare(found[0]), value)


def _bare(url: str) -> str:
    # A fragment is never sent; of a store's key "#" is a character.
    return public(url.partition("#")[0] if url.startswith("http") else url)


def now() -> str:
    """UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
