"""How far a run is, in one line."""

from __future__ import annotations

import pytest

from runner.progress import duration, status_line
from runner.telemetry.statistics import Phase, RunStatistics


def test_status_line() -> None:
    """Done, in flight by phase, rate, time left, turns, tokens and failures."""
    statistics = RunStatistics(
        n_total=100, n_finished=30, n_failed=10, n_in_flight=8, phases={Phase.MODEL: 5, Phase.EXECUTING: 3},
        n_turns=90, n_prompt_tokens=1000, n_completion_tokens=234, elapsed_s=60.0,
    )  # fmt: skip
    assert status_line(statistics) == (
        "40/100 trajectories · 8 in flight (5 with the model, 3 executing) · 40/min · 1m00s elapsed · "
        "1m30s left · 90 turns · 1234 tokens · 10 FAILED"
    )


def test_time_left_goes_by_the_latest_rate() -> None:
    """A run that became faster says so."""
    assert "10s left" in status_line(RunStatistics(100, n_finished=50, finished_per_s=5.0, elapsed_s=500))


def test_pauses_and_ends_are_told() -> None:
    """What stands in the way is in the line, without what a terminal would obey."""
    line = status_line(RunStatistics(5, paused="server \x1b[31mdown\n", draining="SIGTERM"))
    assert line.endswith("PAUSED: server  [31mdown  · ending: SIGTERM")


def test_nothing_yet() -> None:
    """Before anything has ended there is no rate to divide by."""
    assert status_line(RunStatistics(5)).startswith("0/5 trajectories · 0 in flight · 0/min")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (725, "12m05s"), (11220, "3h07m")]
)
def test_duration(seconds: float, text: str) -> None:
    """Seconds as a person says them."""
    assert duration(seconds) == text
