"""A request made again until it succeeds, fails for good, or has been made often enough.

State: ``_limiters`` holds this process's limiter for each policy, and ``_shares`` its part of what the whole cluster may ask for; a forked
child makes its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Protocol

import aiohttp
from obstore.exceptions import BaseError

from rasteret_dask.errors import AccessError, SourceError, TransientError
from rasteret_dask.model import RatePolicy, RetryPolicy
from rasteret_dask.storage import counters
from rasteret_dask.storage.limiter import LARGE, Gate, Limiter
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.ranges import RangeResponse
from rasteret_dask.storage.retry import REFUSALS, Refusal, classify, delay, status_of

STORE_ERRORS = (BaseError, OSError, ValueError, RuntimeError, aiohttp.ClientError, Refusal)
"""What obstore, fsspec, aiohttp and the operating system raise; their trees meet nowhere below ``Exception``."""

_limiters: dict[tuple[int, RatePolicy], Limiter] = {}
_shares: dict[int, float] = {}


class Attempt(Protocol):
    """One request, made once each time it is called."""

    def __call__(self, *, careful: bool) -> Awaitable[RangeResponse]:
        """Make it; ``careful``: by a way that sees the headers of a refusal, if there is one."""


def limiter(policy: RatePolicy) -> Limiter:
    """Return this process's limiter for a policy."""
    pid = os.getpid()
    found = _limiters.get((pid, policy))
    if found is None:
        made = Limiter(policy, _shares.get(pid, 1.0))
        found = _limiters.setdefault((pid, policy), made)
    return found


def set_share(share: float) -> None:
    """Tell this process which part of a cluster's requests it may make; see :class:`~rasteret_dask.model.RatePolicy`."""
    pid = os.getpid()
    _shares[pid] = share
    found = [known for (owner, _), known in list(_limiters.items()) if owner == pid]
    for known in found:
        get_loop().call_soon_threadsafe(known.set_share, share)


async def with_retries(
    attempt: Attempt,
    url: str,
    policy: RetryPolicy,
    gate: Gate,
    renew: Callable[[], None] | None = None,
    size: int = 0,
) -> RangeResponse:
    """Make a request until it succeeds, fails for good, or the policy's attempts are used up.

    Parameters
    ----------
    attempt : Attempt
    url : str
        Unsigned, for messages.
    policy : RetryPolicy
    gate : Gate
        Passed by every attempt; not held while waiting for the next.
    renew : callable, optional
        Forget the credential that the last attempt used. A refused access is then tried once more: a signature may have expired.
    size : int
        Bytes that are asked for.

    Raises
    ------
    SourceError
        Made anew from the unsigned URL: a store's own message can carry a signature.
    """
    number = 1
    refused = False
    few = gate.large if size > LARGE else nullcontext()
    while True:
        async with few, gate:
            counters.add(requests=1)
            failure, status, wait = None, None, 0.0
            sent = asyncio.get_running_loop().time()
            try:
                response = await attempt(careful=refused or gate.wary)
            except SourceError as error:
                failure = error.located(url=url)
            except STORE_ERRORS as error:
                failure, status = classify(error, url), status_of(error)
                wait = error.wait if isinstance(error, Refusal) else 0.0
        if failure is None:
            gate.served()
            counters.add(size=len(response.data))
            return response
        if status in REFUSALS:
            refused = True
            now = asyncio.get_running_loop().time()
            # 429 speaks of all that we ask for, 503 of this request.
            if status == 429:
                gate.refused(now, min(wait, policy.patience), sent)
            else:
                gate.refused(now)
        if isinstance(failure, AccessError) and renew is not None:
            renew()
            renew = None
        elif not isinstance(failure, TransientError) or number >= policy.attempts:
            raise failure
        elif wait > policy.patience:
            raise _too_long(failure, wait, policy)
        else:
            await asyncio.sleep(max(wait, delay(number, policy, random.Random())))
            number += 1
        counters.add(retries=1)


def _too_long(failure: SourceError, wait: float, policy: RetryPolicy) -> SourceError:
    return type(failure)(
        f"{failure.message}, and asks to come back after {wait:.0f} s",
        url=failure.url,
        hint=f"RetryPolicy(patience=) allows {policy.patience:g} s",
    )
