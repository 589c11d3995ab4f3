"""The live view of a run: what a terminal shows. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.progress.line import PHASE_WORDS, duration, n_ended, printable, rate_per_s, remaining
from runner.telemetry.statistics import EndpointStatistics, FinishedAttempt, RunStatistics

BAR_WIDTH = 30
N_RECENT = 6
NARROW = 70


def live_view(s: RunStatistics, width: int) -> RenderableType:
    """Return all that is worth seeing of a run, for a terminal so many columns wide."""
    rows: list[RenderableType] = [_head(s, width)]
    rows += [_warning(text) for text in _warnings(s)]
    rows.append(_facts(s))
    if s.endpoints:
        rows.append(_endpoints(s.endpoints, width))
    if s.recent:
        rows.append(_recent(s.recent[-N_RECENT:]))
    return Group(*rows)


def _head(s: RunStatistics, width: int) -> RenderableType:
    n_over = n_ended(s)
    now, overall = 60 * s.finished_per_s, 60 * rate_per_s(s)
    words = f"{n_over}/{s.n_total} done · {now:.0f}/min now, {overall:.0f}/min overall · "
    words += f"{duration(s.elapsed_s)} elapsed"
    if eta := remaining(s):
        words += f" · {eta} left"
    if s.n_done_before:
        words += f" · {s.n_done_before} done before"
    if width < NARROW:
        return Text(words)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(1, s.n_total), completed=n_over, width=BAR_WIDTH), Text(words))
    return grid


def _warnings(s: RunStatistics) -> list[str]:
    return [
        *([f"PAUSED: {s.paused}"] if s.paused else []),
        *([f"ENDING: {s.draining}"] if s.draining else []),
    ]


def _warning(text: str) -> Text:
    return Text(printable(text), style="bold red")


def _facts(s: RunStatistics) -> Table:
    grid = Table.grid(padding=(0, 2))
    phases = ", ".join(f"{n} {PHASE_WORDS[phase]}" for phase, n in s.phases.items() if n)
    limit = f"{s.n_in_flight} of {min(s.concurrency, s.max_trajectories)}"
    held = f" (held below {s.concurrency})" if s.max_trajectories < s.concurrency else ""
    _row(grid, "in flight", f"{limit}{held}{': ' + phases if phases else ''}")
    if s.sandboxes is not None:
        boxes = s.sandboxes
        waiting = f", {boxes.n_waiting} waited for" if boxes.n_waiting else ""
        leased = f"{boxes.n_leased} of {boxes.max_leased} leased"
        _row(grid, "sandboxes", f"{leased}, {boxes.n_idle} warm{waiting}")
    cost = f", cost {s.cost:.4g}" if s.cost is not None else ""
    tokens = f"{s.n_prompt_tokens} prompt, {s.n_completion_tokens} completion, {s.tokens_per_s:.0f}/s{cost}"
    _row(grid, "turns", f"{s.n_turns} · tokens {tokens}")
    if s.stop_reasons:
        _row(grid, "ended by", ", ".join(f"{reason} {n}" for reason, n in s.stop_reasons.items()))
    if s.failures_by_owner or s.n_failed or s.n_cancelled:
        owners = ", ".join(f"{owner} {n}" for owner, n in s.failures_by_owner.items())
        _row(grid, "failures", f"{s.n_failed} attempts, {s.n_cancelled} cancelled; tries: {owners or 'none'}")
    if s.n_resumed or s.n_restarted:
        _row(grid, "resumed", f"{s.n_resumed} from their last turn, {s.n_restarted} from the beginning")
    lag = f"{1000 * s.loop_lag_p50_s:.1f} ms, p99 {1000 * s.loop_lag_p99_s:.1f} ms"
    _row(grid, "loop lag", lag)
    if s.last_failure:
        _row(grid, "last failure", s.last_failure)
    return grid


def _row(grid: Table, name: str, words: str) -> None:
    grid.add_row(Text(name, style="dim"), Text(printable(words), overflow="ellipsis", no_wrap=False))


def _endpoints(endpoints: tuple[EndpointStatistics, ...], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    names = ["endpoint", "state", "calls", "waiting", "trajectories", "latency", "failed"]
    for name in names if width >= NARROW else names[:4]:
        table.add_column(name, justify="left" if name in ("endpoint", "state") else "right")
    for e in endpoints:
        cells = [
            printable(e.name),
            e.state,
            f"{e.n_calls_in_flight}/{e.max_calls}",
            str(e.n_calls_waiting),
            f"{e.n_trajectories}/{e.max_trajectories}",
            "-" if e.latency_s is None else f"{e.latency_s:.2f} s",
            f"{e.n_failed_calls}/{e.n_calls}",
        ]
        style = "" if e.state == "ready" else "bold red"
        table.add_row(*(Text(cell, style=style) for cell in cells[: len(table.columns)]))
    return table


def _recent(recent: tuple[FinishedAttempt, ...]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for attempt in recent:
        grid.add_row(
            Text(printable(attempt.attempt)),
            Text(attempt.stop_reason),
            Text(f"{attempt.n_turns} turns", justify="right"),
            Text(duration(attempt.seconds), justify="right"),
        )
    return grid
