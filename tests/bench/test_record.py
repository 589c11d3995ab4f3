from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.bench.record import Record, percentile

numbers = st.lists(st.floats(0.001, 1000), min_size=1, max_size=200)


@given(numbers, st.floats(1, 100))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[float], percent: float
) -> None:
    """So many per cent do not exceed it, and of every smaller value fewer do."""
    found = percentile(values, percent)
    assert found in values
    n_needed = math.ceil(percent / 100 * len(values))
    assert sum(v <= found for v in values) >= n_needed
    assert sum(v < found for v in values) < n_needed


def test_a_percentile_of_few_values_is_their_worst() -> None:
    """The p99 of less than a hundred values is the highest."""
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 99) == 99.0


def test_a_median_is_that_of_the_repetitions() -> None:
    """One bad repetition with many values does not move it, as it would move the median of all values."""
    record = Record()
    for values in ([1.0], [2.0], [100.0] * 9):
        record.add("ours", "start_s", values)
    assert record.value("ours", "start_s", 50) == 2.0


def test_a_p99_is_that_of_all_numbers() -> None:
    """The one bad start of a bad repetition shows."""
    record = Record()
    for values in ([1.0] * 10, [1.0] * 10, [1.0] * 9 + [50.0]):
        record.add("ours", "start_s", values)
    assert record.value("ours", "start_s", 99) == 50.0


def test_a_ratio_is_made_in_each_repetition() -> None:
    """Where the machine was slow for both, the ratio stays."""
    record = Record()
    for slowness in (1.0, 10.0, 3.0):
        record.add("cold", "start_s", [4.0 * slowness])
        record.add("ours", "start_s", [1.0 * slowness, 1.0 * slowness])
    assert record.ratio(("cold", "start_s"), ("ours", "start_s"), 50) == 4.0


def test_a_ratio_of_unlike_repetitions_is_one_of_medians() -> None:
    """A contender measured twice compares with one measured once."""
    record = Record()
    record.add("ours", "starts_hz", [40.0])
    record.add("ours", "starts_hz", [60.0])
    record.add("cold", "starts_hz", [2.0])
    assert record.ratio(("ours", "starts_hz"), ("cold", "starts_hz"), 50) == 25.0


@pytest.mark.parametrize("percent", [50, 99])
def test_what_was_not_measured_has_no_value(percent: float) -> None:
    """Neither an absent contender nor an empty repetition makes a number, nor does a division by nought."""
    record = Record()
    record.add("ours", "start_s", [])
    record.add("cold", "start_s", [1.0])
    record.add("idle", "start_s", [0.0])
    record.add("less", "start_s", [-1.0])  # free memory can grow meanwhile
    assert record.value("ours", "start_s", percent) is None
    assert record.ratio(("cold", "start_s"), ("ours", "start_s"), percent) is None
    assert record.ratio(("nobody", "start_s"), ("cold", "start_s"), percent) is None
    assert record.ratio(("cold", "start_s"), ("idle", "start_s"), percent) is None
    assert record.ratio(("cold", "start_s"), ("less", "start_s"), percent) is None
    assert record.n("ours", "start_s") == 0


def test_failed_starts_are_counted_among_all() -> None:
    """A start counts once, whether it failed or not."""
    record = Record()
    record.count_start("ours")
    record.count_start("ours", "no memory")
    assert record.n_starts == {"ours": 2}
    assert record.failures == {"ours": ["no memory"]}
