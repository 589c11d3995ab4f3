"""What a person watches: a live line on a terminal, plain lines every ten seconds elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from runner.scheduler import SchedulerStatistics

LIVE_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 10.0


async def watch(statistics: Callable[[], SchedulerStatistics], console: Console) -> None:
    """Show the statistics until cancelled; a terminal shows the last state once more then."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(Text(status_line(statistics())), refresh=True)
                    await asyncio.sleep(LIVE_INTERVAL_S)
            finally:
                live.update(Text(status_line(statistics())), refresh=True)
    while True:
        await asyncio.sleep(PLAIN_INTERVAL_S)
        console.print(status_line(statistics()), highlight=False, soft_wrap=True)


def status_line(s: SchedulerStatistics) -> str:
    """Return how far a run is, in one line."""
    n_over = s.n_finished + s.n_failed
    per_minute = 60 * n_over / s.elapsed_s if s.elapsed_s > 0 else 0.0
    eta = (
        f"{duration((s.n_total - n_over) * 60 / per_minute)} left"
        if per_minute and s.n_total > n_over
        else ""
    )
    parts = [
        f"{n_over}/{s.n_total} trajectories",
        f"{s.n_in_flight} in flight",
        f"{per_minute:.0f}/min",
        f"{duration(s.elapsed_s)} elapsed",
        eta,
        f"{s.n_turns} turns",
        f"{s.n_tokens} tokens" if s.n_tokens else "",
        f"{s.n_failed} FAILED" if s.n_failed else "",
    ]
    return " · ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `48s`, `12m05s`, `3h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
