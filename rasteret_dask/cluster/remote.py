"""Clusters that another library starts: batch systems, Kubernetes, Coiled, Dask Gateway, SSH.

Their options are handed on as they are, once they have been checked against the signature of the class that takes them.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import dask
from distributed import Client, SSHCluster
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.cluster.plugins import prepare
from rasteret_dask.cluster.security import Tls, is_loopback
from rasteret_dask.cluster.surroundings import Surroundings
from rasteret_dask.documents import Strict
from rasteret_dask.errors import ConfigError

_CLASSES: Mapping[str, tuple[str, str, str]] = {
    "slurm": ("dask_jobqueue", "SLURMCluster", "dask-jobqueue"),
    "pbs": ("dask_jobqueue", "PBSCluster", "dask-jobqueue"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes"),
    "coiled": ("coiled", "Cluster", "coiled"),
    "gateway": ("dask_gateway", "GatewayCluster", "dask-gateway"),
}
_LOOPBACK = "127.0.0.1:0"
_FAILURES = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"


class Adapt(Strict):
    """Workers come and go with the work."""

    minimum: Annotated[int, Field(ge=0)] = 0
    maximum: Annotated[int, Field(ge=1)]


class Remote(Surroundings):
    """A cluster of `dask-jobqueue`, `dask-kubernetes`, `coiled` or `dask-gateway`."""

    kind: Literal["slurm", "pbs", "kubernetes", "coiled", "gateway"]
    workers: Annotated[int, Field(ge=1)] | None = None
    adapt: Adapt | None = None
    options: dict[str, Any] = Field(
        default_factory=dict, description="Passed to the library's cluster class."
    )
    lifetime: str | None = Field(
        default=None,
        description="slurm, pbs: workers end themselves before the wall time, as 55m.",
    )
    stagger: str = Field(default="4m", description="Spread of those ends.")
    insecure: bool = Field(default=False, description="Allow connections without TLS.")
    allowed_failures: Annotated[int, Field(ge=0)] = 10

    @model_validator(mode="after")
    def _makes_sense(self) -> Remote:
        if (self.workers is None) == (self.adapt is None):
            raise PydanticCustomError("key_conflict", "give workers, or adapt with a maximum")
        batch = self.kind in ("slurm", "pbs")
        if self.lifetime is not None and not batch:
            raise PydanticCustomError("key_conflict", "lifetime belongs to slurm and pbs")
        if batch and not self.insecure and "shared_temp_directory" not in self.options:
            raise PydanticCustomError(
                "key_conflict",
                "TLS needs options.shared_temp_directory, a folder that all nodes see and only you "
                "read, for its keys; or say insecure: true",
            )
        if self.kind == "kubernetes" and not self.insecure:
            raise PydanticCustomError(
                "key_conflict",
                "the operator's pods speak plain tcp:// to each other, and it knows no other way; fence "
                "the namespace with a network policy and say insecure: true, or start a scheduler that "
                "speaks TLS yourself and use kind: address",
            )
        return self


class Ssh(Surroundings):
    """Machines reached by SSH: the scheduler on the first host, workers on the others."""

    kind: Literal["ssh"]
    hosts: Annotated[list[str], Field(min_length=2)]
    tls: Tls | None = Field(default=None, description="Files at the same place on every host.")
    insecure: bool = Field(default=False, description="Allow connections without TLS.")
    python: str | None = Field(default=None, description="The interpreter on the hosts.")
    connect: dict[str, Any] = Field(default_factory=dict, description="For asyncssh.connect.")
    worker: dict[str, Any] = Field(
        default_factory=dict, description="For each worker (nthreads …)."
    )
    allowed_failures: Annotated[int, Field(ge=0)] = 10

    @model_validator(mode="after")
    def _safe(self) -> Ssh:
        if self.tls is None and not self.insecure and not all(map(is_loopback, self.hosts)):
            raise PydanticCustomError(
                "key_conflict",
                "the workers would be reached without TLS; give tls (ca, cert, key), or say "
                "insecure: true",
            )
        return self


def arguments(profile: Remote) -> dict[str, Any]:
    """Return what the library's class is called with."""
    given = dict(profile.options)
    failures = str(profile.allowed_failures)
    if profile.kind in ("slurm", "pbs"):
        if not profile.insecure:
            given.setdefault("security", True)
        given.setdefault("scheduler_options", {"dashboard_address": _LOOPBACK})
        extra = list(given.get("worker_extra_args", []))
        # Every worker has pages too, which ask nobody who he is.
        if "--dashboard-address" not in extra:
            extra += ["--dashboard-address", _LOOPBACK]
        if profile.lifetime is not None:
            extra += ["--lifetime", profile.lifetime, "--lifetime-stagger", profile.stagger]
        given["worker_extra_args"] = extra
    elif profile.kind == "kubernetes":
        given["env"] = {_FAILURES: failures, **given.get("env", {})}
    elif profile.kind == "coiled":
        given["environ"] = {_FAILURES: failures, **given.get("environ", {})}
    return given


def check_arguments(kind: str, cls: Any, given: Mapping[str, Any]) -> None:
    """Refuse options that a cluster class does not take.

    Raises
    ------
    ConfigError
        With the path of the option.
    """
    if kind == "gateway":
        return  # its options are whatever the gateway's administrator offers
    known: set[str] = set()
    for each in (cls, getattr(cls, "job_cls", None)):
        for base in getattr(each, "__mro__", ()):
            if base is not object and "__init__" in vars(base):
                known |= set(inspect.signature(base.__init__).parameters)
    for name in given:
        if name not in known - {"self", "kwargs", "job_kwargs"}:
            raise ConfigError(
                f"{cls.__name__} takes no {name!r}",
                path=f"options.{name}",
                hint=f"it takes {', '.join(sorted(known - {'self'}))}",
            )


def cluster_class(kind: str) -> Any:
    """Import the library's class.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    module, name, package = _CLASSES[kind]
    try:
        with _own_interrupt():
            return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"kind {kind!r} needs the package {package} ({error})",
            path="kind",
            hint=f"pip install {package}",
        ) from None


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Keep what Ctrl-C does: to import dask-jobqueue makes it end the process, as if all were well."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _started(start: Callable[[], Any]) -> Iterator[Any]:
    """A cluster of another library, ended with the block.

    Raises
    ------
    ConfigError
        It does not start.
    """
    try:
        cluster = start()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the cluster does not start: {error}",
            path="kind",
            hint="is what it needs there and reachable from here?",
        ) from error
    with cluster:
        yield cluster


@contextmanager
def open_remote(profile: Remote) -> Iterator[Client]:
    """Start the cluster; it ends with the block."""
    cls = cluster_class(profile.kind)
    given = arguments(profile)
    check_arguments(profile.kind, cls, given)
    if given.get("security") is True and "shared_temp_directory" in given:
        # The library writes its keys there, and does not make the folder.
        folder = Path(os.path.expandvars(given["shared_temp_directory"])).expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    failures = {"distributed.scheduler.allowed-failures": profile.allowed_failures}
    with dask.config.set(failures), _started(lambda: cls(**given)) as cluster:
        if profile.adapt is not None:
            cluster.adapt(minimum=profile.adapt.minimum, maximum=profile.adapt.maximum)
        else:
            cluster.scale(profile.workers)
        with cluster.get_client() as client:
            yield prepare(client)


def ssh_arguments(profile: Ssh) -> dict[str, Any]:
    """Return what :class:`distributed.SSHCluster` is called with."""
    if profile.tls is not None:
        common: dict[str, Any] = {"protocol": "tls"}
    elif all(map(is_loopback, profile.hosts)):
        # Dask would listen on every address of the machine.
        common = {"host": "127.0.0.1"}
    else:
        common = {}
    return {
        "hosts": list(profile.hosts),
        "connect_options": dict(profile.connect),
        "worker_options": {**common, "dashboard_address": _LOOPBACK, **profile.worker},
        "scheduler_options": {**common, "dashboard_address": _LOOPBACK},
        "remote_python": profile.python,
        **({} if profile.tls is None else {"security": profile.tls.security()}),
    }


@contextmanager
def open_ssh(profile: Ssh) -> Iterator[Client]:
    """Start the processes; they end with the block."""
    # The hosts inherit this configuration.
    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": profile.allowed_failures,
        "distributed.deploy.lost-worker-timeout": "1 day",  # as for local clusters
    }
    if profile.tls is not None:
        settings.update(profile.tls.settings())
    with (
        dask.config.set(settings),
        _started(lambda: SSHCluster(**ssh_arguments(profile))) as cluster,
        Client(cluster) as client,
    ):
        yield prepare(client)
