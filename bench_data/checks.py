"""The kinds of checks, as data: what a right answer or a right output file looks like.

A check is written in a sample (of quickstart, or a line of a `jsonl:` benchmark) and judged by
`scoring`. Checks of files are judged in two steps: a sandbox reads the untrusted file and reports
facts, and a pure function outside compares the facts with what the check expects. What a check
expects never enters a sandbox, so that no code there can pass by printing it.

Every kind is strict: an unknown key is an error that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from bench_data.errors import SampleError


class CheckModel(BaseModel):
    """What all kinds have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class FileCheckModel(CheckModel):
    """A check of an output file. `asks` are the fields that say how it is read, and enter a sandbox."""

    asks: ClassVar[frozenset[str]] = frozenset()
    reader: ClassVar[str] = ""
    """Who reads it, where that is not called as the kind is."""

    is_read: ClassVar[bool] = True
    """Whether the file's content matters; else its name alone does."""

    folder_suffixes: ClassVar[tuple[str, ...]] = ()
    """The endings of the files that are read, where `path` is a folder; empty: it is a file."""

    path: str
    """Relative to the working directory, for example `output/report.csv`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All output files that are read together."""
        return (self.path,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input files that it is compared with."""
        return ()


class AnswerCheckModel(CheckModel):
    """A check of the final reply."""


class CompoundCheck(CheckModel):
    """Several checks, all of which have to pass, or one of which."""

    needs_all: ClassVar[bool] = True

    checks: Sequence[Any]


class AnswerNumber(AnswerCheckModel):
    """The final answer is this number: the last one in the line of the answer; `1,234.5` is one number.

    That line is the first one after the last `Answer:` that is not blank, else the last one of the reply.
    """

    kind: Literal["answer_number"] = "answer_number"
    value: float
    abs_tol: float = 0.0
    rel_tol: float = 1e-9


class AnswerText(AnswerCheckModel):
    """The final answer is one of these words, compared without case and final full stop.

    White space, quotes, `*` and backticks around it do not count either.
    """

    kind: Literal["answer_text"] = "answer_text"
    accept: list[str] = Field(min_length=1)


class AnswerJson(AnswerCheckModel):
    """The final answer is this JSON value; numbers within the tolerance, lists in order."""

    kind: Literal["answer_json"] = "answer_json"
    value: JsonValue
    abs_tol: float = 1e-9


class TableFile(FileCheckModel):
    """A table holds these rows: an XLSX file, or text with commas (CSV) or tabs (TSV), by the file's suffix.

    A formula in an XLSX file counts as the value that was saved with it, as null where there is none.
    """

    asks = frozenset({"sheet"})

    kind: Literal["table_file"] = "table_file"
    columns: list[str] = Field(min_length=1)
    rows: list[list[JsonValue]]
    """A cell is a number, a string, a bool or null. Dates are compared as `YYYY-MM-DD` strings."""

    ordered: bool = True
    """Whether the order of the rows counts. That of the columns always does."""

    abs_tol: float = 1e-6
    sheet: str | None = None


class JsonFile(FileCheckModel):
    """A JSON file holds this value; numbers within the tolerance, lists in order, keys in any order."""

    kind: Literal["json_file"] = "json_file"
    value: JsonValue
    abs_tol: float = 1e-9


class TextFile(FileCheckModel):
    """A UTF-8 text file holds exactly these lines.

    White space at the end of a line and blank lines at the end of the file do not count.
    """

    kind: Literal["text_file"] = "text_file"
    lines: list[str]


class ImageFile(FileCheckModel):
    """A picture has this size, and these mean colours in a grid laid over it."""

    asks = frozenset({"frame", "grid_columns", "grid_rows"})

    kind: Literal["image_file"] = "image_file"
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    format: str | None = None
    """Pillow's name: `PNG`, `JPEG`, `GIF`, ..."""

    n_frames: int | None = Field(default=None, ge=1)
    n_repeats: int | None = Field(default=None, ge=0)
    """How often an animated GIF begins anew; 0: for ever."""

    frame: int = Field(default=0, ge=0)
    """The frame that this and what follows is about, counted from 0."""

    frame_ms: int | None = Field(default=None, ge=0)
    """How long it is shown."""

    grid_columns: int = Field(default=1, ge=1, le=64)
    grid_rows: int = Field(default=1, ge=1, le=64)
    grid_rgba: list[tuple[float, float, float, float]] | None = None
    """Mean R, G, B, A (0 to 255) of each grid field, row by row; length grid_rows * grid_columns."""

    tol: float = 3.0
    """The largest difference allowed in any channel of any grid field."""

    min_colours: int = 1
    """A chart has more than a blank page: at least so many distinct colours."""


class AudioSegment(CheckModel):
    """What a stretch of a sound is like, on one channel."""

    start_s: float
    end_s: float
    channel: int = 0
    rms_dbfs: float | None = None
    """Root mean square relative to full scale, in dB. All of -90 and below is silence, and equal."""

    dominant_hz: float | None = None


class AudioFile(FileCheckModel):
    """A WAV file (PCM, 8 to 32 bits) has this format, duration and content."""

    kind: Literal["audio_file"] = "audio_file"
    sample_rate_hz: int | None = None
    n_channels: int | None = None
    sample_width_bytes: int | None = None
    duration_s: float | None = None
    duration_tol_s: float = 0.01
    segments: list[AudioSegment] = []
    rms_tol_db: float = 0.5
    hz_tol: float = 5.0


class SqliteQuery(FileCheckModel):
    """A query on an SQLite file gives these rows, in order."""

    asks = frozenset({"query"})

    kind: Literal["sqlite_query"] = "sqlite_query"
    query: str
    rows: list[list[JsonValue]]
    abs_tol: float = 1e-6


class PythonCall(CheckModel):
    """One call of a function and what it must return (as JSON), or raise (the exception's name)."""

    function: str
    args: list[JsonValue] = []
    kwargs: dict[str, JsonValue] = {}
    returns: JsonValue = None
    raises: str | None = None


class PythonCalls(FileCheckModel):
    """A Python module's functions return these values. Tuples and sets count as (sorted) lists."""

    kind: Literal["python_calls"] = "python_calls"
    calls: list[PythonCall] = Field(min_length=1)
    abs_tol: float = 1e-9


class CommandRun(CheckModel):
    """One run of a program."""

    argv: list[str] = []
    stdin: str = ""
    stdout_lines: list[str]
    exit_code: int = 0


class CommandRuns(FileCheckModel):
    """A Python program, run with these arguments and input, prints these lines.

    White space at the end of a line and blank lines at the end do not count.
    """

    kind: Literal["command_runs"] = "command_runs"
    runs: list[CommandRun] = Field(min_length=1)


class HtmlElement(CheckModel):
    """An element that a page must have: same tag, these attributes, this text (white space folded).

    Its `class` has at least these classes; `method` and `type` are compared without case, as HTML does;
    every other attribute is equal.
    """

    tag: str
    attributes: dict[str, str] = {}
    text: str | None = None
    within: str | None = None
    """The tag of an element around it, at any depth."""

    count: int | None = None
    """How many such elements there must be; None: at least one."""


class HtmlFile(FileCheckModel):
    """An HTML page has these elements."""

    kind: Literal["html_file"] = "html_file"
    elements: list[HtmlElement] = Field(min_length=1)
    ordered: bool = False
    """Whether each begins after the one before it in this list, or is the same element."""


class AllOf(CompoundCheck):
    """All of several checks pass."""

    kind: Literal["all_of"] = "all_of"
    checks: list[Check] = Field(min_length=1)


FileCheck = (
    TableFile
    | JsonFile
    | TextFile
    | ImageFile
    | AudioFile
    | SqliteQuery
    | PythonCalls
    | CommandRuns
    | HtmlFile
)
AnswerCheck = AnswerNumber | AnswerText | AnswerJson
Check = Annotated[AnswerCheck | FileCheck | AllOf, Field(discriminator="kind")]

AllOf.model_rebuild()
_ADAPTER: TypeAdapter[Check] = TypeAdapter(Check)


def parse_check(data: Any) -> Check:
    """Return the check that a mapping describes. Raises SampleError that names the key."""
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "check"
        raise SampleError(f"check: {where}: {first['msg']}") from error


def output_paths(check: CheckModel) -> list[str]:
    """Return the files that a check reads, each once, in the order of the check."""
    if isinstance(check, CompoundCheck):
        return list(dict.fromkeys(path for part in check.checks for path in output_paths(part)))
    return list(check.paths) if isinstance(check, FileCheckModel) else []
