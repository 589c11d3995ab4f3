"""A trajectory becomes a notebook that Jupyter takes, with real outputs and nothing that acts."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import nbformat
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import notebook as module
from runner.encoding import encode_line
from runner.journal import read_recorded
from runner.notebook import Pictures, around, fenced, no_picture, notebook, notebook_json
from runner.records import FurtherAction, StopReason, Turn
from tests.runner.factories import trajectory

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
PATH = "artifacts/one/1/displayed/turn001-1.png"
PICTURE = {"path": PATH, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}


def row(**changes: Any) -> dict[str, Any]:
    """Return a trajectory as it is read."""
    parsed: dict[str, Any] = orjson.loads(encode_line(trajectory(**changes)))
    return parsed


def observed(*outputs: dict[str, Any], status: str = "ok", kernel_alive: bool = True) -> dict[str, Any]:
    return {
        "status": status,
        "outputs": list(outputs),
        "duration_s": 0.5,
        "truncated": False,
        "kernel_alive": kernel_alive,
    }


def acted(code: str, *outputs: dict[str, Any], **changes: Any) -> Turn:
    return Turn(f"Look.\n```python\n{code}\n```", action=code, observation=observed(*outputs, **changes))


def said(*contents: str) -> list[dict[str, Any]]:
    """Return messages: a task, then replies and observations in turn."""
    roles = ("assistant", "user")
    replies = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return [{"role": "system", "content": "be good"}, {"role": "user", "content": "task"}, *replies]


def read(row: dict[str, Any], read_picture: Any = no_picture) -> Any:
    """Return the notebook as nbformat reads it, which is valid."""
    made = nbformat.reads(notebook_json(row, read_picture).decode(), as_version=nbformat.NO_CONVERT)
    nbformat.validate(made)
    return made


def cell(made: Any, cell_id: str) -> Any:
    (found,) = [cell for cell in made.cells if cell.id == cell_id]
    return found


def test_whole() -> None:
    """Messages, actions with their outputs, the answer; the metadata says what it is of."""
    turns = [acted("print(1)", {"type": "stream", "name": "stdout", "text": "1\n"}), Turn("Answer: 1")]
    messages = said(turns[0].completion, "observed", "Answer: 1")
    made = read(row(turns=turns, messages=messages))

    assert [cell.id for cell in made.cells] == [
        "trajectory", "message-1", "message-2", "turn-1", "turn-1-action-1", "turn-2", "end",
    ]  # fmt: skip
    assert cell(made, "message-1").source == "### system\n\n```text\nbe good\n```"
    assert cell(made, "turn-1").source == "### assistant, turn 1\n\n```text\nLook.\n```"
    assert cell(made, "turn-1-action-1").source == "print(1)"
    assert cell(made, "turn-1-action-1").outputs == [
        {"output_type": "stream", "name": "stdout", "text": "1\n"}
    ]
    assert cell(made, "turn-2").source == "### assistant, turn 2: answer\n\n```text\nAnswer: 1\n```"
    assert (made.nbformat, made.nbformat_minor) == (4, 5)
    assert made.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert made.metadata.kernelfleet == {
        "attempt": "one@1", "benchmark": "test", "run_id": "r", "model": "m", "protocol": "fenced",
        "stop_reason": "answer", "owner": "model", "error": None,
    }  # fmt: skip


def test_outputs(tmp_path: Path) -> None:
    """Each kind of output is Jupyter's own kind; pictures are inside the notebook."""
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(PNG)
    turn = acted(
        "x",
        {"type": "stream", "name": "stderr", "text": "warning\n"},
        {"type": "display", "data": {"text/plain": "<Figure>", "image/png": PICTURE}},
        {"type": "result", "data": {"text/plain": "42", "text/html": "<b>42</b>"}},
        {"type": "error", "ename": "ValueError", "evalue": "no", "traceback": "Traceback\nValueError: no"},
        status="error",
    )
    made = read(row(turns=[acted("0"), turn]), Pictures(tmp_path).read)
    stream, display, result, error = cell(made, "turn-2-action-1").outputs
    assert (stream.name, stream.text) == ("stderr", "warning\n")
    assert base64.b64decode(display.data["image/png"]) == PNG
    assert (display.output_type, display.data["text/plain"]) == ("display_data", "<Figure>")
    assert (result.output_type, result.execution_count, result.data) == (
        "execute_result",
        2,
        {"text/plain": "42"},
    )
    assert (error.ename, error.evalue, error.traceback) == (
        "ValueError",
        "no",
        ["Traceback", "ValueError: no"],
    )
    assert cell(made, "turn-2-action-1").execution_count == 2
    assert cell(made, "turn-2-action-1").metadata.kernelfleet.status == "error"


@pytest.mark.parametrize(
    "mime",
    ["text/html", "application/javascript", "image/svg+xml", "image/x-evil", "application/vnd.evil+json"],
)
def test_nothing_that_acts(mime: str, tmp_path: Path) -> None:
    """What a viewer could carry out is named, not shown, wherever it stands."""
    evil = "<script>alert(1)</script>"
    value: Any = PICTURE if mime.startswith("image/") else evil
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(PNG)
    turn = acted("x", {"type": "display", "data": {mime: value}})
    made = read(row(turns=[turn, Turn(evil)], messages=said("x", "o", evil)), Pictures(tmp_path).read)
    (output,) = cell(made, "turn-1-action-1").outputs
    assert output.data.keys() == {"text/plain"}
    assert mime in output.data["text/plain"]
    assert evil not in output.data["text/plain"]


@given(st.text(alphabet=st.sampled_from("`~<>!\\ \n\rab[]()"), max_size=80))
def test_text_stays_in_its_block(text: str) -> None:
    """No line of a text closes the block that shows it."""
    first, *lines, last = fenced(text).split("\n")
    assert first == last + "text"
    assert "\n".join(lines) == text
    assert last not in text
    assert set(last) == {"`"}
    assert len(last) >= 3


def test_roles_are_not_markup() -> None:
    """A recorded role is a foreign text too."""
    made = read(
        row(messages=[{"role": "<img src=x>\n# user", "content": "hi"}], turns=[], stop_reason="max_turns")
    )
    assert cell(made, "message-1").source.startswith("### ?img src?x??? user\n\n```text\nhi")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("A\n```python\ncode\n```", ("A", "")),
        ("A\n<|execute_start|>\n```python\ncode\n```\n<|execute_end|>\nB", ("A", "B")),
        ("A <execute> code </execute> B", ("A", "B")),
        (
            "code: see\n```python\n  code\n```\nB\n```python\nmore\n```",
            ("code: see", "B\n```python\nmore\n```"),
        ),
        ("elsewhere", ("elsewhere", "")),
        ("```python\nother\n```", ("```python\nother\n```", "")),
    ],
)
def test_around(reply: str, expected: tuple[str, str]) -> None:
    """What stands around the action is told apart from it, in all protocols; else the reply is whole."""
    assert around(reply, "code") == expected


def test_rest_of_a_reply() -> None:
    """What a model wrote behind its action is there, and said not to have been executed."""
    turn = Turn("```python\n1\n```\nOutput: 7", action="1", observation=observed())
    made = read(row(turns=[turn]))
    assert "turn-1" not in [cell.id for cell in made.cells]
    assert (
        cell(made, "turn-1-rest").source
        == "### assistant, turn 1: after the code, not executed\n\n```text\nOutput: 7\n```"
    )


def test_further_actions() -> None:
    """Native tool calls of one reply are cells of their own, and a call that was refused is told."""
    turn = Turn(
        "",
        action="1",
        observation=observed(),
        further=[FurtherAction("2", observed()), FurtherAction("3", None)],
    )
    messages = [*said(""), *({"role": "tool", "content": text} for text in ("a", "no such tool", "b", "c"))]
    made = read(row(turns=[turn], messages=messages, stop_reason="repeated_action"))
    code = [(cell.source, cell.execution_count) for cell in made.cells if cell.cell_type == "code"]
    assert code == [("1", 1), ("2", 2), ("3", None)]
    assert "no such tool" in cell(made, "turn-1-told-2").source
    assert cell(made, "turn-1-told-1").source.startswith("### tool\n")


def test_reasoning_and_ending() -> None:
    """How it ended is the last cell, after what was thought."""
    made = read(row(turns=[Turn("x", reasoning="why")], stop_reason=StopReason.CONTEXT_OVERFLOW, error="too long",
                    artifacts=[{"path": f"artifacts/{n}", "bytes": n} for n in range(102)]))  # fmt: skip
    assert "why" in cell(made, "turn-1-reasoning").source
    end = cell(made, "end").source
    assert "context_overflow (owner model)\ntoo long\nartifact artifacts/0 (0 bytes)" in end
    assert end.count("\nartifact") == 100
    assert "and 2 more artifacts" in end


def test_stopped_cell() -> None:
    """A cell that its outputs do not show to have been stopped says so."""
    made = read(row(turns=[acted("1", status="timeout"), acted("2", status="died", kernel_alive=False)]))
    assert cell(made, "turn-1-action-1").outputs[0].text == "[ended as timeout]\n"
    assert cell(made, "turn-2-action-1").outputs[0].text == "[ended as died; the kernel was gone]\n"


def test_examples_are_messages() -> None:
    """Replies that the sample brought are no turns."""
    messages = [
        *said("example", "observed"),
        {"role": "user", "content": "now you"},
        {"role": "assistant", "content": "done"},
    ]
    made = read(row(messages=messages))
    assert "example" in cell(made, "message-3").source
    assert "now you" in cell(made, "message-5").source
    assert "done" in cell(made, "turn-1").source


def test_no_turn() -> None:
    """An attempt to which the model never replied is its messages."""
    made = read(row(messages=said(), turns=[], stop_reason="model_error"))
    assert [cell.id for cell in made.cells] == ["trajectory", "message-1", "message-2", "end"]


def test_same_each_time() -> None:
    """The same trajectory gives the same bytes."""
    turns = [acted("print(1)"), Turn("done")]
    assert notebook_json(row(turns=turns), no_picture) == notebook_json(row(turns=turns), no_picture)
    ids = [cell["id"] for cell in notebook(row(turns=turns), no_picture)["cells"]]
    assert len(ids) == len(set(ids))


def test_unencodable_text() -> None:
    """Text that no JSON encoder takes does not stop the notebook."""
    made = notebook_json({"attempt": "a@1", "messages": [{"role": "user", "content": "\ud800"}]}, no_picture)
    assert b"\\\\ud800" in made


class TestPictures:
    """The pictures that a run directory holds."""

    def write(self, run_dir: Path, data: bytes = PNG) -> None:
        (run_dir / PATH).parent.mkdir(parents=True)
        (run_dir / PATH).write_bytes(data)

    def test_read(self, tmp_path: Path) -> None:
        """One that is as it was recorded."""
        self.write(tmp_path)
        assert Pictures(tmp_path).read(PICTURE) == PNG

    def test_changed(self, tmp_path: Path) -> None:
        """One that was written over is not passed off as the run's."""
        self.write(tmp_path, b"other")
        assert Pictures(tmp_path).read(PICTURE) == "changed since the run"

    def test_bounds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One picture is bounded, and all of a notebook are."""
        self.write(tmp_path)
        monkeypatch.setattr(module, "MAX_NOTEBOOK_PICTURE_BYTES", 2 * len(PNG) - 1)
        pictures = Pictures(tmp_path)
        assert pictures.read(PICTURE) == PNG
        assert pictures.read(PICTURE) == "too large for a notebook"
        monkeypatch.setattr(module, "MAX_PICTURE_BYTES", len(PNG) - 1)
        assert Pictures(tmp_path).read(PICTURE) == "too large for a notebook"

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("artifacts/../secret.png", "missing"),
            ("secret.png", "missing"),
            ("/etc/hostname", "missing"),
            ("artifacts/one/1/absent.png", "missing"),
            ("artifacts/one/1/displayed", "missing"),
            ("artifacts/one/1/link.png", "missing"),
            ("artifacts/one/1/fifo.png", "missing"),
            ("artifacts/nul\0.png", "not readable"),
            (None, "not kept"),
        ],
    )
    def test_elsewhere(self, tmp_path: Path, path: str | None, why: str) -> None:
        """Nothing but a file of the artifacts is read, whatever a line says."""
        self.write(tmp_path)
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "artifacts/one/1/link.png").symlink_to(tmp_path / "secret.png")
        os.mkfifo(tmp_path / "artifacts/one/1/fifo.png")
        assert Pictures(tmp_path).read(PICTURE | {"path": path}) == why

    def test_note(self, tmp_path: Path) -> None:
        """A picture that is not there leaves a note beside the text."""
        turn = acted("x", {"type": "display", "data": {"text/plain": "<Figure>", "image/png": PICTURE}})
        (output,) = cell(read(row(turns=[turn]), Pictures(tmp_path).read), "turn-1-action-1").outputs
        assert output.data == {"text/plain": f"<Figure>\n[image/png, {PATH}: missing]"}


@pytest.mark.data
@pytest.mark.parametrize("run", ["PyLlama3", "PyLlama3_only_codefb", "gpt4turbo"])
def test_recorded_runs_of_the_authors(kernelfleet_data: Path, run: str) -> None:
    """Every recorded task is a valid notebook with a code cell for each executed action."""
    for recorded in read_recorded(kernelfleet_data / "pybench/golden" / run / "trajectory.jsonl"):
        made = read(recorded)
        code = [cell.source for cell in made.cells if cell.cell_type == "code"]
        assert code == [turn["action"] for turn in recorded["turns"] if turn["action"]]
