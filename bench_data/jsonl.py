"""Your own benchmark: `jsonl:FILE`, a sample on each line.

    {"id": "total", "messages": [{"role": "user", "content": "Add up data/a.csv. End with Answer: N"}],
     "files": [{"path": "data/a.csv", "source": "a.csv"}], "category": "sums",
     "check": {"kind": "answer_number", "value": 42},
     "reference": {"cells": ["print(42)"], "answer": "Answer: {last_line}"}}

(on one line). `id` and `messages` are required. A file comes from `source`, relative to the JSONL file,
or from `text`. Checks are those of bench_data/checks.py. `profile`, `setup` and `workspace` say which
sandbox the sample needs (bench_data/sample.py); a workspace is relative to the JSONL file too. Unknown keys
are errors, and so is a source or a workspace that is not there: the file is yours, so a hole in it is a
mistake and not a fact of upstream.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bench_data.checks import Check
from bench_data.digest import samples_digest
from bench_data.errors import MissingDataError, SampleError
from bench_data.sample import Benchmark, Sample, SampleFile, Samples, Solution

WORKSPACE_NAME = "workspace"
"""Where sandboxes show a sample's workspace, in the working directory."""


class _RowModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _MessageRow(_RowModel):
    role: Literal["system", "user", "assistant"]
    content: str


class _FileRow(_RowModel):
    path: str
    source: str | None = None
    text: str | None = None


class _SolutionRow(_RowModel):
    cells: list[str] = Field(min_length=1)
    answer: str


class _SampleRow(_RowModel):
    id: str
    messages: list[_MessageRow] = Field(min_length=1)
    category: str = ""
    files: list[_FileRow] = []
    check: Check | None = None
    reference: _SolutionRow | None = None
    decoy: _SolutionRow | None = None
    metadata: dict[str, JsonValue] = {}
    profile: str | None = Field(default=None, min_length=1)
    setup: str | None = Field(default=None, min_length=1)
    workspace: str | None = Field(default=None, min_length=1)


def load(path: Path, *, spec: str) -> Benchmark:
    """Return the samples of a JSONL file as a benchmark called `spec`.

    Raises:
        MissingDataError: the file is not there.
        SampleError: a line is not usable; the message names the file, the line and the key.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; jsonl:FILE needs a file with a sample on each line")
    file = _TaskFile(path)
    digest = samples_digest(file.read_all(), path.parent.absolute())
    if not file.ids:
        raise SampleError(f"{path}: holds no samples; write a JSON object on each line")
    samples = Samples(file.ids, file.sample, profile_of=file.profile_of, checked=file.checked)
    return Benchmark(name=spec, samples=samples, protocol="fenced", digest=digest)


class _TaskFile:
    """A file of samples that keeps none of them: where each line begins, and what is asked of all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.absolute()
        self._state = _state(self._file)
        self._offsets = array("Q")
        self._numbers = array("Q")
        self.ids: list[str] = []
        self.profile_of: dict[str, str] = {}
        self.checked: set[str] = set()

    def read_all(self) -> Iterator[Sample]:
        """Yield all samples and remember where they are. Raises SampleError."""
        index_of: dict[str, int] = {}
        for offset, number, line in _lines(self._path):
            sample = self._parsed(line, number)
            if sample.id in index_of:
                where, first = f"{self._path}:{number}", self._numbers[index_of[sample.id]]
                _refuse(where, "id", f"{sample.id!r} is already on line {first}; ids must differ")
            index_of[sample.id] = len(self.ids)
            self._offsets.append(offset)
            self._numbers.append(number)
            self.ids.append(sample.id)
            if sample.profile is not None:
                self.profile_of[sample.id] = sample.profile
            if sample.check is not None:
                self.checked.add(sample.id)
            yield sample

    def sample(self, index: int) -> Sample:
        """Return a sample again. Raises SampleError when the file has changed."""
        if _state(self._file) != self._state:
            raise SampleError(f"{self._path} was changed while it was in use; begin the run again")
        with self._file.open("rb") as stream:
            stream.seek(self._offsets[index])
            raw = stream.readline()
        number = self._numbers[index]
        return self._parsed(_decoded(raw, self._path, number), number)

    def _parsed(self, line: str, number: int) -> Sample:
        where = f"{self._path}:{number}"
        return _sample(_parse(line, where), self._file, where)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the lines that are not blank, with the byte at which each begins and its number from 1."""
    offset = 0
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            line = _decoded(raw, path, number)
            if line.strip():
                yield offset, number, line
            offset += len(raw)


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise SampleError(f"{path}:{number}: not UTF-8 at byte {error.start} of the line") from error


def _parse(line: str, where: str) -> _SampleRow:
    try:
        data = json.loads(line.strip(), object_pairs_hook=_object, parse_constant=_no_constant)
        if not isinstance(data, dict):
            raise ValueError(f"a line must be a JSON object, not {line.strip()!r:.80}")
        return _SampleRow.model_validate(data)
    except json.JSONDecodeError as error:
        raise SampleError(
            f"{where}: not JSON at column {error.colno}: {error.msg} (one object per line)"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "line"
        raise SampleError(f"{where}: {key}: {first['msg']} (got {first['input']!r:.80})") from error
    except (ValueError, RecursionError) as error:  # from the two hooks, a huge integer, deep nesting
        raise SampleError(f"{where}: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key}: the key is there twice; remove one")
        if not isinstance(value, dict) and not _is_text(key, value):
            raise ValueError(f"{key}: holds half of a surrogate pair, which no file can; got {value!r:.80}")
        result[key] = value
    return result


def _is_text(*values: Any) -> bool:
    """Tell whether the strings can be encoded: JSON's escapes can write what UTF-8 cannot."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON; use a number or null")


def _sample(row: _SampleRow, tasks: Path, where: str) -> Sample:
    try:
        return Sample(
            id=row.id,
            messages=tuple({"role": message.role, "content": message.content} for message in row.messages),
            category=row.category,
            files=_files(row, tasks.parent, where),
            check=row.check,
            reference=_solution(row.reference),
            decoy=_solution(row.decoy),
            metadata=row.metadata,
            profile=row.profile,
            setup=row.setup,
            workspace=_workspace(row.workspace, tasks, where),
        )
    except SampleError as error:
        raise error if str(error).startswith(where) else SampleError(f"{where}: id: {error}") from error


def _files(row: _SampleRow, folder: Path, where: str) -> tuple[SampleFile, ...]:
    files: dict[str, SampleFile] = {}
    for index, file in enumerate(row.files):
        key = f"files.{index}"
        path = _sandbox_path(file.path, where, f"{key}.path")
        if path in files:
            _refuse(where, f"{key}.path", f"{file.path!r} is in files already; each needs a path of its own")
        if row.workspace is not None and path.split("/")[0] == WORKSPACE_NAME:
            _refuse(
                where, f"{key}.path", f"{file.path!r} is where the workspace is seen; choose another path"
            )
        files[path] = SampleFile(path, _content(file, folder, where, key))
    return tuple(files.values())


def _workspace(name: str | None, tasks: Path, where: str) -> Path | None:
    if name is None:
        return None
    folder = tasks.parent.absolute() / name
    problem = None
    if not _is_readable(folder, is_folder=True):
        problem = f"{folder} is not a readable folder; workspaces are relative to {tasks.parent}"
    elif tasks.resolve().is_relative_to(folder.resolve()):
        problem = f"{folder} holds {tasks.name} with its checks and solutions; choose a folder of its own"
    if problem is not None:
        _refuse(where, "workspace", problem)
    return folder


def _sandbox_path(path: str, where: str, key: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        _refuse(where, key, f"{path!r} must be a file below the working directory, such as data/a.csv")
    return "/".join(parts)


def _content(row: _FileRow, folder: Path, where: str, key: str) -> Any:
    if (row.source is None) == (row.text is None):
        _refuse(where, key, f"{row.path!r} needs one of source (a file) and text, and not both")
    if row.text is not None:
        return partial(row.text.encode, "utf-8")
    source = folder / str(row.source)
    if not _is_readable(source, is_folder=False):
        _refuse(where, f"{key}.source", f"{source} is not a readable file; sources are relative to {folder}")
    return source


def _is_readable(path: Path, *, is_folder: bool) -> bool:
    try:
        if is_folder:
            return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:  # a name that is too long, a folder above that may not be entered
        return False


def _solution(row: _SolutionRow | None) -> Solution | None:
    return None if row is None else Solution(tuple(row.cells), row.answer)


def _refuse(where: str, key: str, problem: str) -> NoReturn:
    raise SampleError(f"{where}: {key}: {problem}")
