"""What a cluster is given before it works for us: the governor, and a check that everyone runs the same version."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import WorkerPlugin

from rasteret_dask.cluster.governor import Governor
from rasteret_dask.errors import RasteretWarning

TOPIC = "rasteret-dask"
PACKAGES = ("rasteret-dask", "numpy", "obstore", "pyproj", "imagecodecs")
"""Whose versions must be the same: plans are pickled by the first, and pixels come out of the others."""

_log = logging.getLogger("rasteret_dask.cluster")


def installed() -> dict[str, str | None]:
    """Return the versions of :data:`PACKAGES` in this process; None for what is not there."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def difference(here: dict[str, str | None], there: dict[str, str | None]) -> str:
    """Say how another process's versions differ from the client's; empty when they do not."""
    parts = [
        f"{name} {there.get(name) or 'missing'} (here {wanted or 'missing'})"
        for name, wanted in here.items()
        if there.get(name) != wanted
    ]
    return ", ".join(parts)


class SameVersions(WorkerPlugin):
    """Tells the client of a worker whose versions are not the client's; later joiners are looked at as well.

    Parameters
    ----------
    expected : dict of str to str or None
        The client's.
    """

    name = "rasteret-dask-versions"

    def __init__(self, expected: dict[str, str | None]) -> None:
        self.expected = expected

    def setup(self, worker: Any) -> None:
        """Compare."""
        found = difference(self.expected, installed())
        if found:
            _log.warning("this worker differs from its client: %s", found)
            worker.log_event(TOPIC, {"worker": worker.address, "differs": found})


def _heard(event: Any) -> None:
    _, message = event
    tell(message["worker"], message["differs"])


def tell(worker: str, differs: str) -> None:
    """Warn of a worker that is not as the client is."""
    text = f"worker {worker} differs from this client: {differs}; results may differ or reads fail"
    _log.warning("%s", text)
    warnings.warn(text, RasteretWarning, stacklevel=2)


def prepare(client: Client) -> Client:
    """Give a cluster what it needs to work for us; doing so twice does no harm.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    distributed.Client
        The same.

    Warns
    -----
    RasteretWarning
        For each worker that runs other versions than this process, now or when it joins later.
    """
    client.subscribe_topic(TOPIC, _heard)
    client.register_plugin(Governor())
    client.register_plugin(SameVersions(installed()))
    return client
