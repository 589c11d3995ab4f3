"""The kinds of PyBench's checks, as data, and the checks of its 143 tasks.

The kinds in this module are upstream's: what its unit tests at github.com/Mercury7353/PyBench fa90fae
(`data/unit_test/tests.py`) look at, defects included. Those that are strict are in
`pybench_strict_checks`. Each task has a check in both profiles; where they differ, it says why.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from bench_data.checks import AnswerCheckModel, CompoundCheck, FileCheck, FileCheckModel
from scoring.errors import ScoringError
from scoring.pybench_strict_checks import StrictCheck

CHECKS = Path(__file__).with_name("pybench_checks.yaml")

Profile = Literal["upstream", "strict"]


class LastMessageContains(AnswerCheckModel):
    """The text has one string of each list, wherever it stands."""

    kind: Literal["last_message_contains"] = "last_message_contains"
    all_of: list[list[str]] = Field(min_length=1)


class AlwaysFails(AnswerCheckModel):
    """Upstream's test raises whatever it is given."""

    kind: Literal["always_fails"] = "always_fails"


class AlwaysPasses(AnswerCheckModel):
    """Upstream's test asserts nothing."""

    kind: Literal["always_passes"] = "always_passes"


class PathsExist(FileCheckModel):
    """There are files or folders of these names, whatever is in them."""

    is_read = False

    kind: Literal["paths_exist"] = "paths_exist"
    more: tuple[str, ...] = ()


class FolderHas(FileCheckModel):
    """A folder holds a file whose name ends like this."""

    is_read = False

    kind: Literal["folder_has"] = "folder_has"
    suffix: str


class _Frame(FileCheckModel):
    """A table as pandas reads it."""

    reader = "frame"


class CsvNoNulls(_Frame):
    """No cell is null."""

    kind: Literal["csv_no_nulls"] = "csv_no_nulls"


class CsvNoDuplicateRows(_Frame):
    """No row is there twice."""

    kind: Literal["csv_no_duplicate_rows"] = "csv_no_duplicate_rows"


class CsvNoNullsNoDuplicateRows(_Frame):
    """Neither."""

    kind: Literal["csv_no_nulls_no_duplicate_rows"] = "csv_no_nulls_no_duplicate_rows"


class CsvRowCount(_Frame):
    """It has so many rows below its header."""

    kind: Literal["csv_row_count"] = "csv_row_count"
    rows: int


class CsvSortedBy(_Frame):
    """Sorting it changes nothing; with one column by pandas' quicksort, which may swap equal rows."""

    asks = frozenset({"by", "ascending"})

    kind: Literal["csv_sorted_by"] = "csv_sorted_by"
    by: list[str]
    ascending: list[bool]


class CsvNoIqrOutliers(_Frame):
    """No float64 or integer lies further than `k` interquartile ranges from its column's quartiles."""

    asks = frozenset({"k"})

    kind: Literal["csv_no_iqr_outliers"] = "csv_no_iqr_outliers"
    k: float


class CsvColumnParsesAsDates(_Frame):
    """pandas reads each cell of a column as a date."""

    asks = frozenset({"column"})

    kind: Literal["csv_column_parses_as_dates"] = "csv_column_parses_as_dates"
    column: str


class NoNumericTextColumns(FileCheckModel):
    """No text column of the tables is one of numbers, less `,` and less cells that are `$`."""

    asks = frozenset({"more"})
    reader = "frames"

    kind: Literal["no_numeric_text_columns"] = "no_numeric_text_columns"
    more: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (self.path, *self.more)


class PickleLoads(FileCheckModel):
    """A pickle is whole, and what it names could be imported where upstream's tests ran."""

    reader = "pickle"

    kind: Literal["pickle_loads"] = "pickle_loads"


class ImageSize(FileCheckModel):
    """A picture has this size."""

    reader = "picture"

    kind: Literal["image_size"] = "image_size"
    width: int
    height: int


class ImageSquare(FileCheckModel):
    """A picture is as wide as high."""

    reader = "picture"

    kind: Literal["image_square"] = "image_square"


class ImageMode(FileCheckModel):
    """A picture has this mode, as Pillow calls it."""

    reader = "picture"

    kind: Literal["image_mode"] = "image_mode"
    mode: str


class ImageDarkShare(FileCheckModel):
    """More than this share of the pixels is as dark as `level` in grey (0 to 255), or darker."""

    asks = frozenset({"level"})
    reader = "picture_shares"

    kind: Literal["image_dark_share"] = "image_dark_share"
    level: int
    share: float


class _Compared(FileCheckModel):
    ref: str
    """An input file."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one that it is compared with."""
        return (self.ref,)


class ImageStatistic(_Compared):
    """A number about a picture is less, or more, than that of an input."""

    asks = frozenset({"ref", "statistic"})
    reader = "picture_statistic"

    kind: Literal["image_statistic"] = "image_statistic"
    statistic: Literal["gray_mean", "gray_std", "hsv_s_mean", "gray_laplacian_var"]
    is_more: bool


class ImageSimilar(_Compared):
    """Undone, a picture is an input, by upstream's measure: uint8 differences that wrap around."""

    asks = frozenset({"ref", "undo", "tolerance"})
    reader = "picture_similarity"

    kind: Literal["image_similar"] = "image_similar"
    undo: Literal["rotate_270", "rotate_180", "flip_left_right"]
    """Counter-clockwise, in degrees, with the picture's frame turned as well."""

    min_similarity: float
    """Share of the pixels all of whose channels differ by `tolerance` at most."""

    tolerance: float


class ImagePartsAspect(_Compared):
    """Side by side, the parts have an input's aspect ratio."""

    asks = frozenset({"ref", "more"})
    reader = "picture_parts"

    kind: Literal["image_parts_aspect"] = "image_parts_aspect"
    more: tuple[str, ...]
    tolerance: float

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (self.path, *self.more)


class WavLouder(_Compared):
    """A WAV file has a higher level than an input."""

    asks = frozenset({"ref"})
    reader = "wav_levels"

    kind: Literal["wav_louder"] = "wav_louder"


class Mp3ReplaygainLower(_Compared):
    """Both MP3 files have a ReplayGain tag, and that of the input is higher."""

    asks = frozenset({"ref"})
    reader = "mp3s"

    kind: Literal["mp3_replaygain_lower"] = "mp3_replaygain_lower"


class Mp3Shorter(_Compared):
    """An MP3 file is shorter than an input."""

    asks = frozenset({"ref"})
    reader = "mp3s"

    kind: Literal["mp3_shorter"] = "mp3_shorter"


UpstreamCheck = Annotated[
    LastMessageContains
    | AlwaysFails
    | AlwaysPasses
    | PathsExist
    | FolderHas
    | CsvNoNulls
    | CsvNoDuplicateRows
    | CsvNoNullsNoDuplicateRows
    | CsvRowCount
    | CsvSortedBy
    | CsvNoIqrOutliers
    | CsvColumnParsesAsDates
    | NoNumericTextColumns
    | PickleLoads
    | ImageSize
    | ImageSquare
    | ImageMode
    | ImageDarkShare
    | ImageStatistic
    | ImageSimilar
    | ImagePartsAspect
    | WavLouder
    | Mp3ReplaygainLower
    | Mp3Shorter,
    Field(discriminator="kind"),
]
AnyCheck = Annotated[UpstreamCheck | StrictCheck | FileCheck, Field(discriminator="kind")]


class AllOf(CompoundCheck):
    """All of several checks pass."""

    kind: Literal["all_of"] = "all_of"
    checks: list[AnyCheck] = Field(min_length=1)


class AnyOf(CompoundCheck):
    """One of several checks passes."""

    needs_all = False

    kind: Literal["any_of"] = "any_of"
    checks: list[AnyCheck] = Field(min_length=1)


class TaskChecks(BaseModel):
    """How one task is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstream: UpstreamCheck
    strict: Annotated[AnyCheck | AllOf | AnyOf, Field(discriminator="kind")] | None = None
    """None: upstream's, unless the task is excluded."""

    excluded: str | None = None
    """Why `strict` leaves the task out."""

    flaw: str | None = None
    """What is wrong with upstream's check: the reason why the profiles differ."""

    needs_internet: bool = False

    is_solved_at_head: bool = False
    """Whether its input at head is what upstream's own agent made of it: copying that is no solution."""

    def check(self, profile: Profile) -> UpstreamCheck | AnyCheck | AllOf | AnyOf | None:
        """Return the check of a profile; None when that leaves the task out."""
        if profile == "upstream":
            return self.upstream
        return None if self.excluded else self.strict or self.upstream

    @property
    def differs(self) -> bool:
        """Whether the profiles judge it differently."""
        return self.strict is not None or self.excluded is not None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, TaskChecks]


@cache
def load_checks(path: Path = CHECKS) -> dict[str, TaskChecks]:
    """Return the checks of all tasks, by their index. Blocks. Raises ScoringError that names the key."""
    data = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    try:
        tasks = _File.model_validate(data).tasks
    except ValidationError as error:
        first = error.errors()[0]
        raise ScoringError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for index, task in tasks.items():
        if task.differs and not (task.flaw or task.excluded):
            raise ScoringError(f"{path}: tasks.{index}: the profiles differ, and `flaw` does not say why")
    return tasks
