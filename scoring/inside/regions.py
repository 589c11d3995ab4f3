"""Palettes, edges, foregrounds and QR codes in pictures, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import likeness  # type: ignore[import-not-found] # our neighbours, in the sandbox
import pictures  # type: ignore[import-not-found]

MAX_SIDE = 640
MAX_QR_SIDE = 2_000
N_TOP = 64
N_COMPARED = 12
LINE = 64
"""How much a line's grey differs from the plain one around it."""

PLAIN = 16
UNCHANGED = 40
MAX_QR_TEXTS = 4
MAX_QR_CHARS = 4_000


def read_palette(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how many colours there are, what the top ones cover, how far they are from the input's."""
    import numpy as np

    picture = likeness.colour(path)
    colours = sorted(_exact_colours(picture), reverse=True)
    total = sum(count for count, _ in colours)
    known = np.array([rgb for _, rgb in likeness.shrunk_colours(likeness.colour(root / request["ref"]))])
    main = [rgb for count, rgb in colours[:N_COMPARED] if count >= 0.005 * total]
    # A palette is drawn on a page, and white or black is not what it tells.
    told = [rgb for rgb in main if max(rgb) > 8 and min(rgb) < 247] or main
    distances = [float(np.sqrt(((known - np.array(rgb)) ** 2).sum(axis=1)).min()) for rgb in told]
    return {
        "n_colours": len(main),
        "top_share": sum(count for count, _ in colours[:N_TOP]) / total,
        "mean_distance": float(np.mean(distances)),
    }


def _exact_colours(picture: Any) -> list[tuple[int, tuple[int, int, int]]]:
    size = likeness.small_size(picture.size)
    return list(picture.resize(size, 0).getcolors(size[0] * size[1]))


def _limited(picture: Any, max_side: int) -> Any:
    scale = min(1.0, max_side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if scale == 1.0 else likeness.shrunk(picture, size)


def read_edges(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the shares that are lines and plain, and how much stronger an input's gradient is at lines."""
    import cv2
    import numpy as np

    found = _limited(likeness.colour(path).convert("L"), MAX_SIDE)
    grey = np.asarray(found, dtype=int)
    most = int(np.bincount(grey.ravel(), minlength=256).argmax())
    lines = np.abs(grey - most) > LINE
    ref = np.asarray(
        likeness.shrunk(likeness.colour(root / request["ref"]).convert("L"), found.size), dtype=float
    )
    ref = cv2.GaussianBlur(ref, (3, 3), 0)
    gradient = np.hypot(cv2.Sobel(ref, cv2.CV_64F, 1, 0), cv2.Sobel(ref, cv2.CV_64F, 0, 1))
    there = float(gradient[lines].mean()) if lines.any() else 0.0
    plain = np.abs(grey - most) <= PLAIN
    return {
        "share": float(lines.mean()),
        "plain": float(plain.mean()),
        "contrast": there / max(float(gradient.mean()), 1e-6),
    }


def read_foreground(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how much of the foreground is as in the input, and how much of the background is gone."""
    import numpy as np

    picture = pictures.open_picture(path).convert("RGBA")
    ref = likeness.colour(root / request["ref"])
    size = likeness.small_size(ref.size)
    pixels = np.asarray(likeness.shrunk(picture, size), dtype=int)
    old = np.asarray(likeness.shrunk(ref, size), dtype=int)
    is_clear = pixels[:, :, 3] < 64
    kept = ~is_clear & (np.abs(pixels[:, :, :3] - old).max(axis=-1) <= UNCHANGED)
    fill = _plain_colour(pixels, _mask(request["background"], size) & ~is_clear)
    is_filled = (np.abs(pixels[:, :, :3] - fill).max(axis=-1) <= 12) & (np.abs(fill - old).max(axis=-1) > 12)
    removed = is_clear | is_filled
    return {
        "kept": float(kept[_mask(request["foreground"], size)].mean()),
        "removed": float(removed[_mask(request["background"], size)].mean()),
    }


def _mask(boxes: list[list[float]], size: tuple[int, int]) -> Any:
    import numpy as np

    mask = np.zeros((size[1], size[0]), dtype=bool)
    for left, top, right, bottom in boxes:
        mask[
            int(top * size[1]) : int(bottom * size[1]) + 1, int(left * size[0]) : int(right * size[0]) + 1
        ] = True
    return mask


def _plain_colour(pixels: Any, mask: Any) -> Any:
    """Return the most frequent colour of a part, in steps of 8."""
    import numpy as np

    if not mask.any():
        return np.array([-999, -999, -999])
    colours, counts = np.unique(pixels[mask][:, :3] // 8, axis=0, return_counts=True)
    return colours[counts.argmax()] * 8 + 4


def read_qr(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the text of a QR code, found in the picture or in what can be made of it."""
    import cv2

    picture = _limited(likeness.colour(path), MAX_QR_SIDE)
    for grey in _readings(picture):
        try:
            text = cv2.QRCodeDetector().detectAndDecode(grey)[0]
        except cv2.error:
            continue
        if text:
            return {"texts": [text[:MAX_QR_CHARS]]}
    return {"texts": []}


def _readings(picture: Any) -> Iterator[Any]:
    """Yield grey pictures to read: as it is, with a margin, larger, each channel, inverted."""
    import cv2
    import numpy as np

    pixels = np.asarray(picture)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    margin = max(picture.size) // 10
    framed = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=255)
    yield from (grey, framed)
    yield cv2.resize(framed, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    _, sharp = cv2.threshold(framed, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    yield sharp
    yield cv2.GaussianBlur(framed, (5, 5), 0)
    for channel in range(3):
        yield np.ascontiguousarray(pixels[:, :, channel])
    yield np.ascontiguousarray(pixels.min(axis=-1))
    yield 255 - grey
