"""A run, or one trajectory of it, as text for a person. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.progress.line import duration

Row = Mapping[str, Any]

RULE = "-" * 72


def visible(text: Any) -> str:
    r"""Return a text with what a terminal would obey made visible; lines and tabs stay.

    A lone surrogate, which no terminal takes, becomes `\udXXX`.
    """
    plain = str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in plain)


def run_lines(
    config: Row,
    trajectories: Iterable[Row],
    failures: Iterable[Row],
    unfinished: Mapping[str, int],
    events: Iterable[Row],
) -> Iterator[str]:
    """Yield a run: what it is, how far it is, what failed."""
    run = config.get("config", {})
    yield f"benchmark {run.get('benchmark')}, model {run.get('model', {}).get('client')}"
    yield f"run {config['run_id']}, config {config.get('config_hash')}"
    totals = RunTotals(trajectories)
    yield from totals.lines(config.get("n_attempts"))
    if open_failures := totals.without_a_line(failures):
        yield f"{len(open_failures)} attempts failed by our fault or were cancelled:"
        for row in open_failures[:20]:
            error = _first_line(row.get("error"))
            yield f"  {row['attempt']}: {row['stop_reason']} ({row.get('owner')}) {error}"
    if unfinished:
        yield f"{len(unfinished)} unfinished, with recorded turns:"
        yield from (f"  {name}: {n} turn{'s' * (n > 1)}" for name, n in list(unfinished.items())[:20])
    yield from _event_lines(events)


class RunTotals:
    """What the finished attempts of a run come to, whichever processes ran them."""

    def __init__(self, trajectories: Iterable[Row]) -> None:
        self.done: set[str] = set()
        self.stop_reasons: Counter[str] = Counter()
        self.n_turns = 0
        self.n_tokens = 0
        self.cost = 0.0
        self.n_artifact_bytes = 0
        for row in trajectories:
            self._add(row)

    def without_a_line(self, failures: Iterable[Row]) -> list[Row]:
        """Return the latest failure of each attempt that has not been finished."""
        latest = {row["attempt"]: row for row in failures}
        return [row for name, row in latest.items() if name not in self.done]

    def _add(self, row: Row) -> None:
        self.done.add(row["attempt"])
        self.stop_reasons[row["stop_reason"]] += 1
        self.n_turns += len(row.get("turns") or ())
        usage = row.get("usage") or {}
        self.n_tokens += usage.get("total_tokens") or 0
        self.cost += usage.get("cost") or 0.0
        self.n_artifact_bytes += sum(a.get("bytes") or 0 for a in row.get("artifacts") or ())

    def lines(self, n_attempts: Any) -> Iterator[str]:
        """Yield them for a person."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.stop_reasons.most_common())
        yield f"{len(self.done)} of {n_attempts or '?'} attempts finished" + (
            f": {reasons}" if reasons else ""
        )
        cost = f", cost {self.cost:.4g}" if self.cost else ""
        yield f"{self.n_turns} turns, {self.n_tokens} tokens{cost}"
        yield f"{self.n_artifact_bytes} bytes of artifacts"


def recorded_lines(name: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield a recorded run, given as one file: how its attempts ended, and how their actions did."""
    ended: dict[str, list[str]] = {}
    statuses: Counter[str] = Counter()
    n_messages = n_turns = 0
    for row in rows:
        ended.setdefault(str(row["stop_reason"]), []).append(row["attempt"])
        turns = row.get("turns") or ()
        n_messages += len(row.get("messages") or ())
        n_turns += len(turns)
        statuses.update(str(turn["observation"].get("status")) for turn in turns if turn.get("observation"))
    counts = Counter({reason: len(names) for reason, names in ended.items()})
    yield f"recorded run {name}"
    yield f"{counts.total()} attempts: {_counts(counts)}"
    yield f"{n_messages} messages, {n_turns} turns; {statuses.total()} observations: {_counts(statuses)}"
    for reason, names in ended.items():
        if reason != "answer":
            yield f"  {reason}: {', '.join(names[:20])}" + (", ..." if names[20:] else "")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counter.most_common()) or "none"


def _event_lines(events: Iterable[Row]) -> Iterator[str]:
    counts: Counter[str] = Counter()
    last: dict[str, Row] = {}
    for event in events:
        counts[event["event"]] += 1
        last[event["event"]] = event
    if counts:
        yield "events: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    if finished := last.get("run_finished"):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(finished["at"]))
        yield f"last ended at {at}, after {duration(finished.get('wall_s') or 0.0)}"


def trajectory_lines(row: Row) -> Iterator[str]:
    """Yield one trajectory, turn by turn."""
    owner = f" (owner {row['owner']})" if row.get("owner") else ""
    model = f", model {row['model']}" if row.get("model") else ""
    yield f"{row['attempt']}: {row['stop_reason']}{owner}{model}"
    if row.get("error"):
        yield f"error: {row['error']}"
    for number, failed in enumerate(row.get("tries") or (), start=1):
        why = f"{failed.get('stop_reason')} ({failed.get('owner')}) {failed.get('error')}"
        yield f"try {number} failed: {why}"
    turns = row.get("turns") or ()
    for message in row.get("messages") or ():
        if message.get("role") == "assistant":
            break  # from here on the turns say more
        yield from _block(str(message.get("role")), message.get("content"))
    for number, turn in enumerate(turns, start=1):
        yield from _turn_lines(number, turn)
    for artifact in row.get("artifacts") or ():
        problem = f" NOT KEPT: {artifact['problem']}" if artifact.get("problem") else ""
        yield f"artifact {artifact.get('path')} ({artifact.get('bytes')} bytes){problem}"
    if usage := row.get("usage"):
        yield f"tokens: {usage.get('prompt_tokens')} prompt, {usage.get('completion_tokens')} completion"
    if timings := row.get("timings"):
        seconds = (f"{name.removesuffix('_s')} {value:.2f}" for name, value in timings.items())
        yield "seconds: " + ", ".join(seconds)


def _turn_lines(number: int, turn: Row) -> Iterator[str]:
    seconds = _seconds((turn.get("timings") or {}).get("model_s"))
    yield from _block(f"turn {number} ({turn.get('finish_reason')}{seconds})", turn.get("completion"))
    if turn.get("reasoning"):
        yield from _block("reasoning", turn["reasoning"])
    actions = [{"action": turn.get("action"), "observation": turn.get("observation")}]
    for one in [*actions, *(turn.get("further") or ())]:
        if one.get("action") is not None:
            yield from _block("action", one["action"])
            yield from _observation_lines(one.get("observation"))


def _observation_lines(observation: Row | None) -> Iterator[str]:
    if observation is None:
        yield "(no observation)"
        return
    head = f"observation: {observation.get('status')}{_seconds(observation.get('duration_s'))}"
    yield from _block(head, "\n".join(_output_text(output) for output in observation.get("outputs") or ()))


def _output_text(output: Row) -> str:
    match output.get("type"):
        case "stream":
            return str(output.get("text")).rstrip("\n")
        case "error":
            return f"{output.get('ename')}: {output.get('evalue')}"
    data = output.get("data") or {}
    shown = [str(data["text/plain"])] if "text/plain" in data else []
    shown += [f"[{mime}: {value['path']}]" for mime, value in data.items() if isinstance(value, Mapping)]
    return "\n".join(shown)


def _seconds(value: float | None) -> str:
    """Return a comma and a duration; nothing where it was not recorded."""
    return "" if value is None else f", {value:.2f} s"


def _block(head: str, text: Any) -> Iterator[str]:
    yield f"{RULE}\n{head}"
    if text:
        yield str(text)


def _first_line(error: Any) -> str:
    return str(error or "").strip().partition("\n")[0]
