"""PyBench's upstream kinds: each passes what upstream's test passes, and fails what it fails."""

from __future__ import annotations

import importlib
import io
import json
import math
import pickle
import struct
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from scoring.checks import FILE_JUDGES, judge
from scoring.errors import ScoringError
from scoring.facts import INSIDE
from scoring.pybench.tasks import load_checks
from scoring.pybench.upstream_checks import UpstreamCheck
from scoring.requests import facts_key, file_checks, request_of

ADAPTER: TypeAdapter[Any] = TypeAdapter(UpstreamCheck)

cv2 = pytest.importorskip("cv2", reason="what PyBench needs is not installed: make install-pybench")
pytest.importorskip("mutagen", reason="what PyBench needs is not installed: make install-pybench")


@pytest.fixture
def facts_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any], Path], str]]:
    """The readers' entry point, in this process: they are our own code, and so are the files here."""
    monkeypatch.syspath_prepend(INSIDE)
    before = set(sys.modules)
    yield importlib.import_module("extract").facts_json
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(INSIDE)):
            del sys.modules[name]


def png(array: Any, mode: str | None = None) -> bytes:
    """Return a picture of these pixels."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(array, dtype=np.uint8), mode=mode).save(stream, "PNG")
    return stream.getvalue()


def wav(level: float) -> bytes:
    """Return a quarter of a second of a sine at `level` of full scale."""
    samples = (level * 32767 * np.sin(np.arange(2000) / 5)).astype("<i2")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(samples.tobytes())
    return stream.getvalue()


def mp3(n_frames: int, gain: str | None = None) -> bytes:
    """Return silence in MPEG-1 layer III at 128 kbit/s, with a ReplayGain tag if asked."""
    frames = b"".join(b"\xff\xfb\x90\x00" + bytes(413) for _ in range(n_frames))
    if gain is None:
        return frames
    text = b"\x03replaygain_track_gain\0" + gain.encode()
    frame = b"TXXX" + struct.pack(">I", len(text)) + b"\0\0" + text
    size = len(frame)
    synchsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + synchsafe + frame + frames


RAMP = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3)
NOISE = np.random.default_rng(1).integers(0, 256, (30, 40, 3))
IN = "data/in.jpeg"
CASES: list[tuple[dict[str, Any], dict[str, bytes], dict[str, bytes], dict[str, bytes]]] = [
    # check, a right output, a wrong one, inputs
    ({"kind": "csv_no_nulls", "path": "o.csv"}, {"o.csv": b"a,b\n1,2\n"}, {"o.csv": b"a,b\n1,\n"}, {}),
    ({"kind": "csv_no_duplicate_rows", "path": "o.csv"}, {"o.csv": b"a\n1\n2\n"}, {"o.csv": b"a\n1\n1\n"}, {}),
    ({"kind": "csv_no_nulls_no_duplicate_rows", "path": "o.csv"}, {"o.csv": b"a,b\n1,x\n2,x\n"}, {"o.csv": b"a,b\n1,x\n1,x\n"}, {}),
    ({"kind": "csv_row_count", "path": "o.csv", "rows": 2}, {"o.csv": b"a\n1\n2\n"}, {"o.csv": b"a\n1\n2\n3\n"}, {}),
    ({"kind": "csv_sorted_by", "path": "o.csv", "by": ["a"], "ascending": [False]}, {"o.csv": b"a\n3\n2\n"}, {"o.csv": b"a\n2\n3\n"}, {}),
    ({"kind": "csv_sorted_by", "path": "o.csv", "by": ["a", "b"], "ascending": [False, True]}, {"o.csv": b"a,b\n3,1\n3,2\n2,0\n"}, {"o.csv": b"a,b\n3,2\n3,1\n2,0\n"}, {}),
    ({"kind": "csv_no_iqr_outliers", "path": "o.csv", "k": 1.5}, {"o.csv": b"a\n1\n2\n3\n4\n"}, {"o.csv": b"a\n1\n2\n3\n400\n"}, {}),
    ({"kind": "csv_column_parses_as_dates", "path": "o.csv", "column": "d"}, {"o.csv": b"d\n2020-01-02\n"}, {"o.csv": b"d\nnever\n"}, {}),
    ({"kind": "no_numeric_text_columns", "path": "o.csv", "more": ["p.csv"]}, {"o.csv": b"a,b\n1,x\n", "p.csv": b"a\n2\n"}, {"o.csv": b"a\n1\n", "p.csv": b'a\n"1,000"\n"2,000"\n'}, {}),
    ({"kind": "pickle_loads", "path": "o.pkl"}, {"o.pkl": pickle.dumps({"a": np.arange(3)})}, {"o.pkl": pickle.dumps([1])[:-1]}, {}),
    ({"kind": "pickle_loads", "path": "o.pkl"}, {"o.pkl": pickle.dumps(math.sqrt, 0)}, {"o.pkl": b"cos\nsystem\n(S'true'\ntR."}, {}),
    ({"kind": "image_size", "path": "o.png", "width": 40, "height": 30}, {"o.png": png(RAMP)}, {"o.png": png(RAMP[:20])}, {}),
    ({"kind": "image_square", "path": "o.png"}, {"o.png": png(RAMP[:, :30])}, {"o.png": png(RAMP)}, {}),
    ({"kind": "image_mode", "path": "o.png", "mode": "L"}, {"o.png": png(RAMP[:, :, 0])}, {"o.png": png(RAMP)}, {}),
    ({"kind": "image_dark_share", "path": "o.png", "level": 50, "share": 0.5}, {"o.png": png(RAMP * 0.2)}, {"o.png": png(RAMP)}, {}),
    ({"kind": "image_statistic", "path": "o.png", "ref": IN, "statistic": "gray_mean", "is_more": False}, {"o.png": png(RAMP * 0.5)}, {"o.png": png(RAMP)}, {IN: png(RAMP)}),
    ({"kind": "image_statistic", "path": "o.png", "ref": IN, "statistic": "gray_std", "is_more": True}, {"o.png": png(RAMP)}, {"o.png": png(RAMP * 0.5)}, {IN: png(RAMP * 0.8)}),
    ({"kind": "image_statistic", "path": "o.png", "ref": IN, "statistic": "hsv_s_mean", "is_more": False}, {"o.png": png(RAMP[:, :, :1].repeat(3, axis=2))}, {"o.png": png(NOISE)}, {IN: png(NOISE)}),
    ({"kind": "image_statistic", "path": "o.png", "ref": IN, "statistic": "gray_laplacian_var", "is_more": False}, {"o.png": png(RAMP)}, {"o.png": png(NOISE)}, {IN: png(NOISE)}),
    ({"kind": "image_similar", "path": "o.png", "ref": IN, "undo": "flip_left_right", "min_similarity": 0.9, "tolerance": 20}, {"o.png": png(255 - RAMP[:, ::-1] * 0)}, {"o.png": png(RAMP * 0 + 100)}, {IN: png(RAMP * 0 + 255)}),
    ({"kind": "image_parts_aspect", "path": "a.png", "more": ["b.png"], "ref": IN, "tolerance": 0.1}, {"a.png": png(RAMP[:, :20]), "b.png": png(RAMP[:, 20:])}, {"a.png": png(RAMP[:15]), "b.png": png(RAMP[15:])}, {IN: png(RAMP)}),
    ({"kind": "wav_louder", "path": "o.wav", "ref": "data/in.wav"}, {"o.wav": wav(0.5)}, {"o.wav": wav(0.2)}, {"data/in.wav": wav(0.4)}),
    ({"kind": "mp3_replaygain_lower", "path": "o.mp3", "ref": "data/in.mp3"}, {"o.mp3": mp3(50, "-3.0 dB")}, {"o.mp3": mp3(50)}, {"data/in.mp3": mp3(50, "1.5 dB")}),
    ({"kind": "mp3_shorter", "path": "o.mp3", "ref": "data/in.mp3"}, {"o.mp3": mp3(40)}, {"o.mp3": mp3(80)}, {"data/in.mp3": mp3(60)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "right", "wrong", "inputs"),
    CASES,
    ids=[f"{n}-{case[0]['kind']}" for n, case in enumerate(CASES)],
)
def test_a_right_and_a_wrong_file(
    tmp_path: Path,
    facts_json: Callable[[dict[str, Any], Path], str],
    check: dict[str, Any],
    right: dict[str, bytes],
    wrong: dict[str, bytes],
    inputs: dict[str, bytes],
) -> None:
    """One generated file passes, another one does not, for a reason that names it; no file at all fails."""
    parsed = ADAPTER.validate_python(check)

    def verdict(files: dict[str, bytes]) -> Any:
        for name, content in (files | inputs).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        (request,) = map(request_of, file_checks(parsed))
        return judge(parsed, None, {facts_key(parsed): json.loads(facts_json(request, tmp_path))})

    assert verdict({}).reason == f"{check['path']}: no such file"
    assert verdict(right).passed, verdict(right).reason
    failed = verdict(wrong)
    assert not failed.passed
    assert check["path"] in failed.reason


@pytest.mark.parametrize(
    ("check", "files", "reason"),
    [
        (
            {"kind": "paths_exist", "path": "output/1", "more": ["output/b.png"]},
            ["output/1/x", "output/b.png"],
            None,
        ),
        ({"kind": "paths_exist", "path": "output/1"}, ["output/1/"], None),
        (
            {"kind": "paths_exist", "path": "output/1"},
            ["output/10", "output/x/1"],
            "no such file or folder: output/1",
        ),
        ({"kind": "folder_has", "path": "output/1", "suffix": ".html"}, ["output/1/a.html"], None),
        (
            {"kind": "folder_has", "path": "output/1", "suffix": ".html"},
            ["output/12/a.html"],
            "no .html file in it",
        ),
        (
            {"kind": "folder_has", "path": "output/1", "suffix": ".html"},
            ["output/1/b/a.html"],
            "no .html file in it",
        ),
    ],
)
def test_names_of_files(check: dict[str, Any], files: list[str], reason: str | None) -> None:
    """Files and folders are there by their whole name."""
    parsed = ADAPTER.validate_python(check)
    verdict = judge(parsed, None, {facts_key(parsed): {"files": files}})
    assert verdict.passed is (reason is None)
    assert reason is None or reason in verdict.reason


@pytest.mark.parametrize(
    ("check", "text", "is_right"),
    [
        ({"kind": "last_message_contains", "all_of": [["9"], ["a", "b"]]}, "b 0.9", True),
        ({"kind": "last_message_contains", "all_of": [["9"], ["a", "b"]]}, "9 c", False),
        ({"kind": "always_passes"}, "", True),
        ({"kind": "always_fails"}, "anything", False),
    ],
)
def test_messages(check: dict[str, Any], text: str, is_right: bool) -> None:
    """Text is looked at as upstream looks at it: a part of a word will do."""
    assert judge(ADAPTER.validate_python(check), text, {}).passed is is_right


@pytest.mark.parametrize(
    "facts", [{}, {"n_nulls": "0"}, {"n_nulls": True}, {"width": []}, {"value": 1}, {"similarity": math.nan}]
)
def test_malformed_facts_fail(facts: dict[str, Any]) -> None:
    """Whatever comes out of a sandbox, no kind raises, and none passes on it."""
    for check, *_ in CASES:
        parsed = ADAPTER.validate_python(check)
        assert not judge(parsed, None, {facts_key(parsed): facts}).passed, check["kind"]


def test_every_kind_is_shown_here() -> None:
    """No kind of upstream's is without a right and a wrong file."""
    used = {task.upstream.kind for task in load_checks().values()}
    shown = {check["kind"] for check, *_ in CASES}
    by_name = {"paths_exist", "folder_has", "last_message_contains", "always_passes", "always_fails"}
    assert used == shown | by_name
    assert shown <= FILE_JUDGES.keys()


def test_all_143_tasks_have_their_checks() -> None:
    """The indices are upstream's, and a task whose profiles differ says why."""
    tasks = load_checks()
    gaps = {24, 26, 104, 106, 108, 125, 127, 148}
    assert list(tasks) == [str(index) for index in range(2, 153) if index not in gaps]
    assert all(task.flaw or task.excluded for task in tasks.values() if task.differs)


@pytest.mark.data
def test_they_are_those_that_upstream_has(kernelfleet_data: Path) -> None:
    """Which task is checked by what agrees with what is known of upstream's tests."""
    expected = json.loads((kernelfleet_data / "pybench/expected.json").read_text())["tasks"]
    tasks = load_checks()
    assert tasks.keys() == expected.keys()
    for index, task in tasks.items():
        check = expected[index]["check"]
        paths = check.get("paths") or check.get("files") or [check.get("file") or check.get("dir")]
        named = [getattr(task.upstream, "path", None), *getattr(task.upstream, "more", ())]
        assert [path for path in named if path] == [path for path in paths if path], index
        assert getattr(task.upstream, "all_of", None) == check.get("all_of"), index


def test_a_difference_without_a_reason_is_refused(tmp_path: Path) -> None:
    """Whoever makes a task stricter has to say why."""
    path = tmp_path / "checks.yaml"
    path.write_text("tasks: {'2': {upstream: {kind: always_passes}, strict: {kind: always_fails}}}")
    with pytest.raises(ScoringError, match=r"tasks\.2: the profiles differ"):
        load_checks(path)
    path.write_text("tasks: {'2': {upstream: {kind: unheard_of}}}")
    with pytest.raises(ScoringError, match=r"tasks\.2\.upstream"):
        load_checks(path)


def test_one_of_several_will_do() -> None:
    """Task 59's picture may have the name that was asked for, or the one that upstream looks for."""
    check = load_checks()["59"].check("strict")
    assert check is not None
    png, txt = file_checks(check)
    drawn = {"width": 400, "height": 300, "n_colours": 900, "top_share": 0.5, "differences": []}
    gone = {"problem": "no such file"}
    assert judge(check, None, {facts_key(png): gone, facts_key(txt): gone}).passed is False
    one = judge(check, None, {facts_key(png): gone, facts_key(txt): drawn})
    other = judge(check, None, {facts_key(png): drawn, facts_key(txt): gone})
    assert one.passed, one.reason
    assert other.passed, other.reason
