"""The kinds of upstream's checks, as data.

They are what its unit tests at github.com/Mercury7353/PyBench fa90fae (`data/unit_test/tests.py`) look at,
defects included.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench_data.checks import AnswerCheckModel, FileCheckModel


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
