"""What PyBench's tasks need: the table, what is found in a place, and what is said of what is not."""

from __future__ import annotations

import json
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench_data import BenchDataError, requirements
from bench_data.requirements import (
    CJK_TASKS,
    FFMPEG_TASKS,
    PYBENCH,
    VIDEO_TASKS,
    Found,
    Place,
    has_cjk_font,
    lacking,
    look,
    look_for,
)
from runner.protocols import Fenced
from scoring.pybench.tasks import load_checks

ROOT = Path(__file__).parents[2]
HERE = Path(sys.executable)
ALL = Found(frozenset(PYBENCH), has_cjk_font=True, has_ffmpeg=True, has_bundled_ffmpeg=True)
NOTHING = Found(frozenset(), has_cjk_font=False, has_ffmpeg=False, has_bundled_ffmpeg=False)


def test_extra_brings_what_the_table_says() -> None:
    """Each distribution is one that is installed by default, or in the extra; the others say so."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["pybench"]]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in declared}
    assert {p.distribution for p in PYBENCH.values() if p.in_extra} <= names
    assert {p.distribution for p in PYBENCH.values() if not p.in_extra}.isdisjoint(names)


def test_tasks_are_pybenchs() -> None:
    """Ids are of tasks that are scored."""
    named = set().union(CJK_TASKS, FFMPEG_TASKS, VIDEO_TASKS, *(p.tasks for p in PYBENCH.values()))
    assert named <= load_checks().keys()


def test_whole_place_lacks_nothing() -> None:
    """Then there is nothing to say."""
    found = lacking(map(str, range(2, 153)), HERE, ALL)
    assert not found
    assert found.lines() == []


def test_only_what_the_samples_need_counts() -> None:
    """A run of three tasks is not told about the others; tasks stand in the order of their numbers."""
    found = lacking(["117", "9", "121"], Path("/p"), NOTHING)

    assert found.modules == {
        "pandas": ("9",), "matplotlib": ("121",), "openpyxl": ("9",), "wordcloud": ("121",), "qrcode": ("117",),
    }  # fmt: skip
    assert (found.cjk_font, found.ffmpeg) == (("121",), ())
    assert lacking(["100", "99"], HERE, NOTHING).modules["cv2"] == ("99", "100")


def test_lines_name_module_distribution_tasks_and_remedy() -> None:
    """A user reads what to install, and what stays broken without."""
    lines = lacking(["49", "83", "118", "124", "144"], Path("/p"), NOTHING).lines()
    assert lines[0] == "warning: /p lacks packages that tasks need; make install-pybench brings them:"
    assert "  cv2 (opencv-python-headless), for tasks 83 124" in lines
    assert "  qrcode, for task 118" in lines
    assert [line for line in lines if "keras" in line] == [
        "warning: /p lacks what some tasks ask for, and what no extra of ours holds: keras, for task 49"
    ]
    assert lines[-2:] == [
        "warning: no font has Chinese characters, for task 124: apt install fonts-noto-cjk",
        "warning: there is no ffmpeg, for task 144: apt install ffmpeg",
    ]


@pytest.mark.parametrize(
    ("on_path", "bundled", "tasks"),
    [(True, False, ()), (False, True, ("144",)), (False, False, ("113", "144"))],
)
def test_bundled_ffmpeg_serves_videos_alone(on_path: bool, bundled: bool, tasks: tuple[str, ...]) -> None:
    """The library imageio starts its own, pydub the one on PATH."""
    found = Found(frozenset(PYBENCH), has_cjk_font=True, has_ffmpeg=on_path, has_bundled_ffmpeg=bundled)
    assert lacking(["113", "144"], HERE, found).ffmpeg == tasks


def test_interpreter_is_asked_without_importing(tmp_path: Path) -> None:
    """A module counts where the interpreter finds it, in the extra folders too: a wheel's, one that cannot run."""
    (tmp_path / "keras.py").write_text("raise SystemExit('imported')")
    with zipfile.ZipFile(tmp_path / "qr.whl", "w") as wheel:
        wheel.writestr("pygame/__init__.py", "")
    environment = {"PATH": "/usr/bin:/bin"}
    # -S: an interpreter without site-packages has none of them.
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)

    assert look(Place(bare, (), environment)).modules == frozenset()
    found = look(Place(bare, (tmp_path, tmp_path / "qr.whl"), environment))
    assert found.modules == {"keras", "pygame"}


def test_bundled_ffmpeg_is_a_file(tmp_path: Path) -> None:
    """imageio_ffmpeg without its program, as some systems install it, does not count."""
    binaries = tmp_path / "imageio_ffmpeg/binaries"
    binaries.mkdir(parents=True)
    (tmp_path / "imageio_ffmpeg/__init__.py").touch()
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)

    assert not look(Place(bare, (tmp_path,))).has_bundled_ffmpeg
    (binaries / "ffmpeg-linux64-v7").touch()
    assert look(Place(bare, (tmp_path,))).has_bundled_ffmpeg


def test_ffmpeg_is_looked_for_where_the_code_would(tmp_path: Path) -> None:
    """On the PATH of the sandbox, which is not ours."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert look(Place(HERE, (), {"PATH": str(tmp_path)})).has_ffmpeg
    assert not look(Place(HERE, (), {"PATH": str(tmp_path / "none")})).has_ffmpeg


@pytest.mark.parametrize(
    ("script", "message"),
    [(None, "No such file"), ("#!/bin/sh\necho no such luck >&2\nexit 3\n", "no such luck$")],
)
def test_interpreter_that_cannot_be_asked(tmp_path: Path, script: str | None, message: str) -> None:
    """It is named, with what it said: no kernel would start in it either."""
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    with pytest.raises(BenchDataError, match=rf"python \(sandbox\.python\) cannot be asked.*{message}"):
        look(Place(python))


def test_fonts_without_fontconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no fc-list, files are known by their names."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_cjk_font([str(tmp_path)])
    folder = tmp_path / "opentype/noto"
    folder.mkdir(parents=True)
    (folder / "NotoSansCJK-Regular.ttc").touch()
    assert has_cjk_font([str(tmp_path)])


@pytest.mark.parametrize(("listed", "expected"), [("", False), ("Noto Sans CJK SC\n", True)])
def test_fontconfig_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, expected: bool
) -> None:
    """Where there is fc-list, what it lists counts."""
    program = tmp_path / "fc-list"
    program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert has_cjk_font([]) is expected


def test_other_benchmarks_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started for a benchmark of which nothing is known."""
    monkeypatch.setattr(requirements, "look", lambda place: pytest.fail("looked"))
    assert look_for("quickstart", ["a"], Place(HERE)) is None


def recorded_actions(messages: list[dict[str, Any]]) -> list[Any]:
    replies = (message["content"] for message in messages if message["role"] == "assistant")
    return [action for reply in replies for action in Fenced(None).parse(reply, "stop").actions]


@pytest.mark.data
def test_table_is_what_the_recordings_import(kernelfleet_data: Path) -> None:
    """Each task named beside a module is one whose recorded code imports it, or reads its kind of file."""
    imports: dict[str, set[str]] = {}
    for path in sorted((kernelfleet_data / "pybench/golden").glob("*/trajectory.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            for action in recorded_actions(row.get("messages") or []):
                for module in re.findall(r"^\s*(?:import|from)\s+(\w+)", action.code, re.MULTILINE):
                    imports.setdefault(module, set()).add(row["index"])
    for name, package in PYBENCH.items():
        if name != "openpyxl":  # pandas imports it
            assert package.tasks == imports[name], name
