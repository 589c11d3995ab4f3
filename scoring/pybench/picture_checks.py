"""The kinds of PyBench's strict checks of pictures, as data.

A picture is compared with an input after both were made small, so that resampling and JPEG's losses stay
within the tolerances.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench_data.checks import FileCheckModel


class Compared(FileCheckModel):
    """A file that is compared with an input."""

    ref: str
    """An input file."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one that it is compared with."""
        return (self.ref,)


class PictureDrawn(FileCheckModel):
    """A picture that decodes, is large enough to be seen, has something on a ground, and is no input."""

    asks = frozenset({"refs"})
    reader = "drawn"

    kind: Literal["picture_drawn"] = "picture_drawn"
    refs: tuple[str, ...] = ()
    min_side: int = 48
    """Pixels."""

    min_colours: int = 8
    min_top_share: float = 0.05
    max_top_share: float = 0.995
    """Of the pixels that have the most frequent colour. What is drawn has a ground; noise and photographs
    have none. The least in a recorded run is 0.49."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those that it must not be."""
        return self.refs


class PictureTransformed(Compared):
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


class PictureCrop(Compared):
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


class PictureAdjusted(Compared):
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


class PictureBlend(Compared):
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


class PicturePalette(Compared):
    """Most of a picture is a few colours, and they are an input's."""

    asks = frozenset({"ref"})
    reader = "palette"

    kind: Literal["picture_palette"] = "picture_palette"
    min_colours: int = 3
    min_share: float = 0.9
    """Of the pixels: those of the 64 most frequent colours."""

    max_distance: float = 40.0
    """Of a colour to the nearest one of the input, as the mean of those of the largest areas."""


class PictureEdges(Compared):
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


class PictureForeground(Compared):
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
