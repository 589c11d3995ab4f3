"""PyBench's loader: on a small checkout made here, and on the real one where it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench_data import DataOptions, MissingDataError, SampleError, load, pybench
from bench_data.pybench import git_blob_id, group_of

CLINICS = "data/yearly_deaths_by_clinic.csv"


def task(index: str, *file_paths: str, **more: Any) -> dict[str, Any]:
    category = {"category1": "简单数据分析处理\n（pandas）", "category2": "数据清洗", "category3": ""}
    return {"index": index, "user": f"do {index}", "file_paths": list(file_paths), **category, **more}


def checkout(root: Path, *tasks: dict[str, Any], **files: bytes) -> Path:
    (root / "data/meta").mkdir(parents=True)
    (root / "data/meta/task.json").write_text(json.dumps(tasks))
    for name, content in files.items():
        (root / "data" / name.replace("__", ".")).write_bytes(content)
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_messages_are_upstreams(tmp_path: Path) -> None:
    """One message names the files, even when there are none; the next one asks."""
    root = checkout(tmp_path, task("2", "./data/a.csv", "./data/b.csv"), task("3"), a__csv=b"1", b__csv=b"2")
    two, three = load("pybench", DataOptions(root=root)).samples

    assert [message["content"] for message in two.messages] == [
        "[INFO]The data is uploaded to ./data/a.csv,./data/b.csv",
        "do 2",
    ]
    assert three.messages[0]["content"] == "[INFO]The data is uploaded to "
    assert [(file.path, file.read()) for file in two.files] == [("data/a.csv", b"1"), ("data/b.csv", b"2")]


def test_missing_inputs_are_skipped_with_a_reason(tmp_path: Path) -> None:
    """A task without its input is not run, and says what is missing; strict makes it an error."""
    root = checkout(tmp_path, task("2", "./data/gone.mp3"), task("3"))
    benchmark = load("pybench", DataOptions(root=root))

    assert [sample.id for sample in benchmark.samples] == ["3"]
    assert [(s.id, s.reason) for s in benchmark.skipped] == [("2", "./data/gone.mp3 is missing")]
    with pytest.raises(MissingDataError, match=r"1 tasks lack inputs.*\n.*2: ./data/gone.mp3"):
        load("pybench", DataOptions(root=root, strict=True))


def test_first_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pristine takes data_pristine/, else the file itself if it is unchanged, else git's history, else skips."""
    first, later = b"first\n", b"later\n"
    monkeypatch.setitem(pybench.FIRST_VERSIONS, CLINICS, git_blob_id(first))
    root = checkout(tmp_path, task("2", "./" + CLINICS))
    path = root / CLINICS
    path.write_bytes(first)

    def content(version: str) -> bytes | None:
        samples = load("pybench", DataOptions.model_validate({"root": root, "version": version})).samples
        return samples[0].files[0].read() if samples else None

    assert content("pristine") == first
    path.write_bytes(later)
    assert content("pristine") is None
    assert content("head") == later

    (root / "data_pristine").mkdir()
    (root / "data_pristine" / path.name).write_bytes(first)
    assert content("pristine") == first
    (root / "data_pristine" / path.name).unlink()

    path.write_bytes(first)
    git(root, "init", "-q")
    git(root, "add", "data")
    git(root, "commit", "-qm", "first")
    path.write_bytes(later)
    pybench._git_blob.cache_clear()
    assert content("pristine") == first


@pytest.mark.parametrize("version", ["head", "pristine"])
def test_what_a_later_commit_removed_comes_from_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The input of a task that upstream's last commit lacks; without its history, the reason says so."""
    monkeypatch.setattr(pybench, "LOST", {CLINICS: git_blob_id(b"lost\n")})
    monkeypatch.delitem(pybench.FIRST_VERSIONS, CLINICS)
    root = checkout(tmp_path, task("2", "./" + CLINICS))
    options = DataOptions.model_validate({"root": root, "version": version})
    pybench._remedy.cache_clear()
    (skipped,) = load("pybench", options).skipped
    assert skipped.reason.endswith("in the git history of data.root (a git clone of PyBench has it)")

    git(root, "init", "-q")
    (root / CLINICS).write_bytes(b"lost\n")
    git(root, "add", "data")
    git(root, "commit", "-qm", "x")
    (root / CLINICS).unlink()
    assert load("pybench", options).samples[0].files[0].read() == b"lost\n"
    (root / CLINICS).write_bytes(b"brought back\n")
    assert load("pybench", options).samples[0].files[0].read() == b"brought back\n"


def test_shallow_clone_gets_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone of the last commit alone lacks the first versions; the command that is named brings them."""
    first = b"first\n"
    monkeypatch.setitem(pybench.FIRST_VERSIONS, CLINICS, git_blob_id(first))
    origin = checkout(tmp_path / "origin", task("2", "./" + CLINICS), task("3"))
    git(origin, "init", "-q")
    for content in (first, b"later\n"):
        (origin / CLINICS).write_bytes(content)
        git(origin, "add", "data")
        git(origin, "commit", "-qm", "x")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", origin.as_uri(), str(clone))

    shallow = load("pybench", DataOptions(root=clone))
    assert [sample.id for sample in shallow.samples] == ["3"]
    (skipped,) = shallow.skipped
    assert skipped.id == "2"
    assert "git fetch --unshallow brings it; data.version=head runs with what is there" in skipped.reason
    at_head = load("pybench", DataOptions(root=clone, version="head")).samples
    assert at_head[0].files[0].read() == b"later\n"

    git(clone, "fetch", "-q", "--unshallow")
    pybench._git_blob.cache_clear()
    whole = load("pybench", DataOptions(root=clone))
    assert (whole.skipped, whole.samples[0].files[0].read()) == ((), first)


def test_another_obstacle_gets_another_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of files, a whole clone of something else, and what git refuses to read are told apart."""
    monkeypatch.setitem(pybench.FIRST_VERSIONS, CLINICS, git_blob_id(b"first\n"))

    def reason(root: Path) -> str:
        pybench._remedy.cache_clear()
        (skipped,) = load("pybench", DataOptions(root=root)).skipped
        return skipped.reason

    root = checkout(tmp_path, task("2", "./" + CLINICS))
    (root / CLINICS).write_bytes(b"later\n")
    assert "(a git clone of PyBench has it; data.version=head" in reason(root)
    git(root, "init", "-q")
    assert "(a full clone of PyBench has it; data.version=head" in reason(root)
    (root / ".git/config").write_text("[core")
    assert "(git cannot read it: fatal: bad config line" in reason(root)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"{}", SampleError, "not a list of tasks"),
        (b"[1", SampleError, "task.json"),
        (b'[{"index": 2}]', SampleError, "task 1: index is 2, not a str"),
        (b'[{"index": "../x", "user": "", "file_paths": []}]', SampleError, "cannot be a folder name"),
    ],
)
def test_broken_task_file(tmp_path: Path, content: bytes, error: type[Exception], message: str) -> None:
    """What is wrong is named with its place."""
    (checkout(tmp_path) / "data/meta/task.json").write_bytes(content)
    with pytest.raises(error, match=message):
        load("pybench", DataOptions(root=tmp_path))


def test_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A task cannot name a file outside the checkout."""
    benchmark = load("pybench", DataOptions(root=checkout(tmp_path, task("2", "./../../etc/passwd"))))
    assert "leaves the working directory" in benchmark.skipped[0].reason


@pytest.mark.data
@pytest.mark.parametrize("version", ["head", "pristine"])
def test_real_checkout(kernelfleet_data: Path, version: str) -> None:
    """125 of the 143 tasks have their inputs there, and the groups have the paper's sizes."""
    root = kernelfleet_data / "pybench"
    benchmark = load("pybench", DataOptions.model_validate({"root": root, "version": version}))
    rows = json.loads((root / "data/meta/task.json").read_text())
    sizes: dict[str, int] = {}
    for row in rows:
        group = group_of(row["category1"], row["category2"])
        sizes[group] = sizes.get(group, 0) + 1

    assert (len(benchmark.samples), len(benchmark.skipped)) == (125, 18)
    assert sizes == {"chart": 62, "text": 23, "image and audio": 48, "math": 6, "software": 4}


@pytest.mark.data
def test_presolved_task_has_its_problem_back(kernelfleet_data: Path) -> None:
    """At head the duplicates of task 2 are gone already; pristine has them."""
    rows = {}
    for version in ("head", "pristine"):
        options = DataOptions.model_validate({"root": kernelfleet_data / "pybench", "version": version})
        sample = next(s for s in load("pybench", options).samples if s.id == "2")
        rows[version] = sample.files[0].read().decode().splitlines()[1:]

    assert len(rows["head"]) == len(set(rows["head"]))
    assert len(rows["pristine"]) > len(set(rows["pristine"]))
