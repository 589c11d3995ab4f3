from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_data import Benchmark, MissingDataError, SampleError, load
from bench_data.checks import AnswerNumber
from bench_data.jsonl import _parse

ASKED = [{"role": "user", "content": "How many lines has data/a.csv?"}]


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "tasks.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load_rows(folder: Path, *rows: dict[str, Any] | str) -> Benchmark:
    return load(f"jsonl:{write(folder, *rows)}")


def row(**keys: Any) -> dict[str, Any]:
    return {"id": "a", "messages": ASKED, **keys}


def test_a_full_line_becomes_a_sample(tmp_path: Path) -> None:
    """Every key of a line arrives in the sample; a source is read relative to the JSONL file."""
    (tmp_path / "a.csv").write_bytes(b"x\n1\n")
    files = [{"path": "data/a.csv", "source": "a.csv"}, {"path": "notes.txt", "text": "für 价"}]
    solution = {"cells": ["print(2)"], "answer": "Answer: {last_line}"}
    check = {"kind": "answer_number", "value": 2}
    benchmark = load_rows(
        tmp_path,
        row(files=files, category="c", check=check, reference=solution, decoy=solution, metadata={"n": [1]}),
    )
    (sample,) = benchmark.samples
    assert [(file.path, file.read()) for file in sample.files] == [
        ("data/a.csv", b"x\n1\n"),
        ("notes.txt", "für 价".encode()),
    ]
    assert sample.messages == tuple(ASKED)
    assert sample.check == AnswerNumber(value=2)
    assert sample.reference is not None
    assert sample.reference.cells == ("print(2)",)
    assert (sample.category, sample.metadata, benchmark.protocol) == ("c", {"n": [1]}, "fenced")


def test_a_sample_can_ask_for_its_sandbox(tmp_path: Path) -> None:
    """Profile and setup arrive as written, the workspace as the absolute path of a folder beside the file."""
    (tmp_path / "repos/a").mkdir(parents=True)
    plain, asking = load_rows(
        tmp_path, row(), row(id="b", profile="upstream", setup="import a\n", workspace="repos/a")
    ).samples
    assert (plain.profile, plain.setup, plain.workspace) == (None, None, None)
    assert (asking.profile, asking.setup, asking.workspace) == (
        "upstream",
        "import a\n",
        tmp_path / "repos/a",
    )


def test_a_workspace_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whichever folder it is loaded, the same absolute folder is meant, and the same digest results."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "repo").mkdir()
    write(tmp_path / "tasks", row(workspace="../repo"))
    monkeypatch.chdir(tmp_path)
    here = load("jsonl:tasks/tasks.jsonl")
    monkeypatch.chdir(tmp_path / "tasks")
    beside = load("jsonl:tasks.jsonl")
    for benchmark in (here, beside):
        workspace = benchmark.samples[0].workspace
        assert workspace is not None
        assert workspace.is_absolute()
        assert workspace.samefile(tmp_path / "repo")
    assert here.digest == beside.digest


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "gone is not a readable folder; workspaces are relative to"),
        ("a.csv", "a.csv is not a readable folder"),
        ("x" * 300, "is not a readable folder"),
        ("nul\0", "is not a readable folder"),
        (".", "holds tasks.jsonl with its checks and solutions; choose a folder of its own"),
        ("/", "holds tasks.jsonl with its checks and solutions"),
        ("link", "holds tasks.jsonl with its checks and solutions"),
    ],
)
def test_a_workspace_that_cannot_be_mounted_is_refused(tmp_path: Path, name: str, words: str) -> None:
    """It must be a folder, and not one in which the model finds the checks."""
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path)
    path = write(tmp_path, row(workspace=name))
    with pytest.raises(SampleError) as caught:
        load(f"jsonl:{path}")
    assert str(caught.value).startswith(f"{path}:1: workspace: ")
    assert words in str(caught.value)


def test_a_workspace_that_holds_a_file_named_from_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks are found in it too when the file's own path is relative."""
    write(tmp_path, row(workspace="."))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SampleError, match=r"^tasks\.jsonl:1: workspace: .* holds tasks\.jsonl"):
        load("jsonl:tasks.jsonl")


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path: Path) -> None:
    """Blank lines are skipped but numbered, and a BOM is no part of the first line."""
    path = write(tmp_path, row(), "", "  ", row(id="b"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [sample.id for sample in load(f"jsonl:{path}").samples] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON at column"),
        ("[1]", "a line must be a JSON object"),
        ('{"id": "a", "id": "b"}', "id: the key is there twice"),
        ('{"id": NaN}', "NaN is not JSON"),
        ('{"id": ' + "[" * 100_000, "recursion"),
        ('{"id": ' + "1" * 5_000 + "}", "limit"),
        ('{"id": "\\ud800"}', "id: holds half of a surrogate pair"),
        ({"messages": ASKED}, "id: Field required"),
        ({"id": "a"}, "messages: Field required"),
        ({"id": "a", "messages": []}, "messages: List should have at least 1 item"),
        (row(id="a/b"), "id: sample id 'a/b' cannot be a folder name"),
        (row(id=7), "id: Input should be a valid string (got 7)"),
        (row(colour="red"), "colour: Extra inputs are not permitted (got 'red')"),
        (row(messages=[{"role": "robot", "content": ""}]), "messages.0.role: Input should be"),
        (row(check={"kind": "vibes"}), "check: Input tag 'vibes'"),
        (row(check={"kind": "answer_number", "value": "x"}), "check.answer_number.value: Input should be"),
        (row(check={"kind": "answer_number", "value": 1, "tol": 2}), "check.answer_number.tol: Extra inputs"),
        (row(reference={"cells": [], "answer": ""}), "reference.cells: List should have at least 1 item"),
        (row(files=[{"path": "/etc/a", "text": ""}]), "files.0.path: '/etc/a' must be a file below"),
        (row(files=[{"path": "a/../../b", "text": ""}]), "files.0.path: 'a/../../b' must be a file below"),
        (row(files=[{"path": "a\\b", "text": ""}]), "files.0.path: 'a\\\\b' must be a file below"),
        (row(files=[{"path": ".", "text": ""}]), "files.0.path: '.' must be a file below"),
        (row(files=[{"path": "a"}]), "files.0: 'a' needs one of source (a file) and text"),
        (row(files=[{"path": "a", "text": "", "source": "x"}]), "files.0: 'a' needs one of source"),
        (
            row(files=[{"path": "a", "source": "gone.csv"}]),
            "gone.csv is not a readable file; sources are rel",
        ),
        (
            row(files=[{"path": "a", "text": ""}, {"path": "./a", "text": ""}]),
            "files.1.path: './a' is in files",
        ),
        (row(profile=""), "profile: String should have at least 1 character"),
        (row(setup=["a"]), "setup: Input should be a valid string"),
        (row(files=[{"path": "a", "source": "x" * 300}]), "files.0.source: "),
        (
            row(workspace=".", files=[{"path": "./workspace/a", "text": ""}]),
            "files.0.path: './workspace/a' is where the workspace is seen",
        ),
        (row(id="first"), "id: 'first' is already on line 1; ids must differ"),
    ],
)
def test_bad_lines_name_file_line_and_key(tmp_path: Path, line: dict[str, Any] | str, words: str) -> None:
    """Each wrong line gives one message that starts with FILE:LINE and names the key."""
    path = write(tmp_path, row(id="first"), line)
    with pytest.raises(SampleError) as caught:
        load(f"jsonl:{path}")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 700


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    """A line that is not UTF-8 is named."""
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b'\n{"id": "M\xfcller"}\n')
    with pytest.raises(SampleError, match=r"tasks\.jsonl:2: not UTF-8 at byte 9"):
        load(f"jsonl:{path}")


@pytest.mark.parametrize("name", ["gone.jsonl", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that is not there, or is a folder, gives a message with its name."""
    with pytest.raises(MissingDataError, match="no such file; jsonl:FILE needs"):
        load(f"jsonl:{tmp_path / name}")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """No samples is an error, not a run of nothing."""
    with pytest.raises(SampleError, match="holds no samples"):
        load_rows(tmp_path, "")


def test_the_digest_follows_what_samples_say(tmp_path: Path) -> None:
    """Ids, messages, file bytes and checks change the digest; references and metadata do not."""
    source = tmp_path / "a.csv"
    source.write_bytes(b"1")
    files = [{"path": "a.csv", "source": "a.csv"}]
    digest = load_rows(tmp_path, row(files=files)).digest
    solution = {"cells": ["1"], "answer": "2"}
    assert load_rows(tmp_path, row(files=files, reference=solution, metadata={"a": 1})).digest == digest
    assert load_rows(tmp_path, row(files=files, id="b")).digest != digest
    assert load_rows(tmp_path, row(files=files, check={"kind": "answer_number", "value": 1})).digest != digest
    assert load_rows(tmp_path, row(files=files, messages=[*ASKED, *ASKED])).digest != digest
    source.write_bytes(b"2")
    assert load_rows(tmp_path, row(files=files)).digest != digest


def test_the_digest_follows_the_sandbox(tmp_path: Path) -> None:
    """Profile, setup and the workspace's name count, each for itself; what is in the workspace does not."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    asked: list[dict[str, Any]] = [
        {}, {"profile": "one"}, {"setup": "one"}, {"workspace": "one"}, {"workspace": "two"},
    ]  # fmt: skip
    digests = [load_rows(tmp_path, row(**keys)).digest for keys in asked]
    assert len(set(digests)) == len(asked)
    (tmp_path / "two/a.csv").write_text("1")
    assert load_rows(tmp_path, row(workspace="two")).digest == digests[-1]


def test_a_moved_benchmark_has_the_same_digest(tmp_path: Path) -> None:
    """Where the file and its workspaces lie on a machine decides nothing; where a workspace alone lies does."""
    for place in ("a", "b"):
        (tmp_path / place / "repo").mkdir(parents=True)
    moved = [load_rows(tmp_path / place, row(workspace="repo")).digest for place in ("a", "b")]
    assert moved[0] == moved[1]
    outside = [
        load_rows(tmp_path / "a", row(workspace=str(tmp_path / place / "repo"))).digest
        for place in ("a", "b")
    ]
    assert outside[0] == moved[0]
    assert outside[1] != moved[0]


def test_digests_from_before_sandboxes_could_be_asked_for(tmp_path: Path) -> None:
    """A benchmark that asks for nothing keeps the digest that runs of older versions have recorded."""
    said = {"id": "a", "messages": ASKED, "files": [], "check": None}
    expected = hashlib.sha256(json.dumps(said, sort_keys=True).encode() + b"\n").hexdigest()
    assert load_rows(tmp_path, row()).digest == expected


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["id", "messages", "category", "files", "check", "reference", "decoy", "metadata", "setup", "x"]
)


@given(st.text() | st.dictionaries(KEYS, json_values).map(json.dumps))
def test_any_line_is_a_row_or_a_sample_error(line: str) -> None:
    """No text whatever raises anything but SampleError."""
    try:
        _parse(line, "f:1")
    except SampleError as error:
        message = str(error)
    else:
        return
    assert message.startswith("f:1: ")
