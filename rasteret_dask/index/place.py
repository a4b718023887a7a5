"""A directory on local disk or in a store, with the two operations that commits need:
create-if-absent and share.

On local disk a file is created under another name and linked to its own, which fails when that
exists. On S3, Azure and Google a conditional put does it. Other protocols cannot promise it and
must be used by one writer alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from pyarrow import fs as arrow_fs

from rasteret_dask.errors import ArgumentError, CollectionError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage import stores
from rasteret_dask.storage.ask import ask, reason_of
from rasteret_dask.storage.urls import Location, locate, public

T = TypeVar("T")

_DRAFTS = "_rasteret/drafts"


@dataclass(frozen=True, slots=True)
class Place:
    """A directory.

    Parameters
    ----------
    url : str
        Local path, or URL of any protocol that fsspec serves.
    options : StorageOptions
        How the store is reached; no secrets.
    single_writer : bool
        The caller promises that nobody else writes here; needed where there is no conditional
        create.
    """

    url: str
    options: StorageOptions = field(default_factory=StorageOptions)
    single_writer: bool = False

    @property
    def _location(self) -> Location:
        return locate(self.url)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's disk."""
        return self._location.kind == "file"

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        return stores.filesystem(self._location, self.options)

    def join(self, *parts: str) -> str:
        """URL of something below."""
        return "/".join([self.url.rstrip("/"), *parts])

    def below(self, *parts: str) -> Place:
        """A directory below."""
        return Place(self.join(*parts), self.options, self.single_writer)

    def path(self, name: str = "") -> str:
        """The path that the filesystem knows."""
        location = self._location
        if location.kind == "file":
            return str(Path(location.path, name)) if name else location.path
        return str(self.filesystem._strip_protocol(self.join(name) if name else self.url))

    def arrow(self) -> Any:
        """The Arrow filesystem that goes with `path`: Arrow's own for local files, which reads in
        parallel."""
        if self.is_local:
            return arrow_fs.LocalFileSystem()
        return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(self.filesystem))

    # --- reading -----------------------------------------------------------------------------
    def read(self, name: str) -> bytes | None:
        """The content of a file, or None when it is not there.

        Raises
        ------
        CollectionError
            It cannot be read, whether or not it is there; `list` and `folders` say so too.
        """
        path = self.path(name)
        get = Path(path).read_bytes if self.is_local else partial(self.filesystem.cat_file, path)
        try:
            content: bytes = self._ask("read", get)
        except FileNotFoundError:
            return None
        return content

    def _ask(self, what: str, function: Callable[[], T]) -> T:
        """Ask the place for something; all that it answers but "not there" is an error of ours."""
        try:
            return ask(function)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            reason = reason_of(error)
            raise CollectionError(f"{public(self.url)} cannot be {what}: {reason}") from None

    def _entries(self, folder: str) -> list[dict[str, Any]]:
        fs, path = self.filesystem, self.path(folder)
        fs.invalidate_cache()
        found: list[dict[str, Any]] = fs.ls(path, detail=True)
        return found

    def list(self, folder: str) -> dict[str, int]:
        """Names and sizes of the files in a folder; nothing when there is no such folder."""
        try:
            if self.is_local:
                with self._ask("read", partial(os.scandir, self.path(folder))) as entries:
                    return {e.name: e.stat().st_size for e in entries if e.is_file()}
            found = self._ask("read", partial(self._entries, folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {e["name"].rpartition("/")[2]: e["size"] for e in found if e["type"] == "file"}

    def folders(self) -> tuple[str, ...]:
        """Names of the directories below, sorted; nothing when there is no such place."""
        try:
            if self.is_local:
                with self._ask("read", partial(os.scandir, self.path())) as entries:
                    return tuple(sorted(e.name for e in entries if e.is_dir()))
            found = self._ask("read", partial(self._entries, ""))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        names = (
            e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory"
        )
        return tuple(sorted(names))

    # --- writing -----------------------------------------------------------------------------
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there already; atomic, and of many writers one wins.

        Returns
        -------
        bool
            False when the file was there; it is left as it is. In a store it may be our own: an attempt whose answer was lost
            meets what it wrote, so whoever must know compares the content.

        Raises
        ------
        CollectionError
            The store refused.
        """
        location = self._location
        if location.kind == "file":
            return self._create_local(name, data)
        if location.kind == "object" and location.root.partition("://")[0] in ("s3", "gs", "az"):
            return self._create_object(location, name, data)
        return self._create_single(name, data)

    def _create_local(self, name: str, data: bytes) -> bool:
        target = Path(self.path(name))
        if target.exists():
            return False
        with self._written(target, data) as draft:
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
        return True

    def _written(self, target: Path, data: bytes) -> _Draft:
        target.parent.mkdir(parents=True, exist_ok=True)
        drafts = Path(self.path(_DRAFTS))
        drafts.mkdir(parents=True, exist_ok=True)
        return _Draft(drafts / f"{os.getpid()}-{secrets.token_hex(8)}", data)

    def _create_object(self, location: Location, name: str, data: bytes) -> bool:
        store = stores.object_store(location, self.options, writing=True)
        if store is None:
            raise CollectionError(
                "this process was forked after its parent had used an object store",
                hint="start processes with spawn",
            )
        key = "/".join(part for part in (location.path.strip("/"), name) if part)
        try:
            obstore.put(store, key, data, mode="create")
        except AlreadyExistsError:
            return False
        except BaseError as error:
            raise CollectionError(f"{self.url} refused {name}: {type(error).__name__}") from None
        return True

    def _create_single(self, name: str, data: bytes) -> bool:
        # Within one process fsspec's memory filesystem is as good as a dictionary.
        if not self.single_writer and self._location.root != "memory":
            raise ArgumentError(
                f"{self.url}: this protocol has no conditional create",
                hint="pass single_writer=True if nobody else writes there",
            )
        return self._ask("written", partial(self._pipe_new, name, data))

    def _pipe_new(self, name: str, data: bytes) -> bool:
        fs = self.filesystem
        if fs.exists(self.path(name)):
            return False
        fs.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
        fs.pipe_file(self.path(name), data)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write a file whether or not it is there; a reader sees the old or the new, never a
        mixture."""
        if self.is_local:
            target = Path(self.path(name))
            with self._written(target, data) as draft:
                os.replace(draft, target)
        else:
            self._ask("written", partial(self.filesystem.pipe_file, self.path(name), data))

    def sweep(self, age: float = 86400.0) -> None:
        """Remove what killed writers left half written, once nobody can still be at it.

        Parameters
        ----------
        age : float
            Seconds.
        """
        if not self.is_local:
            return  # stores show nothing before it is whole
        before = time.time() - age
        try:
            with os.scandir(self.path(_DRAFTS)) as entries:
                old = [e.path for e in entries if e.stat().st_mtime < before]
        except FileNotFoundError:
            return
        for path in old:
            Path(path).unlink(missing_ok=True)

    def share(self, source: str, target: str) -> None:
        """Make a file appear under a second name, whole or not at all; nothing when it is there."""
        if not self.is_local:
            self.filesystem.cp_file(self.path(source), self.path(target))
            return
        origin, goal = Path(self.path(source)), Path(self.path(target))
        goal.parent.mkdir(parents=True, exist_ok=True)
        if goal.exists():
            return
        try:
            os.link(origin, goal)
        except FileExistsError:
            return
        except OSError:  # a filesystem without hard links
            with self._written(goal, b"") as draft:
                shutil.copyfile(origin, draft)
                os.replace(draft, goal)


@dataclass(slots=True)
class _Draft:
    """A file under a passing name, gone when the block ends."""

    path: Path
    data: bytes

    def __enter__(self) -> Path:
        with self.path.open("wb") as stream:
            stream.write(self.data)
            stream.flush()
            os.fsync(stream.fileno())
        return self.path

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
