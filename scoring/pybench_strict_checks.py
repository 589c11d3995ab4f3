"""The kinds of PyBench's strict checks, as data: what a right result is like, beyond that a file exists.

Those of answers come first, then tables, pictures, and documents, sounds and models. A picture is compared
with an input after both were made small, so that resampling and JPEG's losses stay within the tolerances.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench_data.checks import AnswerCheckModel, CheckModel, FileCheckModel


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


class _Compared(FileCheckModel):
    ref: str
    """An input file."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one that it is compared with."""
        return (self.ref,)


class RowsOfInput(_Compared):
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


class DatesOfInput(_Compared):
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


class PictureDrawn(FileCheckModel):
    """A picture that decodes, is large enough to be seen, no single colour, and none of these inputs."""

    asks = frozenset({"refs"})
    reader = "drawn"

    kind: Literal["picture_drawn"] = "picture_drawn"
    refs: tuple[str, ...] = ()
    min_side: int = 48
    """Pixels."""

    min_colours: int = 8
    max_top_share: float = 0.995
    """Of the pixels that have the most frequent colour."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those that it must not be."""
        return self.refs


class PictureTransformed(_Compared):
    """A picture is an input after one of these transforms; `parts` of them, where there are several files."""

    asks = frozenset({"ref", "transforms", "width", "height", "more"})
    reader = "transformed"

    kind: Literal["picture_transformed"] = "picture_transformed"
    transforms: list[
        Literal[
            "same", "resize", "rotate_left", "rotate_180", "flip_top_bottom", "flip_left_right", "grey",
            "rows", "columns",
        ]
    ] = Field(min_length=1)  # fmt: skip
    """`rows` and `columns` cut it into as many parts as there are files."""

    more: tuple[str, ...] = ()
    width: int | None = None
    height: int | None = None
    """The right size, where the transform does not give it."""

    size_tol: int = 0
    """Pixels."""

    tol: float = 12.0
    """The largest mean difference per channel, 0 to 255."""

    format: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (self.path, *self.more)


class PictureCrop(_Compared):
    """A picture is a part of an input, unscaled, and square or of this size; where it lies is a share."""

    asks = frozenset({"ref"})
    reader = "crop"

    kind: Literal["picture_crop"] = "picture_crop"
    width: int | None = None
    height: int | None = None
    min_side: int = 48
    max_centre_y: float = 1.0
    centre: tuple[float, float] | None = None
    centre_tol: float = 0.01
    min_score: float = 0.9
    """Normalised correlation."""


class PictureAdjusted(_Compared):
    """A statistic is the input's times a factor, and the picture is still that of the input."""

    asks = frozenset({"ref", "statistic"})
    reader = "adjusted"

    kind: Literal["picture_adjusted"] = "picture_adjusted"
    statistic: Literal["gray_mean", "gray_std", "hsv_s_mean", "gray_laplacian_var"]
    min_factor: float | None = None
    max_factor: float | None = None
    min_correlation: float = 0.8
    """Of its grey and the input's."""


class PictureHolds(FileCheckModel):
    """Inputs are found in a picture, whole, scaled or not, and it is not just one of them."""

    asks = frozenset({"refs", "text_rgb"})
    reader = "holds"

    kind: Literal["picture_holds"] = "picture_holds"
    refs: tuple[str, ...] = Field(min_length=1)
    min_score: float = 0.6
    layout: Literal["any", "beside", "below"] = "any"
    """`beside`: side by side or one below the other, in any order; `below`: in this order."""

    min_new_share: float = 0.0005
    """Of the pixels that are not those of the first input, where that was found."""

    text_rgb: tuple[int, int, int] | None = None
    """A colour that the new pixels must have some of."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that must be found."""
        return self.refs


class PictureBlend(_Compared):
    """A picture is one input with another one on it, opaque or not, over all of it or a part."""

    asks = frozenset({"ref", "top"})
    reader = "blend"

    kind: Literal["picture_blend"] = "picture_blend"
    top: str
    min_shown: float = 0.25
    """How much of each must show: its correlation with the part that is not the other."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both."""
        return (self.ref, self.top)


class PicturePalette(_Compared):
    """Most of a picture is a few colours, and they are an input's."""

    asks = frozenset({"ref"})
    reader = "palette"

    kind: Literal["picture_palette"] = "picture_palette"
    min_colours: int = 3
    min_share: float = 0.9
    """Of the pixels: those of the 64 most frequent colours."""

    max_distance: float = 40.0
    """Of a colour to the nearest one of the input, as the mean of those of the largest areas."""


class PictureEdges(_Compared):
    """Thin lines on one plain colour lie where an input changes most."""

    asks = frozenset({"ref"})
    reader = "edges"

    kind: Literal["picture_edges"] = "picture_edges"
    max_share: float = 0.4
    """Of the pixels that are lines."""

    min_plain: float = 0.5
    """Of the pixels that are between them."""

    min_contrast: float = 1.3
    """How much stronger the input's gradient is there than everywhere."""


class PictureForeground(_Compared):
    """The foreground is kept as it was, and most of the background is transparent or one plain colour."""

    asks = frozenset({"ref", "foreground", "background"})
    reader = "foreground"

    kind: Literal["picture_foreground"] = "picture_foreground"
    foreground: list[tuple[float, float, float, float]]
    """Boxes (left, top, right, bottom) as shares of the input that lie in the foreground."""

    background: list[tuple[float, float, float, float]]
    min_kept: float = 0.6
    min_removed: float = 0.6


class QrCode(FileCheckModel):
    """A picture holds a QR code, whose text matches a regular expression as a whole."""

    reader = "qr"

    kind: Literal["qr_code"] = "qr_code"
    text: str


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


class FilmOfInput(_Compared):
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
    | FolderFiles,
    Field(discriminator="kind"),
]
