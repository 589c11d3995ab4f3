"""Pictures beside the inputs that they were made of, as facts. Runs inside a sandbox: see extract.py.

Pictures are compared small: what resampling and JPEG do to single pixels does not count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pictures  # type: ignore[import-not-found] # our neighbour, in the sandbox

MAX_SIDE = 256
"""Pixels that a picture is compared in."""

MAX_COLOURS = 4_096


def colour(path: Path) -> Any:
    """Return a picture as RGB on white. Raises ValueError when it cannot be decoded."""
    return on_white(pictures.open_picture(path))


def on_white(picture: Any) -> Any:
    """Return a picture as RGB on white."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return a size of the same shape, at most MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def difference(picture: Any, other: Any) -> float:
    """Return the mean absolute difference per channel, 0 to 255; the second is stretched to the first."""
    import numpy as np

    size = small_size(picture.size)
    first = np.asarray(shrunk(picture, size), dtype=float)
    return float(np.abs(first - np.asarray(shrunk(other, size), dtype=float)).mean())


def shrunk(picture: Any, size: tuple[int, int]) -> Any:
    """Return a picture in another size; each pixel is the mean of those that it stands for."""
    from PIL import Image

    return picture.resize(size, Image.Resampling.BOX)


def correlation(picture: Any, other: Any) -> float:
    """Return the correlation of two pictures' grey, 0 when one of them is plain."""
    import numpy as np

    size = small_size(other.size)
    first = np.asarray(shrunk(picture.convert("L"), size), dtype=float)
    second = np.asarray(shrunk(other.convert("L"), size), dtype=float)
    if min(first.std(), second.std()) < 1e-6:
        return 0.0
    return float(((first - first.mean()) * (second - second.mean())).mean() / (first.std() * second.std()))


def read_drawn(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return size, colours, the share of the most frequent one, and the difference to each input."""
    picture = colour(path)
    colours = shrunk_colours(picture)
    return {
        "width": picture.width,
        "height": picture.height,
        "n_colours": len(colours),
        "top_share": max(count for count, _ in colours) / sum(count for count, _ in colours),
        "differences": [difference(picture, colour(root / name)) for name in request["refs"]],
    }


def shrunk_colours(picture: Any) -> list[tuple[int, tuple[int, int, int]]]:
    """Return counts and colours, a photograph's many rounded until there are few enough."""
    for step in (1, 2, 4, 8, 16, 32):
        rounded = picture if step == 1 else picture.point([value // step * step for value in range(256)] * 3)
        colours = rounded.getcolors(MAX_COLOURS)
        if colours is not None:
            return list(colours)
    raise AssertionError("unreachable: at the last step there are fewer colours than that")


def read_transformed(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return sizes and differences to what each of the asked transforms makes of an input."""
    found = [colour(root / name) for name in (request["path"], *request["more"])]
    ref = colour(root / request["ref"])
    facts: dict[str, Any] = {"format": pictures.open_picture(path).format, "transforms": {}}
    for name in request["transforms"]:
        right = transformed(ref, name, len(found), request)
        facts["transforms"][name] = [
            {
                "size": list(picture.size),
                "right_size": list(part.size),
                "difference": difference(part, picture),
            }
            for picture, part in zip(found, right, strict=True)
        ]
    return facts


def transformed(ref: Any, name: str, n_parts: int, request: dict[str, Any]) -> list[Any]:
    """Return what a transform makes of an input: one picture, or as many as it is cut into."""
    from PIL import Image

    flips = {
        "rotate_left": Image.Transpose.ROTATE_90,
        "rotate_180": Image.Transpose.ROTATE_180,
        "flip_top_bottom": Image.Transpose.FLIP_TOP_BOTTOM,
        "flip_left_right": Image.Transpose.FLIP_LEFT_RIGHT,
    }
    if name in flips:
        return [ref.transpose(flips[name])]
    if name == "grey":
        return [ref.convert("L").convert("RGB")]
    if name == "resize":
        return [ref.resize((request["width"], request["height"]), Image.Resampling.BICUBIC)]
    if name in ("rows", "columns"):
        return [ref.crop(_part_box(ref.size, name, index, n_parts)) for index in range(n_parts)]
    return [ref]


def _part_box(size: tuple[int, int], name: str, index: int, n_parts: int) -> tuple[int, int, int, int]:
    width, height = size
    if name == "rows":
        return 0, index * height // n_parts, width, (index + 1) * height // n_parts
    return index * width // n_parts, 0, (index + 1) * width // n_parts, height


def read_adjusted(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return a statistic of a picture and of an input, and how far they are the same picture."""
    ref = root / request["ref"]
    return {
        "value": pictures.statistic(path, request["statistic"]),
        "reference": pictures.statistic(ref, request["statistic"]),
        "correlation": correlation(colour(path), colour(ref)),
    }
