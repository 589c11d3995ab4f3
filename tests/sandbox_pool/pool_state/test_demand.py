from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.pool_state.demand import WINDOW_S, Demand, Latencies, warm_target

seconds = st.floats(0, 1000)


@given(pauses=st.lists(seconds, min_size=1, max_size=20), later=seconds)
def test_demand_counts_and_forgets(pauses: list[float], later: float) -> None:
    """Recent arrivals are never more than all, at least one as the last comes, and only fade after it."""
    demand, now = Demand(), 0.0
    for pause in pauses:
        now += pause
        demand.add(now)
    recent = demand.n_recent(now)
    assert 1 <= recent <= len(pauses) + 1e-9
    assert demand.n_recent(now + later) <= recent
    assert math.isclose(demand.n_recent(now + WINDOW_S), recent / math.e)
    assert demand.n_recent(now + 100 * WINDOW_S) < 1e-9


def test_demand_sees_a_rate() -> None:
    """At a steady rate the arrivals of a window are counted, within a few percent."""
    demand = Demand()
    for n in range(2000):
        demand.add(n / 20)
    assert math.isclose(demand.n_recent(2000 / 20), 20 * WINDOW_S, rel_tol=0.03)


def test_warm_target_is_rate_times_latency_twice() -> None:
    """As many are kept as arrive in the time of two starts, and one as soon as there is a rate at all."""
    assert warm_target(100, 0.5, n_enough=2) == math.ceil(100 / WINDOW_S * 0.5 * 2)
    assert warm_target(2, 0.02, n_enough=2) == 1
    assert warm_target(2, 0.0, n_enough=2) == 1
    assert warm_target(1.9, 9.0, n_enough=2) == 0


def test_an_odd_latency_says_nothing() -> None:
    """The first start, for which a zygote had to import everything, does not inflate the target for long."""
    latencies = Latencies()
    assert latencies.typical_s == 0
    for latency_s in (2.5, 0.02, 0.03, 0.02, 9.0):
        latencies.add(latency_s)
    assert latencies.typical_s == 0.03
    for _ in range(15):
        latencies.add(1.0)
    assert latencies.typical_s == 1.0
