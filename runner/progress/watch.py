"""Shows a run's statistics as it goes on: a live view, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Literal

from rich.console import Console
from rich.live import Live

from runner.encoding import encode
from runner.progress.line import status_line
from runner.progress.view import live_view
from runner.telemetry.statistics import RunStatistics

LIVE_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 10.0
JSON_INTERVAL_S = 1.0

Mode = Literal["auto", "live", "plain", "json", "quiet"]
Statistics = Callable[[], RunStatistics]


class RunConsole(Console):
    """Standard error. When nobody reads it any more, nothing more is shown, and the run goes on."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """Do not end the process, as rich does."""
        self.quiet = True


async def watch(statistics: Statistics, console: Console, mode: Mode = "auto", label: str = "") -> None:
    """Show the statistics until cancelled; the live view and JSON show the last state once more then.

    `json` writes the fields of RunStatistics, an object a line; `auto` is `live` on a terminal and `plain`
    elsewhere. Plain lines begin with `label`.
    """
    if mode == "auto":
        mode = "live" if console.is_terminal else "plain"
    with suppress(BrokenPipeError):
        match mode:
            case "live":
                await _watch_live(statistics, console)
            case "json":
                await _watch_json(statistics, console)
            case "plain":
                await _watch_plain(statistics, console, label)


async def _watch_live(statistics: Statistics, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=False) as live:
        try:
            while True:
                live.update(live_view(statistics(), console.width), refresh=True)
                await asyncio.sleep(LIVE_INTERVAL_S)
        finally:
            live.update(live_view(statistics(), console.width), refresh=True)


async def _watch_plain(statistics: Statistics, console: Console, label: str) -> None:
    while True:
        await asyncio.sleep(PLAIN_INTERVAL_S)
        console.print(label + status_line(statistics()), highlight=False, soft_wrap=True, markup=False)


async def _watch_json(statistics: Statistics, console: Console) -> None:
    try:
        while True:
            await asyncio.sleep(JSON_INTERVAL_S)
            _write_json(statistics(), console)
    finally:
        _write_json(statistics(), console)


def _write_json(statistics: RunStatistics, console: Console) -> None:
    console.file.write(encode(asdict(statistics)).decode() + "\n")
    console.file.flush()
