"""Where a job runs: a YAML profile, a typed value, and a context in which it is there.

A new kind of cluster is a model here, its name in `Profile`, and a function in `_OPENERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster
from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.cluster.loss import noticing_loss
from rasteret_dask.cluster.plugins import prepare
from rasteret_dask.cluster.remote import Remote, Ssh, open_remote, open_ssh
from rasteret_dask.cluster.security import Tls, host_of, is_loopback
from rasteret_dask.cluster.surroundings import Surroundings, exported, surrounded, tell_workers
from rasteret_dask.documents import TAG, Strict, assign, read, substitute, validate
from rasteret_dask.errors import ConfigError

_PLAIN_SCHEMES = ("tcp", "ws")


_TRIM, _MMAP = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"  # as glibc reads them

_DASKS_TRIM = "65536"
"""Bytes, as Dask sets it."""

_KEPT = str(8 * 1024 * 1024)
"""Bytes: a tile of 1,024 pixels, compressed and decoded, and room."""

_CYCLE, _DASKS_CYCLE = "distributed.worker.profile.cycle", "1000ms"
"""How often a worker begins a new profile of what it is at; it keeps the last thousand of them."""

_RARELY = "10 minutes"
"""A second's profile is hardly smaller than a minute's: begun each second, they grew by 100 KiB a second, to 100 MiB within 17 minutes."""

_WAITING, _DASKS_WAITING = "distributed.scheduler.worker-saturation", 1.1
"""Tasks without inputs that a worker has or is at, for each of its threads, before the scheduler holds the others back."""

_TWO_MORE = 2.1
"""One at work and two that wait, whose bytes are fetched meanwhile: decoding takes no longer than a far store's first answer."""


class Threads(Surroundings):
    """Dask's threads in this process: no cluster at all."""

    kind: Literal["threads"]
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Default: CPU cores."
    )


class Local(Surroundings):
    """Worker processes on this machine."""

    kind: Literal["local"]
    workers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Of each worker.")
    memory: str = Field(default="auto", description="Limit of each worker, as 4GiB.")
    processes: bool = Field(
        default=True, description="False: the workers are threads of this process."
    )
    host: str = "127.0.0.1"
    dashboard: str = Field(default="127.0.0.1:0", description="host:port; port 0 takes a free one.")
    allowed_failures: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Dead workers after which Dask gives a task up."
    )

    @model_validator(mode="after")
    def _stays_here(self) -> Local:
        for key, address in (("host", self.host), ("dashboard", host_of(self.dashboard))):
            if not is_loopback(address):
                raise PydanticCustomError(
                    "key_conflict",
                    "{key} {address} can be reached from other machines; a local cluster binds to "
                    "loopback, as 127.0.0.1",
                    {"key": key, "address": repr(address)},
                )
        return self


class Address(Surroundings):
    """A scheduler that runs already."""

    kind: Literal["address"]
    address: Annotated[str, Field(min_length=1)]
    tls: Tls | None = None
    insecure: bool = Field(default=False, description="Allow plain tcp:// beyond this machine.")
    timeout: Annotated[float, Field(gt=0)] = Field(default=30.0, description="Seconds to connect.")

    @model_validator(mode="after")
    def _safe(self) -> Address:
        scheme = urlsplit(self.address).scheme if "://" in self.address else "tcp"
        plain = scheme in _PLAIN_SCHEMES
        if plain and not self.insecure and not is_loopback(host_of(self.address)):
            raise PydanticCustomError(
                "key_conflict",
                "{address} is a plain connection to another machine: anybody on the way can run "
                "code there; use tls://, or say insecure: true",
                {"address": self.address},
            )
        if plain and self.tls is not None:
            raise PydanticCustomError("key_conflict", "tls is given, but the address is not tls://")
        return self


Profile = Threads | Local | Address | Ssh | Remote


def _tag(value: Any) -> str | None:
    kind: Any = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    if kind in ("threads", "local", "address", "ssh"):
        return f"{TAG}{kind}"
    return f"{TAG}remote" if kind in _OPENERS else None


class _Document(Strict):
    """A profile under a key of its own, so that `validate` can be used on the union."""

    profile: Annotated[
        Annotated[Threads, Tag(TAG + "threads")]
        | Annotated[Local, Tag(TAG + "local")]
        | Annotated[Address, Tag(TAG + "address")]
        | Annotated[Ssh, Tag(TAG + "ssh")]
        | Annotated[Remote, Tag(TAG + "remote")],
        Discriminator(_tag),
    ]


def from_mapping(data: Mapping[str, Any]) -> Profile:
    """Make a profile from keys and values.

    Raises
    ------
    ConfigError
        With the path of the key.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in _OPENERS:
        raise ConfigError(
            f"{kind!r} is no kind of cluster" if kind is not None else "is missing",
            path="kind",
            hint=f"there are {', '.join(_OPENERS)}",
        )
    try:
        return validate(_Document, {"profile": dict(data)}).profile
    except ConfigError as error:
        path = (error.path or "").removeprefix("profile").lstrip(".") or "(document)"
        hint = None if error.hint is None else error.hint.replace("profile.", "")
        raise ConfigError(error.message, path=path, hint=hint) from None


def from_file(source: Path, sets: Iterable[str] = ()) -> Profile:
    """Read a profile; see `rasteret_dask.documents` for ``--set`` and ``${ENV}``."""
    return from_mapping(substitute(assign(read(source), sets)))


@contextmanager
def open_profile(profile: Profile) -> Iterator[Client | None]:
    """A context in which Dask computes where the profile says; what it started is ended after it.

    Yields
    ------
    distributed.Client or None
        None for threads.

    Raises
    ------
    RunInterruptedError
        The cluster was lost within the block.
    """
    with surrounded(profile), _OPENERS[profile.kind](profile) as client, noticing_loss(client):
        if client is not None:
            tell_workers(client, profile)
        yield client


@contextmanager
def _open_threads(profile: Threads) -> Iterator[None]:
    settings: dict[str, Any] = {"scheduler": "threads"}
    if profile.threads is not None:
        settings["num_workers"] = profile.threads
    with dask.config.set(settings):
        yield None


@contextmanager
def _open_local(profile: Local) -> Iterator[Client]:
    options: dict[str, Any] = {
        "n_workers": profile.workers,
        "threads_per_worker": profile.threads,
        "memory_limit": profile.memory,
        "processes": profile.processes,
        "dashboard_address": profile.dashboard,
    }
    if profile.processes:  # in one process they speak inproc://, where a host means nothing
        options["host"] = profile.host
    settings: dict[str, Any] = {
        # The scheduler reads this when it is born.
        "distributed.scheduler.allowed-failures": profile.allowed_failures,
        # A nanny replaces a worker that dies; but if that one is not there 15 s after its predecessor was lost (it may have died as well),
        # LocalCluster would drop the nanny, and a cluster that has lost all of them waits for ever.
        "distributed.deploy.lost-worker-timeout": "1 day",
    }
    if dask.config.get(_CYCLE) == _DASKS_CYCLE:  # nobody has asked for another
        settings[_CYCLE] = _RARELY
    if dask.config.get(_WAITING) == _DASKS_WAITING:
        settings[_WAITING] = _TWO_MORE
    with (
        dask.config.set(settings),
        exported(_memory_kept()),
        LocalCluster(**options) as cluster,
        Client(cluster) as client,
    ):
        yield prepare(client)


def _memory_kept() -> dict[str, str]:
    """Return variables by which worker processes keep what a tile takes when it is freed, unless somebody has set them already.

    Dask has its workers give back whatever is freed, so every block from 128 KiB on is fresh memory, at a page fault for every 4 KiB:
    a third of what reading takes. What is larger than a few tiles, such as chunks, still goes back at once.
    """
    told = dask.config.get("distributed.nanny.pre-spawn-environ", {}) | os.environ
    if str(told.get(_TRIM)) != _DASKS_TRIM or _MMAP in told:
        return {}
    return {_TRIM: _KEPT, _MMAP: _KEPT}


@contextmanager
def _open_address(profile: Address) -> Iterator[Client]:
    options: dict[str, Any] = {"timeout": profile.timeout}
    if profile.tls is not None:
        options["security"] = profile.tls.security()
    before = dask.config.get("scheduler", None)
    client = None
    try:
        client = Client(profile.address, **options)
    except (OSError, TypeError) as error:  # a TypeError: tls:// without certificates
        raise ConfigError(
            f"no scheduler answers at {profile.address}: {error}", path="address"
        ) from None
    finally:
        if client is None:
            # One that fails, in whatever way, has made itself Dask's default already, and undoes it only when it
            # is collected, in any order: what is computed without a client would then ask for one.
            dask.config.set(scheduler=before)
    with client:
        yield prepare(client)


_OPENERS: Mapping[str, Callable[[Any], Any]] = {
    "threads": _open_threads,
    "local": _open_local,
    "address": _open_address,
    "ssh": open_ssh,
    "slurm": open_remote,
    "pbs": open_remote,
    "kubernetes": open_remote,
    "coiled": open_remote,
    "gateway": open_remote,
}
