"""What PyBench's unit tests look at in a picture, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

MAX_PIXELS = 40_000_000
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none that starts a program


def open_picture(path: Path) -> Any:
    """Return a picture with its pixels. Raises ValueError when it is none, or has too many to decode."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path, formats=FORMATS)
            picture.load()
        except UnidentifiedImageError:
            raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"more pixels than the scorer decodes ({MAX_PIXELS:,})") from None
    return picture


def read_picture(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return size, mode and format."""
    picture = open_picture(path)
    return {
        "width": picture.width,
        "height": picture.height,
        "mode": picture.mode,
        "format": picture.format,
    }


def read_shares(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the share of the pixels that are as dark as `level` in grey, or darker."""
    import numpy as np

    grey = np.asarray(open_picture(path).convert("L"))
    return {"dark_share": float((grey <= request["level"]).mean())}


def read_statistic(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return a statistic of a picture and of an input, by OpenCV's conversions as upstream has them."""
    return {
        "value": statistic(path, request["statistic"]),
        "reference": statistic(root / request["ref"], request["statistic"]),
    }


def statistic(path: Path, name: str) -> float:
    """Return one of the statistics that a check can name."""
    import cv2

    open_picture(path)  # refuses what OpenCV would decode without a bound
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError("OpenCV cannot read it")
    if name == "hsv_s_mean":
        return float(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[:, :, 1].mean())
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    if name == "gray_laplacian_var":
        return float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return float(grey.mean() if name == "gray_mean" else grey.std())


def read_similarity(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the share of like pixels of a picture, undone, and an input, by upstream's measure.

    Differences of bytes wrap around there, and a grey picture is compared row by row.
    """
    import numpy as np

    picture = undone(open_picture(path), request["undo"])
    reference = open_picture(root / request["ref"]).resize(picture.size).convert(picture.mode)
    found = np.asarray(picture)
    differences = found - np.asarray(reference)
    alike = np.all(differences <= request["tolerance"], axis=-1)
    return {"similarity": float(np.sum(alike) / (found.shape[0] * found.shape[1]))}


def undone(picture: Any, name: str) -> Any:
    """Return a picture turned back."""
    from PIL import Image

    match name:
        case "rotate_270":
            return picture.rotate(270, expand=True)
        case "rotate_180":
            return picture.rotate(180, expand=True)
        case "flip_left_right":
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    raise ValueError(f"there is no way to undo {name}")


def read_parts(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the aspect ratio of pictures side by side, and that of an input."""
    sizes = [open_picture(root / name).size for name in [request["path"], *request["more"]]]
    reference = open_picture(root / request["ref"])
    return {
        "aspect": sum(width for width, _ in sizes) / max(height for _, height in sizes),
        "reference": reference.width / reference.height,
    }
