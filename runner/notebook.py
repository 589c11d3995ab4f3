"""A trajectory as a Jupyter notebook (nbformat 4.5): messages as text cells, actions as code cells.

A notebook is read in many programs, and not all of them distrust what a model or its code wrote. So
text is shown as it is in a fenced block, whatever markup it holds, and of an output only plain text
and pictures are kept. Not covered: executing it again needs the input files beside it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from runner.encoding import OPTIONS, encode
from runner.journal import ARTIFACTS

Row = Mapping[str, Any]
Cell = dict[str, Any]

ReadPicture = Callable[[Row], bytes | str]
"""From the record of a picture to its bytes, or to why they are not there."""

PICTURES = ("image/png", "image/jpeg", "image/gif")
"""An SVG is not among them: it may hold scripts."""

MAX_PICTURE_BYTES = 10 * 1024 * 1024
MAX_NOTEBOOK_PICTURE_BYTES = 50 * 1024 * 1024
MAX_LISTED_ARTIFACTS = 100

_OPENS = ("```python", "<execute>")
_CLOSES = ("```", "</execute>", "<|execute_end|>")


def notebook_json(row: Row, read_picture: ReadPicture) -> bytes:
    """Return a trajectory (a row of the journal or of a recorded run) as the content of an .ipynb file."""
    return encode(notebook(row, read_picture), OPTIONS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def notebook(row: Row, read_picture: ReadPicture) -> dict[str, Any]:
    """Return a trajectory as a notebook. Its cells' ids say what they are, the same ones each time."""
    cells = _Cells(read_picture)
    cells.add_text("trajectory", "Trajectory", _head(row))
    opening, told = _parts(row)
    for number, message in enumerate(opening, start=1):
        cells.add_text(f"message-{number}", _role(message), message.get("content"))
    turns = row.get("turns") or ()
    for number, turn in enumerate(turns, start=1):
        is_answer = number == len(turns) and row.get("stop_reason") == "answer"
        cells.add_turn(number, turn, told[number - 1] if number <= len(told) else (), is_answer=is_answer)
    cells.add_text("end", "End", "\n".join(_end(row)))
    facts = ("attempt", "benchmark", "run_id", "model", "protocol", "stop_reason", "owner", "error")
    return {
        "cells": cells.cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "kernelfleet": {name: row.get(name) for name in facts},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


class Pictures:
    """The pictures that the artifacts of a run directory hold, up to a bound for all that are read."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._n_left_bytes = MAX_NOTEBOOK_PICTURE_BYTES

    def read(self, recorded: Row) -> bytes | str:
        """Return a picture, or why it is not there: only what the run itself wrote is. Blocks."""
        if not recorded.get("path"):
            return "not kept"
        max_bytes = min(MAX_PICTURE_BYTES, self._n_left_bytes)
        try:
            path = (self._run_dir / str(recorded["path"])).resolve()
            if not path.is_relative_to((self._run_dir / ARTIFACTS).resolve()) or not path.is_file():
                return "missing"
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except (OSError, ValueError):  # a foreign line's path may be no path at all
            return "not readable"
        if len(data) > max_bytes:
            return "too large for a notebook"
        if hashlib.sha256(data).hexdigest() != recorded.get("sha256"):
            return "changed since the run"
        self._n_left_bytes -= len(data)
        return data


def no_picture(_: Row) -> str:
    """Stand for Pictures where there is no run directory."""
    return "not in this file"


class _Cells:
    """The cells of a notebook that is being made."""

    def __init__(self, read_picture: ReadPicture) -> None:
        self.cells: list[Cell] = []
        self._read_picture = read_picture
        self._n_executed = 0

    def add_text(self, cell_id: str, head: str, text: Any) -> None:
        source = f"### {head}\n\n{fenced(text if isinstance(text, str) else _json(text))}"
        self.cells.append({"cell_type": "markdown", "id": cell_id, "metadata": {}, "source": source})

    def add_turn(self, number: int, turn: Row, told: Sequence[Row], *, is_answer: bool) -> None:
        """Add a reply and what was executed of it, and what the model was told beside the observations."""
        name = f"turn-{number}"
        if turn.get("reasoning"):
            self.add_text(f"{name}-reasoning", f"assistant, turn {number}: reasoning", turn["reasoning"])
        actions = _actions(turn)
        text = str(turn.get("completion") or "")
        before, after = around(text, str(actions[0]["action"])) if actions else (text, "")
        if before or not actions:
            self.add_text(name, f"assistant, turn {number}" + (": answer" if is_answer else ""), before)
        for n_action, one in enumerate(actions, start=1):
            self._add_action(f"{name}-action-{n_action}", number, one)
        if after:
            self.add_text(f"{name}-rest", f"assistant, turn {number}: after the code, not executed", after)
        if len(told) > len(actions):
            for n_told, message in enumerate(told, start=1):
                self.add_text(f"{name}-told-{n_told}", _role(message), message.get("content"))

    def _add_action(self, cell_id: str, n_turn: int, one: Row) -> None:
        observation = one.get("observation")
        facts: dict[str, Any] = {"turn": n_turn}
        if observation is not None:
            self._n_executed += 1
            facts |= {key: observation.get(key) for key in ("status", "duration_s", "truncated")}
        self.cells.append(
            {
                "cell_type": "code",
                "id": cell_id,
                "metadata": {"kernelfleet": facts},
                "execution_count": None if observation is None else self._n_executed,
                "source": str(one["action"]),
                "outputs": [] if observation is None else self._outputs(observation),
            }
        )

    def _outputs(self, observation: Row) -> list[dict[str, Any]]:
        outputs = [self._output(output) for output in observation.get("outputs") or ()]
        if observation.get("status") not in ("ok", "error"):  # what the outputs alone do not show
            gone = "" if observation.get("kernel_alive") else "; the kernel was gone"
            text = f"[ended as {observation.get('status')}{gone}]\n"
            outputs.append({"output_type": "stream", "name": "stderr", "text": text})
        return outputs

    def _output(self, output: Row) -> dict[str, Any]:
        match output.get("type"):
            case "stream":
                name = "stderr" if output.get("name") == "stderr" else "stdout"
                return {"output_type": "stream", "name": name, "text": str(output.get("text"))}
            case "error":
                return {
                    "output_type": "error",
                    "ename": str(output.get("ename")),
                    "evalue": str(output.get("evalue")),
                    "traceback": str(output.get("traceback")).split("\n"),
                }
        shown = {"data": self._data(output.get("data") or {}), "metadata": {}}
        if output.get("type") == "result":
            return {"output_type": "execute_result", "execution_count": self._n_executed, **shown}
        return {"output_type": "display_data", **shown}

    def _data(self, data: Row) -> dict[str, str]:
        """Return plain text and pictures; a note stands for a picture that is not there, or for all."""
        shown: dict[str, str] = {}
        notes: list[str] = []
        for mime, value in data.items():
            if mime == "text/plain":
                notes.insert(0, str(value))
            elif isinstance(value, Mapping):
                picture = self._read_picture(value) if mime in PICTURES else "not shown"
                if isinstance(picture, bytes):
                    shown[mime] = base64.b64encode(picture).decode()
                else:
                    notes.append(f"[{mime}, {value.get('path')}: {picture}]")
        if not shown and not notes:
            notes = [f"[{mime}: not shown]" for mime in data]
        return shown | {"text/plain": "\n".join(notes)} if notes else shown


def fenced(text: str) -> str:
    """Return a Markdown block that shows this text as it is, whatever it holds."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def around(reply: str, code: str) -> tuple[str, str]:
    """Return what a reply says before and after its action; all of it and nothing if it is not found."""
    for mark in _OPENS:
        before, opened, rest = reply.partition(mark)
        rest = rest.lstrip()
        if opened and rest.startswith(code):
            return before.rstrip().removesuffix("<|execute_start|>").strip(), _after(rest[len(code) :])
    return reply, ""


def _after(text: str) -> str:
    for mark in _CLOSES:
        text = text.strip().removeprefix(mark)
    return text.strip()


def _actions(turn: Row) -> list[Row]:
    first = {"action": turn.get("action"), "observation": turn.get("observation")}
    return [one for one in (first, *(turn.get("further") or ())) if one.get("action") is not None]


def _parts(row: Row) -> tuple[list[Row], list[list[Row]]]:
    """Return the messages before the first turn, and for each turn those that follow its reply.

    A sample may bring replies of its own, as examples: the turns' are the last ones.
    """
    messages = list(row.get("messages") or ())
    replies = [number for number, message in enumerate(messages) if message.get("role") == "assistant"]
    n_examples = max(0, len(replies) - len(row.get("turns") or ()))
    bounds = [*replies[n_examples:], len(messages)]
    return messages[: bounds[0]], [messages[here + 1 : there] for here, there in pairwise(bounds)]


def _role(message: Row) -> str:
    """Return a role fit for a heading."""
    return re.sub(r"[^A-Za-z0-9_ -]", "?", str(message.get("role")))[:40]


def _head(row: Row) -> str:
    model = f", model {row['model']}" if row.get("model") else ""
    return f"{row.get('attempt')} of {row.get('benchmark')}{model}"


def _end(row: Row) -> Iterable[str]:
    yield f"{row.get('stop_reason')} (owner {row.get('owner')})"
    if row.get("error"):
        yield str(row["error"])
    artifacts = row.get("artifacts") or ()
    for artifact in artifacts[:MAX_LISTED_ARTIFACTS]:
        yield f"artifact {artifact.get('path')} ({artifact.get('bytes')} bytes)"
    if artifacts[MAX_LISTED_ARTIFACTS:]:
        yield f"and {len(artifacts) - MAX_LISTED_ARTIFACTS} more artifacts"


def _json(value: Any) -> str:
    return "" if value is None else encode(value).decode()
