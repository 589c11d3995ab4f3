"""The kinds of PyBench's strict checks, as data: what a right result is like, beyond that a file exists.

Those of answers come first, then tables, then documents, sounds and models; `picture_checks` has
those of pictures.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench_data.checks import AnswerCheckModel, CheckModel, FileCheckModel
from scoring.pybench.picture_checks import (
    Compared,
    PictureAdjusted,
    PictureBlend,
    PictureCrop,
    PictureDrawn,
    PictureEdges,
    PictureForeground,
    PictureHolds,
    PicturePalette,
    PictureTransformed,
    QrCode,
)


class AnswerHas(AnswerCheckModel):
    """The final reply has a word of each list, as a whole word and without case."""

    kind: Literal["answer_has"] = "answer_has"
    all_of: list[list[str]] = Field(min_length=1)
    min_lists: int | None = None
    """Of so many of the lists; None: of each."""


class AnswerFirst(AnswerCheckModel):
    """Of all these words, one of `accept` comes first in the final reply."""

    kind: Literal["answer_first"] = "answer_first"
    accept: list[str] = Field(min_length=1)
    others: list[str] = Field(min_length=1)


class AnswerChoice(AnswerCheckModel):
    """The conclusion, or its last line, names exactly one of several options: a decision, whichever it is."""

    kind: Literal["answer_choice"] = "answer_choice"
    options: list[list[str]] = Field(min_length=2)
    """Each with the words for it."""


class AnswerStates(AnswerCheckModel):
    """The final reply matches one of these regular expressions, and none of those; case does not count."""

    kind: Literal["answer_states"] = "answer_states"
    any_of: list[str] = Field(min_length=1)
    none_of: tuple[str, ...] = ()


class AnswerFormula(AnswerCheckModel):
    """The final reply has one of these formulas as a whole; LaTeX, `**` and white space are made equal."""

    kind: Literal["answer_formula"] = "answer_formula"
    any_of: list[str] = Field(min_length=1)


class Figure(CheckModel):
    """Numbers that come in this order, behind a label that may itself be behind another one."""

    values: list[float] = Field(min_length=1)
    tol: float = 0.0
    after: tuple[list[str], ...] = ()
    """The outer label first; each has its synonyms. Empty: anywhere in the reply."""

    is_share: bool = False
    """Whether `50 %` is 0.5."""


class AnswerFigures(AnswerCheckModel):
    """The final reply has all the numbers of one of these lists; `1,234` is one number, `5/2` is 2.5."""

    kind: Literal["answer_figures"] = "answer_figures"
    any_of: list[list[Figure]] = Field(min_length=1)


class RowsOfInput(Compared):
    """A table has rows of an input: so many, of these columns, each known by the same values."""

    asks = frozenset({"ref", "by", "order_by", "ascending", "k", "sigma"})
    reader = "rows"

    kind: Literal["rows_of_input"] = "rows_of_input"
    by: tuple[str, ...] = ()
    """The columns by which a row is known. Empty: all of the input's."""

    columns: tuple[str, ...] = ()
    """Those that the table must have. Empty: all of the input's."""

    numeric: tuple[str, ...] = ()
    """Columns that must be numbers."""

    rows: tuple[int, ...] = ()
    """The counts of rows that are right. Empty: any from min_rows on."""

    min_rows: int = 1
    min_columns: int = 1
    max_unknown: int = 0
    """How many rows may have values that no row of the input has."""

    is_unique: bool = False
    """Whether no two rows may be known by the same values."""

    has_no_nulls: bool = False
    order_by: tuple[str, ...] = ()
    ascending: tuple[bool, ...] = ()
    k: float | None = None
    """No number is further than so many interquartile ranges from the quartiles of the input's column."""

    sigma: float | None = None
    """Nor, where that is further, so many standard deviations from its mean."""


class DatesOfInput(Compared):
    """Every cell of a column is the input's date as YYYY-MM-DD, in the input's order or another one."""

    asks = frozenset({"ref", "column", "format"})
    reader = "dates"

    kind: Literal["dates_of_input"] = "dates_of_input"
    column: str
    format: str
    """How the input writes them, as strptime has it."""


class JsonLines(FileCheckModel):
    """Each line is a JSON object with these keys, all of them text; some values are one of a few."""

    asks = frozenset({"keys"})
    reader = "json_lines"

    kind: Literal["json_lines"] = "json_lines"
    keys: list[str] = Field(min_length=1)
    accept: dict[str, list[str]] = Field(default_factory=dict)
    min_lines: int = 1


class DocumentText(FileCheckModel):
    """A PDF, DOCX or XLSX file has so much text, with so many of these words; a PDF shows an input."""

    asks = frozenset({"ref"})
    reader = "document"

    kind: Literal["document_text"] = "document_text"
    words: tuple[str, ...] = ()
    min_words: int = 0
    """How many of them it must have, without case."""

    min_chars: int = 0
    min_pages: int = 1
    ref: str | None = None
    """A picture that one of its pages must show."""

    min_score: float = 0.8

    @property
    def inputs(self) -> tuple[str, ...]:
        """The picture."""
        return (self.ref,) if self.ref is not None else ()


class FilmOfInput(Compared):
    """A film has about as many frames as an animated input, of its size, and its first looks the same."""

    asks = frozenset({"ref"})
    reader = "film"

    kind: Literal["film_of_input"] = "film_of_input"
    min_frames_share: float = 0.5
    tol: float = 40.0


class SoundOfInputs(FileCheckModel):
    """A sound in a format has a length and a level that follow from the inputs'."""

    asks = frozenset({"refs"})
    reader = "sound"

    kind: Literal["sound_of_inputs"] = "sound_of_inputs"
    refs: tuple[str, ...] = Field(min_length=1)
    format: Literal["WAV", "MP3"]
    length: Literal["first", "sum", "one_of", "fixed"] = "first"
    duration_s: float | None = None
    """Where it is fixed."""

    shorter_by_s: float = 1.5
    longer_by_s: float = 1.5
    """What it may differ by."""

    min_gain_db: float | None = None
    max_gain_db: float | None = None
    max_level_dbfs: float | None = None
    min_level_dbfs: float = -60.0
    min_correlation: float | None = None
    """Of its loudness over time with that of the first input, from the start."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """All of them."""
        return self.refs


class FittedModel(FileCheckModel):
    """A pickle, which may be joblib's, names one of these modules or classes; sklearn's has been fitted."""

    reader = "model"

    kind: Literal["fitted_model"] = "fitted_model"
    any_of: list[str] = Field(min_length=1)


class PageFolder(FileCheckModel):
    """A folder holds a web page with so much text, of these words, and of script."""

    reader = "folder"
    folder_suffixes = (".html", ".htm", ".css", ".js")

    kind: Literal["page_folder"] = "page_folder"
    min_text_chars: int = 0
    words: tuple[str, ...] = ()
    min_words: int = 0
    min_script_chars: int = 0
    """Within the page and the files of the folder that it links."""


class ProgramFolder(FileCheckModel):
    """A folder holds a Python program that parses, is no stub, and imports one of these packages."""

    reader = "folder"
    folder_suffixes = (".py",)

    kind: Literal["program_folder"] = "program_folder"
    imports: list[str] = Field(min_length=1)
    min_nodes: int = 150
    """Of its syntax tree."""


class FolderFiles(FileCheckModel):
    """A folder holds so many files whose names end like this."""

    is_read = False

    kind: Literal["folder_files"] = "folder_files"
    suffixes: list[str] = Field(min_length=1)
    min_files: int = 1


StrictCheck = Annotated[
    AnswerHas
    | AnswerFirst
    | AnswerChoice
    | AnswerStates
    | AnswerFormula
    | AnswerFigures
    | RowsOfInput
    | DatesOfInput
    | JsonLines
    | PictureDrawn
    | PictureTransformed
    | PictureCrop
    | PictureAdjusted
    | PictureHolds
    | PictureBlend
    | PicturePalette
    | PictureEdges
    | PictureForeground
    | QrCode
    | DocumentText
    | FilmOfInput
    | SoundOfInputs
    | FittedModel
    | PageFolder
    | ProgramFolder
    | FolderFiles,
    Field(discriminator="kind"),
]
