"""Where pictures lie within others, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import likeness  # type: ignore[import-not-found] # our neighbour, in the sandbox

MAX_SIDE = 240
"""Pixels of the picture that is searched."""

MAX_CROP_SIDE = 2_000
MIN_PIECE = 12
N_SCALES = 24
CHANGED = 48
"""A pixel has changed when a channel differs by more."""


def read_crop(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return size and place of a picture within an input, unscaled; the place of its centre as shares."""
    import cv2

    found, ref = likeness.colour(path), likeness.colour(root / request["ref"])
    if max(ref.size) > MAX_CROP_SIDE:
        raise ValueError(f"the input is larger than the scorer searches ({MAX_CROP_SIDE} pixels)")
    facts: dict[str, Any] = {"width": found.width, "height": found.height, "score": 0.0, "centre": [0.0, 0.0]}
    if found.width > ref.width or found.height > ref.height:
        return facts
    piece = _array(found)
    if piece.std() < 1.0:  # what is plain correlates with everything
        return facts
    scores = cv2.matchTemplate(_array(ref), piece, cv2.TM_CCOEFF_NORMED)
    _, score, _, (x, y) = cv2.minMaxLoc(scores)
    facts["score"] = score
    facts["centre"] = [(x + found.width / 2) / ref.width, (y + found.height / 2) / ref.height]
    return facts


def _array(picture: Any) -> Any:
    import numpy as np

    return np.asarray(picture)[:, :, ::-1].copy()


def read_holds(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return for each input where it is found best: score and box (left, top, right, bottom) as shares.

    Also the share of the pixels that are not the first input's, and of them the share in a colour.
    """
    picture = likeness.colour(path)
    refs = [likeness.colour(root / name) for name in request["refs"]]
    places = [find(picture, ref) for ref in refs]
    new = _new_pixels(picture, refs[0], places[0]["box"])
    facts: dict[str, Any] = {"places": places, "new_share": float(new.mean())}
    if request["text_rgb"] is not None:
        facts["text_share"] = _share_in(picture, new, request["text_rgb"])
    return facts


def find(picture: Any, piece: Any) -> dict[str, Any]:
    """Return the best score of a piece in a picture and its box as shares, at any of many scales."""
    import cv2

    size = _scaled(picture.size, min(1.0, MAX_SIDE / max(picture.size)))
    ground = _array(likeness.shrunk(picture, size))
    best, box = 0.0, [0.0, 0.0, 1.0, 1.0]
    for width, height in _piece_sizes(size, piece.size, picture.size):
        small = _array(likeness.shrunk(piece, (width, height)))
        if small.std() < 1.0:
            continue
        _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(ground, small, cv2.TM_CCOEFF_NORMED))
        if best < score <= 1.001:
            best = score
            box = [x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1]]
    return {"score": float(best), "box": box}


def _piece_sizes(
    ground: tuple[int, int], piece: tuple[int, int], picture: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield sizes to look for: the whole, the piece's own, mixed, halves, and its shape down to a fifth."""
    width, height = ground
    scale = width / picture[0]
    largest = min(width / piece[0], height / piece[1])
    own = _scaled(piece, scale)
    sizes = [ground, own, (own[0], height), (width, own[1]), (width // 2, height), (width, height // 2)]
    sizes += [_scaled(piece, largest * (0.2 + 0.8 * step / (N_SCALES - 1))) for step in range(N_SCALES)]
    for each in dict.fromkeys(sizes):
        if MIN_PIECE <= each[0] <= width and MIN_PIECE <= each[1] <= height:
            yield each


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _new_pixels(picture: Any, ref: Any, box: list[float]) -> Any:
    """Return a mask of the pixels that are not those of an input in its box."""
    import numpy as np

    size = _scaled(picture.size, min(1.0, 2 * MAX_SIDE / max(picture.size)))
    pixels = np.asarray(likeness.shrunk(picture, size), dtype=int)
    left, right = (round(share * size[0]) for share in box[::2])
    top, bottom = (round(share * size[1]) for share in box[1::2])
    old = np.asarray(likeness.shrunk(ref, (max(1, right - left), max(1, bottom - top))), dtype=int)
    new = np.ones(pixels.shape[:2], dtype=bool)
    part = pixels[top : top + old.shape[0], left : left + old.shape[1]]
    old = old[: part.shape[0], : part.shape[1]]
    new[top : top + old.shape[0], left : left + old.shape[1]] = (np.abs(part - old) > CHANGED).any(axis=-1)
    return new


def _share_in(picture: Any, new: Any, rgb: list[int]) -> float:
    """Return the share of all pixels that are new and near a colour."""
    import numpy as np

    pixels = np.asarray(likeness.shrunk(picture, (new.shape[1], new.shape[0])), dtype=int)
    return float((new & (np.abs(pixels - np.array(rgb)).max(axis=-1) <= 110)).mean())


def read_blend(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return how much of two inputs shows in a picture: one as its background, the other one on it.

    An opaque one that covers a part is looked for; one that shines through all of it is what the
    background does not explain.
    """
    import numpy as np

    picture = likeness.colour(path)
    ground, top = likeness.colour(root / request["ref"]), likeness.colour(root / request["top"])
    size = likeness.small_size(picture.size)
    y, a, b = (
        np.asarray(likeness.shrunk(each.convert("L"), size), dtype=float).ravel()
        for each in (picture, ground, top)
    )
    place = find(picture, top)
    outside = _outside(place["box"], size)
    return {
        "ground": partial_correlation(y, a, b),
        "top": partial_correlation(y, b, a),
        "placed_score": place["score"],
        "ground_outside": partial_correlation(y[outside], a[outside], None) if outside.sum() > 99 else 0.0,
    }


def _outside(box: list[float], size: tuple[int, int]) -> Any:
    import numpy as np

    mask = np.ones((size[1], size[0]), dtype=bool)
    left, right = (round(share * size[0]) for share in box[::2])
    top, bottom = (round(share * size[1]) for share in box[1::2])
    mask[top:bottom, left:right] = False
    return mask.ravel()


def partial_correlation(y: Any, x: Any, without: Any) -> float:
    """Return the correlation of y and x, after what both have of a third one is taken away."""
    import numpy as np

    y, x = y - y.mean(), x - x.mean()
    if without is not None:
        z = without - without.mean()
        norm = float(z @ z) or 1.0
        y, x = y - z * (float(y @ z) / norm), x - z * (float(x @ z) / norm)
    scale = float(np.sqrt((y @ y) * (x @ x)))
    return float(y @ x) / scale if scale > 1e-6 else 0.0
