"""A cluster that is lost: what Dask raises becomes an error that says how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import CancelledError, Client, KilledWorker
from distributed.comm import CommClosedError

from rasteret_dask.errors import RunInterruptedError, WorkersKilledError

_AGAIN = "what is finished is kept: do it again, a pipeline with resume"


@contextmanager
def noticing_loss(client: Client | None) -> Iterator[None]:
    """Say of what Dask raises when its scheduler or its workers are gone that the work can go on.

    Parameters
    ----------
    client : distributed.Client, optional
        None where there is no cluster to lose.

    Raises
    ------
    RunInterruptedError
        The command line ends with the code that means "start again".
    WorkersKilledError
        One that only concerns what was done here: the cluster is still there.
    """
    try:
        yield
    except KilledWorker:
        raise WorkersKilledError(
            "workers died again and again (out of memory?), and Dask gave a task up: "
            "it needs smaller chunks, or workers with more memory",
            hint=_AGAIN,
        ) from None
    except (CancelledError, CommClosedError):
        raise _lost() from None
    except OSError:
        # Whatever is asked of a client that has lost its scheduler ends in a time-out.
        if client is None or client.status == "running":
            raise
        raise _lost() from None


def _lost() -> RunInterruptedError:
    return RunInterruptedError("the cluster's scheduler was lost", hint=_AGAIN)
