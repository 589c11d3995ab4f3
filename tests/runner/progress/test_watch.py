"""What a person, or a program, sees of a run while it goes on."""

from __future__ import annotations

import asyncio
import io
import json
import os
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from runner.progress import Mode, RunConsole, watch
from runner.progress.view import live_view
from runner.records import Owner, StopReason
from runner.telemetry.statistics import (
    EndpointStatistics,
    FinishedAttempt,
    Phase,
    RunStatistics,
    SandboxStatistics,
)

FULL = RunStatistics(
    n_total=1000,
    n_done_before=12,
    n_finished=400,
    n_failed=3,
    n_in_flight=200,
    concurrency=256,
    max_trajectories=200,
    phases={Phase.QUEUED: 1, Phase.MODEL: 150, Phase.SANDBOX: 9, Phase.EXECUTING: 40},
    n_turns=2000,
    n_completion_tokens=12345,
    cost=1.25,
    stop_reasons={StopReason.ANSWER: 390, StopReason.MAX_TURNS: 10},
    failures_by_owner={Owner.ENGINE: 7},
    elapsed_s=120,
    finished_per_s=4,
    tokens_per_s=900,
    loop_lag_p50_s=0.001,
    loop_lag_p99_s=0.012,
    endpoints=(
        EndpointStatistics("gpu1:8000", "ready", 60, 4, 64, 100, 128, 1.5, 900, 2),
        EndpointStatistics("gpu2:8000", "ejected", 0, 0, 16, 0, 128, None, 9, 9),
    ),
    sandboxes=SandboxStatistics(n_leased=49, n_waiting=9, max_leased=64, n_idle=2),
    recent=(FinishedAttempt("s[red]1@1", StopReason.ANSWER, Owner.MODEL, 4, 12.3),),
    paused="the engines are down",
    last_failure="s9@1: HTTP 503 \x1b[2J",
)


async def shown(
    mode: Mode, states: list[RunStatistics], *, seconds: float = 0.0, terminal: bool = False
) -> str:
    """Return what a watch writes until it is cancelled."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200)
    watching = asyncio.create_task(watch(lambda: states[0], console, mode))
    await asyncio.sleep(seconds)
    states.pop(0)
    watching.cancel()
    await asyncio.wait([watching])
    return file.getvalue()


async def test_terminal_shows_the_last_state() -> None:
    """When the watch is cancelled the final numbers stay on the screen."""
    state = RunStatistics(3)
    assert "3/3 done" in await shown("auto", [state, replace(state, n_finished=3)], terminal=True)


async def test_short_runs_print_no_plain_line() -> None:
    """A run that ends within ten seconds says what came of it at its end, not before."""
    assert await shown("plain", [FULL, FULL]) == ""


async def test_json_has_all_fields() -> None:
    """Each line is one object whose keys are the fields of RunStatistics; the last state is there."""
    rows = [
        json.loads(line) for line in (await shown("json", [FULL, replace(FULL, n_finished=401)])).splitlines()
    ]
    assert rows[-1]["n_finished"] == 401
    assert rows[-1]["endpoints"][0]["name"] == "gpu1:8000"
    assert rows[-1]["phases"]["model"] == 150
    assert set(rows[-1]) == set(RunStatistics.__dataclass_fields__)


@pytest.mark.parametrize("mode", ["live", "json"])
async def test_reader_that_is_gone_ends_nothing(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever read standard error has left: nothing is raised at the run that goes on, not SystemExit either."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w", buffering=1) as file:
        monkeypatch.setattr("sys.stderr", file)
        console = RunConsole()
        watching = asyncio.create_task(watch(lambda: FULL, console, mode))
        await asyncio.sleep(0)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        console.print("nobody sees this")
        assert console.quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)


async def test_quiet_says_nothing() -> None:
    """Not even on a terminal."""
    assert await shown("quiet", [FULL, FULL], terminal=True) == ""


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_live_view_fits_any_terminal(width: int) -> None:
    """All that is asked for is there, no line is wider than the terminal, nothing is obeyed."""
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(live_view(FULL, width))
    text = file.getvalue()
    flat = " ".join(text.split())

    assert all(len(line) <= width for line in text.splitlines())
    assert "\x1b[2J" not in text
    for part in ("PAUSED: the engines are down", "403/1000 done", "150 with the model", "gpu2:8000", "60/64"):
        assert part in flat
    if width >= 80:
        for part in (
            "200 of 200 (held below 256)",
            "49 of 64 leased",
            "900/s",
            "cost 1.25",
            "engine 7",
            "12.0 ms",
            "s[red]1@1",
        ):
            assert part in flat
