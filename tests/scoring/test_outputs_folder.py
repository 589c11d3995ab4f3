"""An output folder as artifacts: what is listed, what has a problem, and that nothing in it is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scoring.errors import ArtifactChanged, RunDirError
from scoring.facts import read_unchanged
from scoring.outputs_folder import MAX_BELOW, artifacts_in


def test_files_and_folders_are_listed(tmp_path: Path) -> None:
    """Paths start with the prefix; a folder ends with a slash, whatever is in it."""
    (tmp_path / "a.csv").write_text("abc")
    (tmp_path / "140/inner").mkdir(parents=True)
    (tmp_path / "140/game.py").touch()
    found = artifacts_in(tmp_path, "output")
    assert set(found) == {"output/a.csv", "output/140/", "output/140/game.py", "output/140/inner/"}
    assert all(artifact.problem is None and path == artifact.path for path, artifact in found.items())
    assert found["output/a.csv"].n_bytes == 3
    assert read_unchanged(found["output/a.csv"]) == b"abc"


def test_a_file_that_grew_since_it_was_listed_is_noticed(tmp_path: Path) -> None:
    """Without a digest its size still tells."""
    (tmp_path / "a.csv").write_text("abc")
    artifact = artifacts_in(tmp_path, "output")["output/a.csv"]
    (tmp_path / "a.csv").write_text("abcd")
    with pytest.raises(ArtifactChanged, match=r"output/a\.csv changed since the run"):
        read_unchanged(artifact)


def test_links_and_what_is_no_file_have_a_problem(tmp_path: Path) -> None:
    """Links to files, to folders, to nothing and to themselves are not entered; a folder of links is there."""
    folder = tmp_path / "output"
    (folder / "141").mkdir(parents=True)
    (folder / "file").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "141/up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    problems = {path: artifact.problem for path, artifact in artifacts_in(folder, "output").items()}
    assert problems == {
        "output/141/": None,
        "output/141/up": "a symbolic link",
        "output/file": "a symbolic link",
        "output/folder": "a symbolic link",
        "output/gone": "a symbolic link",
        "output/loop": "a symbolic link",
        "output/pipe": "no regular file",
    }


def test_sparse_files_cost_nothing(tmp_path: Path) -> None:
    """A file may claim any size; no byte of it is read."""
    for number in range(50):
        with (tmp_path / f"{number}.csv").open("wb") as file:
            file.truncate(2**36)
    assert {artifact.n_bytes for artifact in artifacts_in(tmp_path, "output").values()} == {2**36}


def test_what_floods_a_folder_is_lost_to_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its nearest entries are listed, all others in full, and a warning names it."""
    (tmp_path / "142/deep/deeper").mkdir(parents=True)
    for number in range(MAX_BELOW):
        (tmp_path / f"142/deep/{number}").touch()
    (tmp_path / "142/near.html").touch()
    (tmp_path / "143").mkdir()
    (tmp_path / "143/game.html").touch()
    found = artifacts_in(tmp_path, "output")
    assert len(found) == MAX_BELOW + 2
    assert {"output/142/near.html", "output/143/game.html"} < set(found)
    (warning,) = caplog.messages
    assert "142' holds more than 10000 files and folders" in warning


def test_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    """Their bytes are kept as the file system's escapes."""
    (tmp_path / os.fsdecode(b"\xff.png")).write_text("x")
    (artifact,) = artifacts_in(tmp_path, "output").values()
    assert os.fsencode(artifact.path) == b"output/\xff.png"
    assert read_unchanged(artifact) == b"x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_has_a_problem(tmp_path: Path) -> None:
    """A file without permissions is the fault of whoever wrote it."""
    (tmp_path / "a.csv").touch(mode=0)
    assert artifacts_in(tmp_path, "output")["output/a.csv"].problem == "not readable"


@pytest.mark.parametrize("name", ["gone", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    """The message says what to give."""
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError, match=f"{name} is not a folder; give the one that holds the output"):
        artifacts_in(tmp_path / name, "output")
