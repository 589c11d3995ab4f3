"""How far a run is, in one line of text. Pure."""

from __future__ import annotations

from runner.telemetry.statistics import Phase, RunStatistics

PHASE_WORDS = {
    Phase.QUEUED: "queued",
    Phase.MODEL: "with the model",
    Phase.SANDBOX: "waiting for a sandbox",
    Phase.EXECUTING: "executing",
}


def status_line(s: RunStatistics) -> str:
    """Return how far a run is, in one line."""
    n_over = n_ended(s)
    parts = [
        f"{n_over}/{s.n_total} trajectories",
        f"{s.n_in_flight} in flight" + phases(s),
        f"{60 * rate_per_s(s):.0f}/min",
        f"{duration(s.elapsed_s)} elapsed",
        f"{eta} left" if (eta := remaining(s)) else "",
        f"{s.n_turns} turns",
        f"{n_tokens} tokens" if (n_tokens := s.n_prompt_tokens + s.n_completion_tokens) else "",
        f"cost {s.cost:.4g}" if s.cost else "",
        f"{s.n_failed} FAILED" if s.n_failed else "",
        f"PAUSED: {s.paused}" if s.paused else "",
        f"ending: {s.draining}" if s.draining else "",
    ]
    return printable(" · ".join(part for part in parts if part))


def phases(s: RunStatistics) -> str:
    """Return where the trajectories in flight are, in brackets; empty when none is."""
    words = [f"{n} {PHASE_WORDS[phase]}" for phase, n in s.phases.items() if n]
    return f" ({', '.join(words)})" if words else ""


def n_ended(s: RunStatistics) -> int:
    """Return how many attempts this process is done with."""
    return s.n_finished + s.n_failed


def rate_per_s(s: RunStatistics) -> float:
    """Return attempts per second over the whole time."""
    return n_ended(s) / s.elapsed_s if s.elapsed_s > 0 else 0.0


def remaining(s: RunStatistics) -> str:
    """Return how long the rest will take at the latest rate; empty when that is not known."""
    n_left = s.n_total - n_ended(s)
    per_s = s.finished_per_s or rate_per_s(s)
    return duration(n_left / per_s) if n_left > 0 and per_s > 0 else ""


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `48s`, `12m05s`, `3h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def printable(text: str) -> str:
    """Return a text from a server or a model without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
