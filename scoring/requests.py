"""What a sandbox is asked about a file: only what is needed to read it, never what is expected. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench_data.checks import (
    AudioFile,
    CheckModel,
    CommandRuns,
    CompoundCheck,
    FileCheckModel,
    HtmlFile,
    PythonCalls,
)

CALLS_TIMEOUT_S = 20.0
"""For importing a module and making all the calls of one check."""

RUN_TIMEOUT_S = 10.0
"""For each run of a program."""

READ_TIMEOUT_S = 30.0
"""For reading one file."""


def file_checks(check: CheckModel) -> Iterator[FileCheckModel]:
    """Yield the checks of files in a check, in order."""
    if isinstance(check, CompoundCheck):
        for part in check.checks:
            yield from file_checks(part)
    elif isinstance(check, FileCheckModel):
        yield check


def runs_code(check: FileCheckModel) -> bool:
    """Tell whether judging the file means to run it."""
    return isinstance(check, PythonCalls | CommandRuns)


def request_of(check: FileCheckModel) -> dict[str, Any]:
    """Return the request for the facts that a check needs."""
    request: dict[str, Any] = {"kind": check.reader or kind_of(check), "path": check.path}
    request |= check.model_dump(mode="json", include=set(check.asks))
    if check.folder_suffixes:
        request["suffixes"] = list(check.folder_suffixes)
    match check:
        case AudioFile():
            request["segments"] = [
                s.model_dump(include={"start_s", "end_s", "channel"}) for s in check.segments
            ]
        case HtmlFile():
            request["tags"] = sorted({element.tag.lower() for element in check.elements})
            request["around"] = sorted({e.within.lower() for e in check.elements if e.within is not None})
        case PythonCalls():
            request["calls"] = [c.model_dump(include={"function", "args", "kwargs"}) for c in check.calls]
            request["timeout_s"] = CALLS_TIMEOUT_S
        case CommandRuns():
            request["runs"] = [r.model_dump(include={"argv", "stdin"}) for r in check.runs]
            request["timeout_s"] = RUN_TIMEOUT_S
        case _:
            pass
    return request


def kind_of(check: CheckModel) -> str:
    """Return a check's `kind`, which each class has as a field of its own type."""
    return str(getattr(check, "kind"))  # noqa: B009 - not a field of the base class


def facts_key(check: FileCheckModel) -> str:
    """Return the name of the facts that a check needs; checks with the same request share them."""
    return json.dumps(request_of(check), sort_keys=True)


def timeout_s(check: FileCheckModel) -> float:
    """Return how long answering the request may take, in seconds."""
    if isinstance(check, CommandRuns):
        return READ_TIMEOUT_S + RUN_TIMEOUT_S * len(check.runs)
    return READ_TIMEOUT_S + (CALLS_TIMEOUT_S if isinstance(check, PythonCalls) else 0.0)
