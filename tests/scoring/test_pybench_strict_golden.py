"""Profile `strict` on the authors' recorded runs: each task that it takes from upstream's has its reason."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring.checks import judge
from scoring.facts import INSIDE
from scoring.pybench.tasks import load_checks
from scoring.requests import facts_key, file_checks, request_of

pytestmark = pytest.mark.data

HEAD = "recorded on the input at head, which is not the original"
LEFT_OUT = "the file is not in the stored copy"
NO_REPLY = "the last message is output of code, or code that was cut off"
COPY = "the input itself"

TAKEN = {
    "gpt4turbo": {
        "4": HEAD, "79": HEAD, "94": HEAD, "129": LEFT_OUT, "140": LEFT_OUT, "133": NO_REPLY,
        "141": LEFT_OUT,
        "27": "NBC alone, with twice its games, where CBS has as many",
    },
    "PyLlama3": {
        "4": HEAD, "79": HEAD, "94": HEAD, "103": LEFT_OUT, "147": LEFT_OUT, "36": NO_REPLY, "138": NO_REPLY,
        "141": "a page without a script",
        "8": COPY, "90": COPY, "124": COPY, "91": "a grey copy", "107": "the second picture covers the first",
        "27": "ABC, which has the fewest", "30": "one clinic of two", "32": "53 rows of 52 games",
        "110": "a blue title", "118": "the title in place of the text", "119": "no code that can be read",
    },
    "PyLlama3_only_codefb": {
        "143": "a heading alone",
        "4": HEAD, "79": HEAD, "94": HEAD, "103": LEFT_OUT, "73": NO_REPLY, "8": COPY, "90": COPY,
        "91": "a grey copy", "37": "it asks for the file", "71": "an empty picture", "75": "43 characters",
        "84": "stretched to a square", "109": "question marks on black", "118": "the title in place of the text",
        "119": "no code", "139": "another function",
    },
}  # fmt: skip
GIVEN = {
    "gpt4turbo": {"11", "20", "21", "32", "53", "54", "74", "83", "99"},
    "PyLlama3": {"11", "20", "83"},
    "PyLlama3_only_codefb": {"11", "74", "77", "99"},
}
"""Right results that upstream's tests fail."""


@pytest.fixture
def facts_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any], Path], str]]:
    """The readers' entry point, in this process."""
    for module in ("cv2", "mutagen", "pymupdf", "soundfile"):
        pytest.importorskip(module, reason="what PyBench needs is not installed: make install-pybench")
    monkeypatch.syspath_prepend(INSIDE)
    before = set(sys.modules)
    yield importlib.import_module("extract").facts_json
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(INSIDE)):
            del sys.modules[name]


def lay_out(data: Path, run: str, folder: Path) -> dict[str, str | None]:
    """Put a run's outputs and the original inputs into a folder; return the final replies by task."""
    shutil.copytree(data / "golden" / run / "output", folder / "output")
    shutil.copytree(data / "data", folder / "data", copy_function=shutil.copy)
    folder.joinpath("data").chmod(0o755)
    for file in (data / "data_pristine").iterdir():
        (folder / "data" / file.name).unlink(missing_ok=True)
        shutil.copy(file, folder / "data")
    replies: dict[str, str | None] = {}
    for line in (data / "golden" / run / "trajectory.jsonl").read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        last = (task.get("messages") or [{"role": "", "content": ""}])[-1]
        is_reply = last["role"] == "assistant" and "```python" not in last["content"]
        replies[task["index"]] = last["content"] if is_reply else None
    return replies


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", TAKEN)
def test_what_differs_has_a_reason(
    run: str, kernelfleet_data: Path, tmp_path: Path, facts_json: Callable[[dict[str, Any], Path], str]
) -> None:
    """No sound result of a recorded run is failed; what upstream's tests passed by luck is."""
    data = kernelfleet_data / "pybench"
    replies = lay_out(data, run, tmp_path)
    results = json.loads((data / "golden_results.json").read_text())["runs"][run]["results"]
    names = sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "output").rglob("*") if path.is_file()
    )
    taken, given = {}, set()
    for index, checks in load_checks().items():
        check = checks.check("strict")
        if check is None:
            continue
        facts = {
            facts_key(part): json.loads(facts_json(request_of(part), tmp_path))
            if part.is_read
            else {"files": names}
            for part in file_checks(check)
        }
        verdict = judge(check, replies.get(index), facts)
        if results[index] == "Pass" and not verdict.passed:
            taken[index] = verdict.reason
        if results[index] != "Pass" and verdict.passed:
            given.add(index)
    assert set(taken) == set(TAKEN[run]), taken
    assert given == GIVEN[run]
