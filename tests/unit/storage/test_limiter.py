"""Bytes in flight: never over the budget, first come first served, nothing lost to a cancellation."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest

from rasteret_dask.model import RatePolicy
from rasteret_dask.storage.limiter import Budget, Limiter


def test_a_budget_is_never_overdrawn_and_comes_back_whole() -> None:
    async def main() -> None:
        budget, rng, held, peak = Budget(100), random.Random(3), 0, 0

        async def one(size: int) -> None:
            nonlocal held, peak
            await budget.reserve(size)
            held += min(size, 100)
            peak = max(peak, held)
            await asyncio.sleep(0)
            held -= min(size, 100)
            budget.release(size)

        await asyncio.gather(*(one(rng.choice([1, 30, 70, 100, 500])) for _ in range(300)))
        assert peak == 100
        assert budget.free == 100

    asyncio.run(main())


def test_whoever_came_first_is_served_first() -> None:
    async def main() -> None:
        budget, order = Budget(10), []

        async def one(name: str, size: int) -> None:
            await budget.reserve(size)
            order.append(name)

        await budget.reserve(10)
        tasks = [asyncio.create_task(one(n, s)) for n, s in (("large", 9), ("small", 1))]
        await asyncio.sleep(0)
        budget.release(5)
        await asyncio.sleep(0)
        assert order == []  # the small one does not push in
        assert not budget.try_reserve(1)
        budget.release(5)
        await asyncio.gather(*tasks)
        assert order == ["large", "small"]

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_cancellations_lose_nothing(seed: int) -> None:
    async def main() -> None:
        budget, rng = Budget(100), random.Random(seed)

        async def one(size: int) -> None:
            await budget.reserve(size)
            try:
                await asyncio.sleep(rng.choice([0, 0, 0.001]))
            finally:
                budget.release(size)

        tasks = [asyncio.create_task(one(rng.choice([20, 60, 100, 300]))) for _ in range(200)]
        while not all(t.done() for t in tasks):
            rng.choice(tasks).cancel()
            await asyncio.sleep(0)
        assert budget.free == 100
        await asyncio.wait_for(budget.reserve(100), 5)

    asyncio.run(main())


def test_whoever_is_cancelled_just_as_its_turn_comes_gives_it_back() -> None:
    async def main() -> None:
        budget = Budget(100)
        await budget.reserve(100)
        waiting = asyncio.create_task(budget.reserve(60))
        await asyncio.sleep(0)
        budget.release(100)  # its turn has come, and it has not run yet
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert budget.free == 100

    asyncio.run(main())


def test_requests_in_flight_are_counted_by_host() -> None:
    async def main() -> None:
        limiter = Limiter(RatePolicy(in_flight=3))
        running = {"a": 0, "b": 0}
        peak = dict(running)

        async def one(host: str) -> None:
            async with limiter.host(host):
                running[host] += 1
                peak[host] = max(peak[host], running[host])
                await asyncio.sleep(0.001)
                running[host] -= 1

        await asyncio.gather(*(one(h) for h in "ab" * 20))
        assert peak == {"a": 3, "b": 3}

    asyncio.run(main())


def test_bytes_read_ahead_do_not_keep_others_waiting() -> None:
    budget = Limiter(RatePolicy(budget=10)).budget
    assert budget.lend(5)
    assert not budget.lend(1)  # half of all
    assert budget.try_reserve(5)
    assert not budget.try_reserve(1)  # both together are what the policy allows
    budget.release(5)
    assert budget.try_reserve(9)  # nobody else is waited for: it would wait for ever
    assert not budget.try_reserve(1)
    budget.release(9)
    budget.release(5, lent=True)
    assert budget.free == 10
    assert budget.try_reserve(6)
    assert not budget.lend(5)
    assert budget.lend(4)


def test_what_comes_free_goes_to_those_who_wait_and_then_to_those_who_hope() -> None:
    async def main() -> None:
        budget, order = Budget(10, 5), []

        class Hopeful:
            def __init__(self, name: str, wanted: int) -> None:
                self.name, self.wanted = name, wanted

            def more(self) -> bool:
                while self.wanted and budget.lend(1):
                    self.wanted -= 1
                    order.append(self.name)
                return not self.wanted

        first, second, gone = Hopeful("first", 3), Hopeful("second", 9), Hopeful("gone", 1)
        await budget.reserve(10)
        for one in (gone, first, second):
            budget.hope(weakref.WeakMethod(one.more))
        del one, gone
        gc.collect()
        waiting = asyncio.create_task(budget.reserve(2))
        await asyncio.sleep(0)
        budget.release(2)
        await waiting
        assert order == []  # it was waited for
        budget.release(8)
        assert order == ["first"] * 3 + ["second"] * 2  # half of the budget
        budget.release(3, lent=True)
        assert order == ["first"] * 3 + ["second"] * 5
        budget.release(5, lent=True)
        assert order == ["first"] * 3 + ["second"] * 9
        assert budget.free == 10 - 2 - 4

    asyncio.run(main())
