"""PyBench: 143 real-world tasks, files in, files out.

Source: github.com/Mercury7353/PyBench at fa90fae (2024-08-06), a checkout of which the user brings
(`data.root`, the folder that holds `data/`). It has no licence, so nothing of it is part of this
project. 143 rows in `data/meta/task.json`; indices run from 2 to 152 with gaps.

Several runs of upstream's own agent were committed with their results written over their inputs:
eleven inputs differ from their first version, and six tasks are solved in them already. The default
`version: pristine` uses the first versions, from `data_pristine/` beside `data/`, or from the
checkout's own git history; `head` uses the files as they are.

The messages of a task are upstream's (`inference.py`): one user message that names the files, one
that asks. The groups of the paper are not in upstream's data; the map below gives sizes that agree
with the paper's percentages.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench_data.digest import samples_digest
from bench_data.errors import MissingDataError, SampleError
from bench_data.loading import DataOptions
from bench_data.sample import Benchmark, Message, Sample, SampleFile, Samples, SkippedSample

TASKS = "data/meta/task.json"
UPLOAD_NOTE = "[INFO]The data is uploaded to "

FIRST_VERSIONS = {
    "data/111.jpeg": "8fcdf4e920188cd48cf080ac311c2d37c17fd4dc",
    "data/79.jpeg": "d33ee52c339d36eab320a2380a14bdc49dcb4821",
    "data/94.jpeg": "5c99179e9f7563fc31ca1b4a98a4db383ae3dc32",
    "data/Turkey_Syria_Earthquake.csv": "2c233d5438b0558853598eb26e692e4e9b89ca94",
    "data/Virat_Kohli_ODI.csv": "bf98e973a1b831be97204f8a496d1c7e68b1100c",
    "data/Week 40 - US Christmas Tree Sales - 2010 to 2016.csv": "4e9acfd7157f4005554a0dcec3a6e8a89d78e915",
    "data/accessories_organizer.csv": "bbc4edc37d05e625e893142061b7c20fec05d9dc",
    "data/tv.csv": "b476f2f42e685462031634ebfdd6e7f73b6f13d0",
    "data/tv.xlsx": "ed734fc500de9178288a41790fcc4cebecbd788a",
    "data/wta_matches_qual_itf_1975.xlsx": "e11d7982820c2fd459a516cb69892c3f96a6fae7",
    "data/yearly_deaths_by_clinic.csv": "93e21f66cf788eeace08f9ad1b44aba291f81620",
}
"""Git blob ids of the inputs that upstream's own runs have changed since, in their first version."""

LOST = {"data/Geoffrey Hinton.pdf": "4f03630d9a3ba02eee4ce0ad8d3e78a8f6157f65"}
"""Git blob ids of inputs that a task names and a later commit removed."""

GROUPS = {
    "简单数据分析处理": "chart",
    "总结分析": "chart",
    "简单机器学习": "chart",
    "文本挖掘": "text",
    "文本挖掘/画图": "chart",
    "文档处理": "text",
    "OCR": "text",
    "网页搜索和爬虫": "text",
    "作图": "image and audio",
    "作图/词云": "text",
    "图片处理": "image and audio",
    "音频处理": "image and audio",
    "数学求解": "math",
    "简单程序开发": "software",
}
"""Upstream's category1 (less its package hints), or category1/category2, to the paper's groups."""


def load(options: DataOptions) -> Benchmark:
    """Return the tasks whose inputs are all there; the others are listed as skipped.

    Raises:
        MissingDataError: no `data.root`, no task.json below it, or, with `data.strict`, missing inputs.
        SampleError: task.json is not what it should be; names the row and the key.
    """
    samples: list[Sample] = []
    skipped: list[SkippedSample] = []
    for sample, problem in all_tasks(options):
        if problem:
            skipped.append(SkippedSample(sample.id, problem))
        else:
            samples.append(sample)
    if skipped and options.strict:
        listed = "\n".join(f"  {sample.id}: {sample.reason}" for sample in skipped)
        raise MissingDataError(f"{len(skipped)} tasks lack inputs, and data.strict is set:\n{listed}")
    return Benchmark(
        name="pybench",
        samples=Samples.of(samples),
        protocol="fenced",
        digest=samples_digest(samples),
        skipped=tuple(skipped),
    )


def all_tasks(options: DataOptions) -> Iterator[tuple[Sample, str | None]]:
    """Yield every task with those of its inputs that are there, and what is wrong with the others.

    Raises:
        MissingDataError: no `data.root`, or no task.json below it.
        SampleError: as `load`.
    """
    if options.root is None:
        raise MissingDataError(
            "pybench needs data.root: the folder of a PyBench checkout, the one that holds data/ "
            "(for example --set data.root=path/to/PyBench)"
        )
    for row in _read_tasks(options.root / TASKS):
        files, problems = _find_inputs(
            options.root, row["file_paths"], pristine=options.version == "pristine"
        )
        yield _sample(row, files), "; ".join(problems) or None


def group_of(category1: str, category2: str) -> str:
    """Return the paper's group of a task, from upstream's categories."""
    name = category1.split("\n")[0].split("（")[0]
    return GROUPS.get(f"{name}/{category2}") or GROUPS.get(name, "other")


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{path} is not there: data.root must be the folder that holds data/"
        ) from error
    except (OSError, ValueError) as error:
        raise SampleError(f"{path}: {error}") from error
    if not isinstance(rows, list):
        raise SampleError(f"{path}: not a list of tasks")
    for number, row in enumerate(rows, start=1):
        _check_row(row, f"{path}: task {number}")
    return rows


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise SampleError(f"{where}: not an object")
    for key, kind in (("index", str), ("user", str), ("file_paths", list)):
        if not isinstance(row.get(key), kind):
            raise SampleError(f"{where}: {key} is {row.get(key)!r}, not a {kind.__name__}")


def _sample(row: Mapping[str, Any], files: tuple[SampleFile, ...]) -> Sample:
    messages: tuple[Message, ...] = (
        {"role": "user", "content": UPLOAD_NOTE + ",".join(row["file_paths"])},
        {"role": "user", "content": row["user"]},
    )
    return Sample(
        id=row["index"],
        messages=messages,
        category=group_of(str(row.get("category1", "")), str(row.get("category2", ""))),
        files=files,
        metadata=row,
    )


def _find_inputs(
    root: Path, file_paths: list[str], *, pristine: bool
) -> tuple[tuple[SampleFile, ...], list[str]]:
    files: list[SampleFile] = []
    problems: list[str] = []
    for file_path in file_paths:
        name = file_path.removeprefix("./")
        if name.startswith("/") or ".." in name.split("/"):
            problems.append(f"{file_path} leaves the working directory")
        elif pristine and name in FIRST_VERSIONS:
            first = _by_blob(root, name, FIRST_VERSIONS[name])
            if first is None:
                problems.append(
                    f"the first version of {name} is neither in data_pristine/ nor in the git history of "
                    f"data.root ({_remedy(root)}; data.version=head runs with what is there)"
                )
            else:
                files.append(SampleFile(name, first))
        elif (root / name).is_file():
            files.append(SampleFile(name, root / name))
        elif name in LOST and (found := _by_blob(root, name, LOST[name])):
            files.append(SampleFile(name, found))
        elif name in LOST:
            problems.append(
                f"{file_path} is neither at head nor in the git history of data.root ({_remedy(root)})"
            )
        else:
            problems.append(f"{file_path} is missing")
    return tuple(files), problems


def _by_blob(root: Path, name: str, blob: str) -> Any:
    """Return the path of a file that is this blob, or what reads it from git; None if there is none."""
    for path in (root / "data_pristine" / Path(name).name, root / name):
        if path.is_file() and git_blob_id(path.read_bytes()) == blob:
            return path
    if not (root / ".git").exists() or _git_blob(root, blob) is None:
        return None
    return lambda: _git_blob(root, blob)


def git_blob_id(content: bytes) -> str:
    """Return the id that git gives to this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@cache
def _git_blob(root: Path, blob: str) -> bytes | None:
    """Return the content of a blob of a checkout's history, or None when it is not there."""
    try:
        shown = _git(root, "cat-file", "blob", blob)
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout


@cache
def _remedy(root: Path) -> str:
    """Return what brings a blob that a checkout's history lacks, or why git shows none of it."""
    if not (root / ".git").exists():
        return "a git clone of PyBench has it"
    try:
        is_shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    except subprocess.CalledProcessError as error:
        return f"git cannot read it: {error.stderr.decode(errors='replace').strip().partition(chr(10))[0]}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"git cannot be run: {error}"
    return "git fetch --unshallow brings it" if is_shallow else "a full clone of PyBench has it"


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, timeout=60, check=True)
