"""What a process asks of a host: halved by refusals, slowly more again, divided among workers."""

from __future__ import annotations

import asyncio
import random

import pytest

from rasteret_dask.errors import ArgumentError
from rasteret_dask.model import RatePolicy
from rasteret_dask.storage.limiter import Gate, Limiter, Share, limits


def test_refusals_of_one_moment_halve_once() -> None:
    share = Share(64)
    for k in range(10):
        share.refused(100.0 + k * 0.05)
    assert share.limit == 32
    share.refused(101.0)
    assert share.limit == 16
    for k in range(20):
        share.refused(200.0 + 2.0 * k)
    assert share.limit == 1


def test_what_was_sent_after_a_halving_halves_again() -> None:
    share = Share(64)
    share.refused(100.0, sent=99.9)
    for k in range(10):
        share.refused(100.01 + k * 0.005, sent=99.95)
    assert share.limit == 32
    share.refused(100.1, sent=100.05)
    assert share.limit == 16


def test_recovery_is_one_more_for_each_round() -> None:
    share = Share(64)
    share.refused(0.0)
    rounds = 0
    while share.limit < 64:
        for _ in range(share.limit):
            share.served()
        rounds += 1
    assert 30 <= rounds <= 34
    for _ in range(1000):
        share.served()
    assert share.value == 64


def test_processes_that_know_nothing_of_each_other_come_to_equal_shares() -> None:
    """A server that bears 60 at once, and refuses what is above."""
    rng, shares = random.Random(1), [Share(64) for _ in range(4)]
    for k in range(3):
        shares[0].refused(-100.0 - 2 * k)  # it begins with much less
    average = [0.0] * 4
    for second in range(400):
        for _ in range(10):
            total = sum(s.limit for s in shares)
            refused = max(0.0, 1 - 60 / total)
            for share in shares:
                for _ in range(share.limit):
                    if rng.random() < refused:
                        share.refused(float(second))
                    else:
                        share.served()
        if second >= 100:
            for k, share in enumerate(shares):
                average[k] += share.limit / 300
    assert max(average) / min(average) < 1.3
    assert 30 < sum(average) < 90


def test_a_gate_that_was_refused_lets_fewer_in_and_says_so() -> None:
    async def main() -> None:
        gate, running, peak = Gate(8), 0, 0

        async def one() -> None:
            nonlocal running, peak
            async with gate:
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(0.001)
                running -= 1

        await asyncio.gather(*(one() for _ in range(40)))
        assert peak == 8
        assert not gate.wary
        gate.refused(0.0)
        assert gate.wary
        peak = 0
        await asyncio.gather(*(one() for _ in range(20)))
        assert peak == 4
        for _ in range(60):
            gate.served()
        assert not gate.wary
        peak = 0
        await asyncio.gather(*(one() for _ in range(40)))
        assert peak == 8

    asyncio.run(main())


def test_requests_per_second() -> None:
    async def main() -> None:
        loop, gate, times = asyncio.get_running_loop(), Gate(64, per_second=100.0), []

        async def one() -> None:
            async with gate:
                times.append(loop.time())

        await asyncio.gather(*(one() for _ in range(31)))
        # Timers may ring late, but nobody is early.
        assert all(t - times[0] >= k * 0.01 - 0.002 for k, t in enumerate(times))

    asyncio.run(main())


def test_a_pause_holds_everyone_and_ends() -> None:
    async def main() -> None:
        loop, gate = asyncio.get_running_loop(), Gate(64)
        begin = loop.time()
        gate.refused(begin, 0.2)
        await asyncio.gather(*(_pass(gate) for _ in range(5)))
        assert loop.time() - begin >= 0.2
        begin = loop.time()
        for _ in range(50):
            await _pass(gate)
        assert gate._next == 0.0

    asyncio.run(main())


async def _pass(gate: Gate) -> None:
    async with gate:
        pass


@pytest.mark.parametrize("seed", range(4))
def test_cancelled_waiters_lose_no_place(seed: int) -> None:
    async def main() -> None:
        gate, rng = Gate(3, per_second=None if seed % 2 else 5000.0), random.Random(seed)

        async def one() -> None:
            async with gate:
                await asyncio.sleep(rng.choice([0, 0.001]))

        tasks = [asyncio.create_task(one()) for _ in range(200)]
        while not all(t.done() for t in tasks):
            rng.choice(tasks).cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert gate._active == 0
        await asyncio.wait_for(asyncio.gather(*(_pass(gate) for _ in range(9))), 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("policy", "share", "expected"),
    [
        (RatePolicy(), 0.25, (128, None)),
        (RatePolicy(cluster_in_flight=200), 1.0, (128, None)),
        (RatePolicy(cluster_in_flight=100), 0.25, (25, None)),
        (RatePolicy(cluster_in_flight=3), 0.1, (1, None)),
        (RatePolicy(in_flight=8, per_second=50.0), 0.2, (8, 10.0)),
    ],
)
def test_a_cluster_s_budget_is_divided(
    policy: RatePolicy, share: float, expected: tuple[int, float | None]
) -> None:
    assert limits(policy, share) == expected


def test_shares_change_while_requests_are_under_way() -> None:
    async def main() -> None:
        limiter = Limiter(RatePolicy(cluster_in_flight=12))
        gate = limiter.host("h")
        assert gate._limit == 12
        limiter.set_share(1 / 3)
        assert gate._limit == 4
        gate.refused(0.0)
        assert gate._limit == 2
        limiter.set_share(1.0)
        assert gate._limit == 6  # still half of what it may
        assert limiter.host("other")._limit == 12

    asyncio.run(main())


@pytest.mark.parametrize("bad", [{"cluster_in_flight": 0}, {"per_second": 0.0}, {"in_flight": 0}])
def test_limits_that_let_nothing_through(bad: dict[str, float]) -> None:
    with pytest.raises(ArgumentError):
        RatePolicy(**bad)  # type: ignore[arg-type]
