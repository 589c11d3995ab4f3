"""A recorded run's file, of either form, is read as our trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from runner.encoding import encode_line
from runner.errors import JournalError
from runner.journal import read_recorded
from runner.journal.recorded import OBSERVATION_START
from runner.protocols import Action, Fenced
from tests.runner.factories import trajectory

CODE = "Look.\n```python\nprint(1)\n```\nThen\n```python\nprint(2)\n```"
OPENING = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


def said(*contents: str) -> list[dict[str, str]]:
    """Return the messages of a task: replies and observations in turn."""
    roles = ("assistant", "user")
    return OPENING + [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def read(tmp_path: Path, *rows: Any) -> list[dict[str, Any]]:
    path = tmp_path / "trajectory.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n\n  \n")
    return list(read_recorded(path))


def test_task(tmp_path: Path) -> None:
    """Replies become turns; the first block is the action, the message after it the observation."""
    messages = said(CODE, OBSERVATION_START + "1\n", "Finished: 1")
    (row,) = read(tmp_path, {"messages": messages, "index": "7", "user": "u", "file_paths": []})
    assert (row["attempt"], row["sample_id"], row["epoch"], row["stop_reason"]) == ("7@1", "7", 1, "answer")
    assert (row["owner"], row["error"], row["artifacts"]) == ("model", None, [])
    assert row["messages"] == messages
    assert row["row"] == {"index": "7", "user": "u", "file_paths": []}
    first, last = row["turns"]
    assert (first["completion"], first["action"]) == (CODE, "print(1)")
    assert first["observation"]["outputs"] == [{"type": "stream", "name": "stdout", "text": "1\n"}]
    assert (last["action"], last["observation"]) == (None, None)


def test_rows_are_as_the_runner_writes_them(tmp_path: Path) -> None:
    """Whoever reads our lines finds the same fields here."""
    (row,) = read(tmp_path, {"index": "7", "messages": said("done")})
    ours = orjson.loads(encode_line(trajectory()))
    assert ours.keys() - row.keys() == {"kernel", "tier", "host", "seed"}
    assert ours["turns"][0].keys() - row["turns"][0].keys() == {"logprobs", "verdict"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("1\n", "ok"),
        ("1\nThere are some errors in the code. All (reworded):\nError: NameError\nno x\n", "error"),
        ("There are some errors in the code.", "ok"),
        ("Kernel died", "died"),
        ("", "ok"),
    ],
)
def test_observation(tmp_path: Path, text: str, status: str) -> None:
    """How a cell ended is concluded from what the model was told of it."""
    (row,) = read(tmp_path, {"index": "7", "messages": said(CODE, OBSERVATION_START + text, "done")})
    observation = row["turns"][0]["observation"]
    assert observation["status"] == status
    assert "".join(output["text"] for output in observation["outputs"]) == text
    assert observation["kernel_alive"] is (status != "died")


@pytest.mark.parametrize(
    ("messages", "stop_reason", "error"),
    [
        (None, "model_error", "holds no messages"),
        ([], "model_error", "holds no messages"),
        (OPENING, "model_error", "after 0 turns"),
        (said(CODE, "1"), "model_error", "after 1 turns"),
        (said(CODE), "model_error", "before the observation"),
        (said("```python\nprint(1)"), "answer", None),
        (said("```python\n \n```"), "answer", None),
        (said(*[CODE, "1"] * 10), "max_turns", None),
        (said(*[CODE, "1"] * 9, "done"), "answer", None),
    ],
)
def test_ending(tmp_path: Path, messages: Any, stop_reason: str, error: str | None) -> None:
    """Why a task ended is concluded from its last message and the number of its turns."""
    (row,) = read(tmp_path, {"index": "52"} if messages is None else {"index": "52", "messages": messages})
    assert row["stop_reason"] == stop_reason
    assert error in row["error"] if error else row["error"] is None


def test_ours(tmp_path: Path) -> None:
    """Our own file needs no run directory around it; a last line without newline counts."""
    path = tmp_path / "trajectories.jsonl"
    lines = [encode_line(trajectory(name, epoch)) for name, epoch in (("a", 1), ("a", 2))]
    path.write_bytes(b"".join(lines).rstrip())
    assert [row["attempt"] for row in read_recorded(path)] == ["a@1", "a@2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"nonsense", ":2: not JSON"),
        (b'{"index": "1", "messages": [{"role"', ":2: not JSON"),
        (b"[]", ":2: neither a trajectory of ours"),
        (b'{"sample_id": "a"}', ":2: neither"),
        (b'{"index": "1", "messages": 7}', ":2: messages is a int"),
        (b'{"index": "1", "messages": ["hi"]}', ":2: message 1 has no role"),
        (b'{"index": "1", "messages": [{"content": "hi"}]}', ":2: message 1 has no role"),
        (b'{"index": "1", "messages": [{"role": "user", "content": [1]}]}', ":2: message 1 has no role or"),
    ],
)
def test_corrupt_line(tmp_path: Path, line: bytes, message: str) -> None:
    """A line that says nothing is refused with its place; those before it were read."""
    path = tmp_path / "trajectory.jsonl"
    path.write_bytes(b'{"index": "0"}\n' + line + b"\n")
    rows = read_recorded(path)
    assert next(rows)["attempt"] == "0@1"
    with pytest.raises(JournalError, match=f"trajectory.jsonl{message}"):
        next(rows)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named, with what to do."""
    with pytest.raises(JournalError, match="absent: No such file or directory; give the file"):
        list(read_recorded(tmp_path / "absent"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("run", "n_answers"), [("PyLlama3", 73), ("PyLlama3_only_codefb", 105), ("gpt4turbo", 138)]
)
def test_recorded_runs_of_the_authors(kernelfleet_data: Path, run: str, n_answers: int) -> None:
    """Messages are kept as they are, and what counts as executed is what the protocol would execute."""
    path = kernelfleet_data / "pybench/golden" / run / "trajectory.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    rows = list(read_recorded(path))
    assert [row["messages"] for row in rows] == [line.get("messages", []) for line in lines]
    assert sum(row["stop_reason"] == "answer" for row in rows) == n_answers
    protocol = Fenced(None)
    for turn in (turn for row in rows for turn in row["turns"]):
        expected = [
            action.code
            for action in protocol.parse(turn["completion"], "stop").actions
            if isinstance(action, Action)
        ]
        assert [turn["action"]] == (expected or [None])
        assert (turn["observation"] is None) is (turn["action"] is None)
