"""Judges the facts about one output file. Pure.

Each judge gets facts that can be anything, matches their shape before it looks at a value, and returns
what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench_data.checks import (
    AudioFile,
    CommandRuns,
    HtmlElement,
    HtmlFile,
    ImageFile,
    JsonFile,
    PythonCall,
    PythonCalls,
    SqliteQuery,
    TableFile,
    TextFile,
)
from scoring.compare import (
    difference,
    is_close,
    is_number,
    lines_difference,
    rows_difference,
    show,
    unordered_difference,
)

Facts = Mapping[str, Any]

MALFORMED = "the facts about it are malformed"

SILENCE_DBFS = -90.0
"""All levels up to here count as the same."""

CASELESS_ATTRIBUTES = frozenset({"method", "type"})


def _table(check: TableFile, facts: Facts) -> str | None:
    match facts:
        case {"columns": list(columns), "rows": list(rows)}:
            pass
        case _:
            return MALFORMED
    names = [name.strip() if isinstance(name, str) else name for name in columns]
    if names != check.columns:
        return f"columns {show(columns)}, expected {show(check.columns)}"
    if check.ordered:
        return rows_difference(check.rows, rows, check.columns, check.abs_tol)
    return unordered_difference(check.rows, rows, check.abs_tol)


def _json(check: JsonFile, facts: Facts) -> str | None:
    return difference(check.value, facts["value"], check.abs_tol) if "value" in facts else MALFORMED


def _text(check: TextFile, facts: Facts) -> str | None:
    text = facts.get("text")
    return lines_difference(check.lines, text) if isinstance(text, str) else MALFORMED


def _image(check: ImageFile, facts: Facts) -> str | None:
    for name in ("width", "height", "format", "n_frames", "n_repeats", "frame_ms"):
        expected = getattr(check, name)
        if expected is not None and facts.get(name) != expected:
            return f"{name} {show(facts.get(name))}, expected {show(expected)}"
    n_colours = facts.get("n_colours")
    if not isinstance(n_colours, int) or n_colours < check.min_colours:
        return f"{show(n_colours)} distinct colours, expected at least {check.min_colours}"
    return _grid(check, facts.get("grid_rgba")) if check.grid_rgba is not None else None


def _grid(check: ImageFile, grid: Any) -> str | None:
    expected = check.grid_rgba or []
    if grid is None:
        return f"too small for a grid of {check.grid_columns} x {check.grid_rows} fields"
    if not isinstance(grid, list) or len(grid) != len(expected):
        return MALFORMED
    for index, (wanted, found) in enumerate(zip(expected, grid, strict=True)):
        if not isinstance(found, list) or len(found) != len(wanted):
            return MALFORMED
        if not all(is_close(w, f, check.tol) for w, f in zip(wanted, found, strict=True)):
            row, column = divmod(index, check.grid_columns)
            where = f"field in column {column + 1}, row {row + 1} of {check.grid_columns} x {check.grid_rows}"
            return f"{where}: mean RGBA {show(found)}, expected {show(list(wanted))} within {check.tol:g}"
    return None


def _audio(check: AudioFile, facts: Facts) -> str | None:
    for name in ("sample_rate_hz", "n_channels", "sample_width_bytes"):
        expected = getattr(check, name)
        if expected is not None and facts.get(name) != expected:
            return f"{name} {show(facts.get(name))}, expected {expected}"
    duration_s = facts.get("duration_s")
    if check.duration_s is not None and not is_close(check.duration_s, duration_s, check.duration_tol_s):
        return f"duration {show(duration_s)} s, expected {check.duration_s:g} within {check.duration_tol_s:g}"
    segments = facts.get("segments")
    if not isinstance(segments, list) or len(segments) != len(check.segments):
        return MALFORMED
    found = (_segment(check, index, segment) for index, segment in enumerate(segments))
    return next((problem for problem in found if problem), None)


def _segment(check: AudioFile, index: int, found: Any) -> str | None:
    wanted = check.segments[index]
    where = f"{wanted.start_s:g} to {wanted.end_s:g} s, channel {wanted.channel}"
    if not isinstance(found, Mapping):
        return MALFORMED
    if "problem" in found:
        return f"{where}: {show(found['problem'])}"
    for name, tol in (("rms_dbfs", check.rms_tol_db), ("dominant_hz", check.hz_tol)):
        expected = getattr(wanted, name)
        if expected is None or is_close(expected, found.get(name), tol):
            continue
        if name == "rms_dbfs" and expected <= SILENCE_DBFS and _is_silent(found.get(name)):
            continue
        return f"{where}: {name} {show(found.get(name))}, expected {expected:g} within {tol:g}"
    return None


def _is_silent(level: Any) -> bool:
    return is_number(level) and bool(level <= SILENCE_DBFS)


def _sqlite(check: SqliteQuery, facts: Facts) -> str | None:
    rows = facts.get("rows")
    if not isinstance(rows, list):
        return MALFORMED
    width = max(map(len, check.rows), default=0)
    return rows_difference(check.rows, rows, [str(n + 1) for n in range(width)], check.abs_tol)


def _calls(check: PythonCalls, facts: Facts) -> str | None:
    calls = facts.get("calls")
    if not isinstance(calls, list) or len(calls) != len(check.calls):
        return MALFORMED
    for call, found in zip(check.calls, calls, strict=True):
        problem = _call(call, found, check.abs_tol)
        if problem:
            arguments = [show(a) for a in call.args] + [f"{k}={show(v)}" for k, v in call.kwargs.items()]
            return f"{call.function}({', '.join(arguments)}): {problem}"
    return None


def _call(call: PythonCall, found: Any, abs_tol: float) -> str | None:
    wanted = f"expected {show(call.returns)}" if call.raises is None else f"expected {call.raises}"
    match found:
        case {"problem": problem}:
            return f"{problem if isinstance(problem, str) else MALFORMED}, {wanted}"
        case {"raises": list(names)}:
            if call.raises is not None and call.raises in names:
                return None
            message = found.get("message")
            return f"raised {message if isinstance(message, str) else show(names[:1])}, {wanted}"
        case {"returns": value}:
            if call.raises is not None:
                return f"returned {show(value)}, {wanted}"
            return difference(call.returns, value, abs_tol)
    return MALFORMED


def _runs(check: CommandRuns, facts: Facts) -> str | None:
    runs = facts.get("runs")
    if not isinstance(runs, list) or len(runs) != len(check.runs):
        return MALFORMED
    for run, found in zip(check.runs, runs, strict=True):
        problem = _run(run.stdout_lines, run.exit_code, found)
        if problem:
            given = f" with input {show(run.stdin)}" if run.stdin else ""
            return f"run with arguments {show(run.argv)}{given}: {problem}"
    return None


def _run(stdout_lines: list[str], exit_code: int, found: Any) -> str | None:
    match found:
        case {"problem": problem}:
            return problem if isinstance(problem, str) else MALFORMED
        case {"exit_code": int(code), "stdout": str(stdout)}:
            if code != exit_code:
                end = found.get("stderr_end")
                says = f" ({end})" if isinstance(end, str) and end else ""
                return f"exit code {show(code)}{says}, expected {exit_code}"
            found_lines = lines_difference(stdout_lines, stdout)
            return f"output {found_lines}" if found_lines else None
    return MALFORMED


def _html(check: HtmlFile, facts: Facts) -> str | None:
    elements = facts.get("elements")
    if not isinstance(elements, list):
        return MALFORMED
    position = 0
    for wanted in check.elements:
        found = [index for index, element in enumerate(elements) if _fits(wanted, element)]
        text = f" with text {show(wanted.text)}" if wanted.text is not None else ""
        within = f" within <{wanted.within}>" if wanted.within is not None else ""
        name = f"<{wanted.tag}> with {show(wanted.attributes)}{text}{within}"
        if not ((len(found) == wanted.count) if wanted.count is not None else found):
            return f"{len(found)} {name}, expected {'at least one' if wanted.count is None else wanted.count}"
        if check.ordered and found:
            if found[-1] < position:
                return f"{name} comes too early"
            position = next(index for index in found if index >= position)
    return None


def _fits(wanted: HtmlElement, element: Any) -> bool:
    match element:
        case {"tag": str(tag), "attributes": dict(attributes), "text": str(text), "within": list(within)}:
            return (
                tag == wanted.tag.lower()
                and (wanted.within is None or wanted.within.lower() in within)
                and all(_has(attributes, name.lower(), value) for name, value in wanted.attributes.items())
                and (wanted.text is None or " ".join(text.split()) == " ".join(wanted.text.split()))
            )
    return False


def _has(attributes: Mapping[Any, Any], name: str, value: str) -> bool:
    """Tell whether an element has an attribute, as `HtmlElement` says."""
    found = attributes.get(name)
    if name == "class" and isinstance(found, str):
        return set(value.split()) <= set(found.split())
    if name in CASELESS_ATTRIBUTES and isinstance(found, str):
        return found.lower() == value.lower()
    return bool(found == value)


FILE_JUDGES: Mapping[str, Callable[[Any, Facts], str | None]] = {
    "table_file": _table,
    "json_file": _json,
    "text_file": _text,
    "image_file": _image,
    "audio_file": _audio,
    "sqlite_query": _sqlite,
    "python_calls": _calls,
    "command_runs": _runs,
    "html_file": _html,
}
"""By the kind of the check."""
