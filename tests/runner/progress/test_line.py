"""What a person reads while a run goes on."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from runner.progress import duration, status_line, watch
from runner.scheduler import idle_statistics


def test_status_line() -> None:
    """Done, in flight, rate, time left, turns, tokens and failures, in one line."""
    statistics = replace(
        idle_statistics(), n_total=100, n_finished=30, n_failed=10, n_in_flight=8, n_turns=90, n_tokens=1234,
        elapsed_s=60.0,
    )  # fmt: skip
    line = "40/100 trajectories · 8 in flight · 40/min · 1m00s elapsed · 1m30s left · 90 turns · 1234 tokens · 10 FAILED"

    assert status_line(statistics) == line


def test_nothing_yet() -> None:
    """Before anything has ended there is no rate to divide by."""
    assert status_line(replace(idle_statistics(), n_total=5)).startswith(
        "0/5 trajectories · 0 in flight · 0/min"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (725, "12m05s"), (11220, "3h07m")]
)
def test_duration(seconds: float, text: str) -> None:
    """Seconds as a person says them."""
    assert duration(seconds) == text


async def test_terminal_shows_the_last_state() -> None:
    """When the watch is cancelled the final numbers stay on the screen."""
    import asyncio

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200)
    state = [replace(idle_statistics(), n_total=3)]
    watching = asyncio.create_task(watch(lambda: state[0], console))
    await asyncio.sleep(0)
    state[0] = replace(state[0], n_finished=3)
    watching.cancel()
    await asyncio.wait([watching])

    assert "3/3 trajectories" in file.getvalue()
