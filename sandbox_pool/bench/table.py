"""The table: which figures there are, what is to reach, and what was missed. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sandbox_pool.bench.record import Record

Unit = Literal["ms", "s", "MB", "1/s"]
_FACTORS: dict[Unit, float] = {"ms": 1e3, "s": 1.0, "MB": 1e-6, "1/s": 1.0}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table, and what is to reach; limits in the figure's unit. Issue 3 set the goals."""

    title: str
    measure: str
    unit: Unit
    percent: float = 50
    goal: float | None = None
    min_times: float | None = None
    """How many times better than the first peer it is to be."""

    is_rate: bool = False
    """Whether more is better."""

    peer_measure: str | None = None
    """What peers are compared by where it is not the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """A figure with its values, None where there is none."""

    figure: Figure
    ours: float | None
    peers: tuple[float | None, ...]
    times: tuple[float | None, ...]
    """How many times better it is than each peer."""

    n: int

    @property
    def missed(self) -> list[str]:
        """What was not reached, and by how much; empty when all was, or nothing is to reach."""
        found = []
        goal, min_times, times = self.figure.goal, self.figure.min_times, self._baseline_times
        if goal is not None and self.ours is not None:
            is_reached = self.ours >= goal if self.figure.is_rate else self.ours <= goal
            if not is_reached:
                found.append(f"{_number(self.ours / goal)} times {goal:g}")
        if min_times is not None and times is not None and times < min_times:
            found.append(f"{_number(times)} x, not {min_times:g} x")
        return found

    @property
    def is_judged(self) -> bool:
        """Whether something was to reach and could be measured."""
        return (self.figure.goal is not None and self.ours is not None) or (
            self.figure.min_times is not None and self._baseline_times is not None
        )

    @property
    def _baseline_times(self) -> float | None:
        return self.times[0] if self.times else None


def figures(levels: Sequence[int], peer_levels: Sequence[int] = ()) -> list[Figure]:
    """Return all figures, given how many sandboxes and how many kernels of peers were held at once."""
    latency = [
        Figure("acquire, warm, p50", "warm_s", "ms", goal=1),
        Figure("acquire, warm, p99", "warm_s", "ms", 99, goal=5),
        Figure("  with a seed, p50", "warm_seeded_s", "ms"),
        Figure("  with a seed, p99", "warm_seeded_s", "ms", 99),
        Figure("acquire, miss, p50", "start_s", "ms", goal=22, min_times=50),
        Figure("acquire, miss, p99", "start_s", "ms", 99, goal=60),
        Figure("first cell after it, p50", "first_cell_s", "ms"),
        Figure("trivial cell, p50", "cell_s", "ms", goal=1.2, min_times=4),
        Figure("trivial cell, p99", "cell_s", "ms", 99, goal=3),
        Figure("client CPU per cell", "client_cpu_s", "ms", goal=0.3),
        Figure("kernel CPU per cell", "kernel_cpu_s", "ms"),
        Figure("1 ms cell, 31 others idle, p50", "alone_s", "ms"),
        Figure("1 ms cell, 31 others sleep, p50", "in_line_s", "ms"),
        Figure("1 ms cell, 31 others sleep, p99", "in_line_s", "ms", 99),
    ]
    starts = [
        Figure("starts per second", "starts_hz", "1/s", goal=40, is_rate=True),
        Figure("CPU per start", "start_cpu_s", "ms", goal=25),
        Figure("teardown, p50", "teardown_s", "ms"),
        Figure("teardown, p99", "teardown_s", "ms", 99, goal=50),
        Figure("start, cell and end, per second", "cycles_hz", "1/s", is_rate=True),
        Figure("open: zygote, imports, first one", "open_s", "s"),
    ]
    crowds = [_crowd(n, n if n in peer_levels else max(peer_levels, default=n)) for n in levels]
    return [*latency, *starts, *itertools.chain.from_iterable(crowds)]


def _crowd(n: int, n_peer: int) -> list[Figure]:
    beside = f" (peers: {n_peer})" if n_peer != n else ""
    return [
        Figure(f"memory of each of {n} idle{beside}", f"pss_bytes_{n}", "MB", goal=7, min_times=15,
               peer_measure=f"pss_bytes_{n_peer}"),
        Figure("  with its part of the zygote", f"pss_all_bytes_{n}", "MB",
               peer_measure=f"pss_all_bytes_{n_peer}"),
        Figure("  free memory that it takes", f"available_bytes_{n}", "MB",
               peer_measure=f"available_bytes_{n_peer}"),
        Figure(f"{n} at once, all ready in", f"{n}_at_once_s", "s", goal=8 if n == 256 else None),
        Figure(f"{n} at once, all gone in", f"{n}_gone_at_once_s", "s"),
    ]  # fmt: skip


def _levels(record: Record, contender: str) -> list[int]:
    prefix = "pss_bytes_"
    found = (
        name.removeprefix(prefix) for name in record.values.get(contender, {}) if name.startswith(prefix)
    )
    return sorted(map(int, found))


def lines(record: Record, ours: str, peers: Sequence[str]) -> list[Line]:
    """Return the figures that something was measured for, in order."""
    peer_levels = _levels(record, peers[0]) if peers else ()
    found = [_line(record, figure, ours, peers) for figure in figures(_levels(record, ours), peer_levels)]
    return [line for line in found if line.ours is not None or any(v is not None for v in line.peers)]


def _line(record: Record, figure: Figure, ours: str, peers: Sequence[str]) -> Line:
    measure, percent = figure.measure, figure.percent
    theirs = figure.peer_measure or measure

    def value(contender: str, measure: str) -> float | None:
        raw = record.value(contender, measure, percent)
        return None if raw is None else raw * _FACTORS[figure.unit]

    times = [
        record.ratio((ours, measure), (peer, theirs), percent)
        if figure.is_rate
        else record.ratio((peer, theirs), (ours, measure), percent)
        for peer in peers
    ]
    values = [value(peer, theirs) for peer in peers]
    return Line(figure, value(ours, measure), tuple(values), tuple(times), record.n(ours, measure))


def render(lines: Sequence[Line], ours: str, peers: Sequence[str]) -> str:
    """Return the table, for a terminal."""
    rows = [["", "unit", ours, *peers, "goal", "", "n"], *(_cells(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_text = [True, True, *[False] * (1 + len(peers)), True, True, False]
    texts = [
        " | ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        )
        for row in rows
    ]
    rule = "-+-".join("-" * width for width in widths)
    return "\n".join([texts[0], rule, *texts[1:]])


def counts(record: Record, ours: str, peers: Sequence[str]) -> list[str]:
    """Return what is said in words: starts that failed, processes that were left."""
    found = []
    for name in (ours, *peers):
        failures, n_left = record.failures.get(name, []), record.n_left.get(name, 0)
        text = f"{name}: {len(failures)} of {record.n_starts.get(name, 0)} starts failed, "
        text += f"{n_left} processes left"
        if name == ours:
            text += " (goal: none, none): " + ("MISSED" if failures or n_left else "ok")
        found.append(text)
        found += [f"  {n} x {problem}" for problem, n in Counter(failures).most_common(5)]
    return found


def started_only(record: Record, ours: str, others: Sequence[str]) -> list[str]:
    """Return a line for each of those that were only started, to compare with."""
    found = []
    for name in others:
        median_s, times = (
            record.value(name, "start_s", 50),
            record.ratio((name, "start_s"), (ours, "start_s"), 50),
        )
        if median_s is not None:
            n = record.n(name, "start_s")
            found.append(f"{name}: started in {_number(1e3 * median_s)} ms p50, n {n}{_in_brackets(times)}")
    return found


def _cells(line: Line) -> list[str]:
    verdict = ("MISSED: " + "; ".join(line.missed)) if line.missed else "ok" if line.is_judged else ""
    return [
        line.figure.title,
        line.figure.unit,
        _number(line.ours),
        *(_number(v) + _in_brackets(t) for v, t in zip(line.peers, line.times, strict=True)),
        _goal(line.figure),
        verdict,
        str(line.n) if line.n else "",
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _in_brackets(times: float | None) -> str:
    return "" if times is None else f" ({_number(times)} x)"


def _goal(figure: Figure) -> str:
    limits = []
    if figure.goal is not None:
        limits.append(f"{'>=' if figure.is_rate else '<='} {figure.goal:g}")
    if figure.min_times is not None:
        limits.append(f"{figure.min_times:g} x")
    return ", ".join(limits)


def as_data(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return the table for JSON, values in the units of the figures."""
    return [
        {
            "title": line.figure.title.strip(),
            "measure": line.figure.measure,
            "percentile": line.figure.percent,
            "unit": line.figure.unit,
            "ours": line.ours,
            "peers": list(line.peers),
            "times": list(line.times),
            "n": line.n,
            "goal": line.figure.goal,
            "min_times": line.figure.min_times,
            "missed": line.missed,
        }
        for line in lines
    ]
