"""A recorded run, ours or PyBench's, is read line by line and replayed message by message."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from runner.errors import ConfigError, ReplayEnded
from runner.models import ModelRequest, ReplayClient
from runner.models.conversation import Conversation
from runner.records import Turn
from tests.runner.factories import sample, trajectory


def request(sample_id: str, n_turns_done: int, epoch: int = 1) -> ModelRequest:
    return ModelRequest(sample(sample_id), epoch, n_turns_done, conversation=Conversation())


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "trajectories.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


async def test_pybench_rows(tmp_path: Path) -> None:
    """Assistant messages come one by one; a bare index has none."""
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "o"},
        {"role": "assistant", "content": "a2"},
    ]
    client = ReplayClient(write(tmp_path, {"index": "2", "messages": messages}, {"index": "52"}))

    assert (await client.complete(request("2", 0))).text == "a1"
    assert (await client.complete(request("2", 1))).text == "a2"
    with pytest.raises(ReplayEnded, match="2 messages for 2@1"):
        await client.complete(request("2", 2))
    with pytest.raises(ReplayEnded, match="52@1"):
        await client.complete(request("52", 0))
    with pytest.raises(ReplayEnded, match="3@1"):
        await client.complete(request("3", 0))


async def test_our_rows(tmp_path: Path) -> None:
    """The raw completions are replayed, per epoch, else the first epoch's; a folder will do."""
    turns = [Turn(completion="raw", finish_reason="stop", reasoning="why")]
    write(tmp_path, trajectory("a", turns=turns), trajectory("a", 2, turns=[Turn(completion="two")]))
    client = ReplayClient(tmp_path)

    reply = await client.complete(request("a", 0))
    assert (reply.text, reply.finish_reason, reply.reasoning) == ("raw", "stop", "why")
    assert (await client.complete(request("a", 0, epoch=2))).text == "two"
    assert (await client.complete(request("a", 0, epoch=3))).text == "raw"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"index": "1"}\nnonsense\n', r"trajectories.jsonl:2: not JSON"),
        (b'{"question": 1}\n', r"trajectories.jsonl:1: neither a trajectory of ours"),
        (b"[]\n", r"trajectories.jsonl:1: neither"),
        (b"\n", "holds no trajectory"),
    ],
)
def test_foreign_file(tmp_path: Path, content: bytes, message: str) -> None:
    """What is no recorded run is refused with its place."""
    path = tmp_path / "trajectories.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        ReplayClient(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigError, match="No such file"):
        ReplayClient(tmp_path / "absent.jsonl")


def test_digest_tells_two_recordings_apart(tmp_path: Path) -> None:
    """A resume can see that the recording has changed."""
    first = ReplayClient(write(tmp_path, {"index": "2"})).digest
    assert first != ReplayClient(write(tmp_path, {"index": "3"})).digest


async def test_reply_that_breaks_off(tmp_path: Path) -> None:
    """A reply whose observation was not recorded is replayed all the same."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "```python\n1\n```"}]
    client = ReplayClient(write(tmp_path, {"index": "2", "messages": messages}))
    assert (await client.complete(request("2", 0))).text == "```python\n1\n```"


async def test_first_of_two_lines_counts(tmp_path: Path) -> None:
    """A task that stands twice in a file is replayed as it stands first."""
    rows = [{"index": "2", "messages": [{"role": "assistant", "content": text}]} for text in "ab"]
    client = ReplayClient(write(tmp_path, *rows))
    assert (await client.complete(request("2", 0))).text == "a"
    assert client.missing(["2", "3"]) == ["3"]
