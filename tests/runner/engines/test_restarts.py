"""Restarts wait longer each time and end, within a window that moves on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.engines.restarts import MAX_DELAY_S, RestartPolicy


def test_waits_double_and_end() -> None:
    """1, 2, 4 seconds, then it is given up."""
    policy = RestartPolicy(3, 3600.0)
    assert [policy.delay_s(now) for now in (0.0, 1.0, 2.0, 3.0)] == [1.0, 2.0, 4.0, None]


def test_old_restarts_are_forgotten() -> None:
    """An engine that lost its core once a day runs for ever."""
    policy = RestartPolicy(1, 60.0)
    assert [policy.delay_s(now) for now in (0.0, 61.0, 122.0)] == [1.0, 1.0, 1.0]


def test_none_may_be_allowed() -> None:
    """Then the first loss is the last."""
    assert RestartPolicy(0, 60.0).delay_s(0.0) is None


@given(gaps=st.lists(st.floats(0, 100), max_size=50), max_restarts=st.integers(0, 10))
def test_never_more_than_allowed_within_a_window(gaps: list[float], max_restarts: int) -> None:
    """However the losses fall, and no wait is longer than the longest."""
    policy, now, restarted = RestartPolicy(max_restarts, 60.0), 0.0, []
    for gap in gaps:
        now += gap
        delay_s = policy.delay_s(now)
        if delay_s is not None:
            assert 0 < delay_s <= MAX_DELAY_S
            restarted.append(now)
        assert sum(1 for at in restarted if now - at <= 60.0) <= max_restarts
