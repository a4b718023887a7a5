"""Where results go: any URL that fsspec knows; a file appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from rasteret_dask.storage.ask import ask

_STATUS = Path("/proc/self/status")
_setting_umask = threading.Lock()


def resolve(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """The file system of a URL, and the path within it; what a store's library raises comes as an OSError."""
    fs, path = url_to_fs(os.fspath(url))
    return fs if isinstance(fs, LocalFileSystem) else _Store(fs), str(path)


class _Store:
    """A file system whose methods are called by way of :func:`ask`."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever copies asks for these before there is a file system
            raise AttributeError(name)
        found = getattr(self._fs, name)
        return partial(ask, found) if callable(found) else found


@contextmanager
def scratch_file(suffix: str) -> Iterator[Path]:
    """A path for a file on local disk that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rasteret-dask-") as folder:
        yield Path(folder) / f"result{suffix}"


def put_file(source: Path, url: str | os.PathLike[str]) -> str:
    """Move a local file to a URL; folders are made.

    Object stores show an object once it is complete. On local disk the file is copied beside its
    place and renamed, so that no reader meets half of it.
    """
    fs, path = resolve(url)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        try:
            shutil.copyfile(source, beside)
            # mkstemp's files are for the owner alone; a result has the mode a new file would have.
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, target)
        finally:
            Path(beside).unlink(missing_ok=True)  # it has its place by now, or never will
    else:
        fs.put_file(str(source), path)
    return os.fspath(url)


def _umask() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_bytes().splitlines():
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    # Elsewhere it can be read only by setting it, which is the whole process's: one at a time, or the wrong one is put back.
    with _setting_umask:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def put_bytes(data: bytes, url: str | os.PathLike[str]) -> str:
    """Write bytes to a URL, as :func:`put_file` does."""
    with scratch_file("") as path:
        path.write_bytes(data)
        return put_file(path, url)
