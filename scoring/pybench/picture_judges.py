"""Judges pictures by PyBench's strict checks. Pure: one small function a kind, as in `upstream_judges`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from scoring.compare import number, show
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench import picture_checks as checks

NEARLY_THE_SAME = 3.0
"""Mean difference per channel below which a picture is a copy."""


def _drawn(check: checks.PictureDrawn, facts: Facts) -> str | None:
    match facts:
        case {
            "width": int(width), "height": int(height), "n_colours": int(n_colours),
            "top_share": float(top_share), "differences": list(differences),
        }:  # fmt: skip
            pass
        case _:
            return MALFORMED
    if min(width, height) < check.min_side:
        return f"{width} x {height} is too small to see"
    if n_colours < check.min_colours or top_share > check.max_top_share:
        return f"{n_colours} colours, one of them on {top_share:.1%} of it: (nearly) nothing is drawn"
    if top_share < check.min_top_share:
        return f"no colour is on more than {top_share:.1%} of it: noise or a photograph"
    for ref, found in zip(check.refs, differences, strict=False):
        if number(found) is None or found < NEARLY_THE_SAME:
            return f"it is (nearly) {ref} itself"
    return None


def _transformed(check: checks.PictureTransformed, facts: Facts) -> str | None:
    found = facts.get("transforms")
    if not isinstance(found, dict):
        return MALFORMED
    if check.format is not None and facts.get("format") != check.format:
        return f"format {show(facts.get('format'))}, expected {check.format}"
    problems = [_transform(check, found.get(name)) for name in check.transforms]
    return None if None in problems else problems[0]


def _transform(check: checks.PictureTransformed, parts: Any) -> str | None:
    if not isinstance(parts, list) or len(parts) != len(check.paths):
        return MALFORMED
    for path, part in zip(check.paths, parts, strict=True):
        match part:
            case {
                "size": [int(w), int(h)],
                "right_size": [int(right_w), int(right_h)],
                "difference": float(off),
            }:
                pass
            case _:
                return MALFORMED
        right_w, right_h = check.width or right_w, check.height or right_h
        name = f"{path}: " if path != check.path else ""
        if max(abs(w - right_w), abs(h - right_h)) > check.size_tol:
            return f"{name}{w} x {h}, expected {right_w} x {right_h}"
        if off > check.tol:
            return f"{name}differs by {off:.1f} (mean, of 255), expected at most {check.tol:g}"
    return None


def _crop(check: checks.PictureCrop, facts: Facts) -> str | None:
    match facts:
        case {"width": int(w), "height": int(h), "score": float(score), "centre": [float(x), float(y)]}:
            pass
        case _:
            return MALFORMED
    right = (check.width or w, check.height or w)
    if (w, h) != right or min(w, h) < check.min_side:
        return f"{w} x {h}, expected {right[0]} x {max(right[1], check.min_side)}"
    if score < check.min_score:
        return f"no part of the input (best correlation {score:.2f}, expected {check.min_score:g})"
    if (
        check.centre is not None
        and max(abs(x - check.centre[0]), abs(y - check.centre[1])) > check.centre_tol
    ):
        return (
            f"its centre is at {x:.3f}, {y:.3f} of the input, expected {check.centre[0]}, {check.centre[1]}"
        )
    return None if y <= check.max_centre_y else f"its centre is at {y:.0%} of the input's height"


def _adjusted(check: checks.PictureAdjusted, facts: Facts) -> str | None:
    match facts:
        case {"value": float(value), "reference": float(reference), "correlation": float(alike)}:
            pass
        case _:
            return MALFORMED
    factor = value / reference if reference else 1.0
    if check.min_factor is not None and factor < check.min_factor:
        return f"{check.statistic} is {factor:.3f} times the input's, expected at least {check.min_factor:g}"
    if check.max_factor is not None and factor > check.max_factor:
        return f"{check.statistic} is {factor:.3f} times the input's, expected at most {check.max_factor:g}"
    if alike < check.min_correlation:
        return f"correlation {alike:.2f} with the input, expected at least {check.min_correlation:g}"
    return None


def _holds(check: checks.PictureHolds, facts: Facts) -> str | None:
    places, new_share = facts.get("places"), number(facts.get("new_share"))
    if not isinstance(places, list) or len(places) != len(check.refs) or new_share is None:
        return MALFORMED
    boxes = []
    for ref, place in zip(check.refs, places, strict=True):
        match place:
            case {"score": float(score), "box": [float(left), float(top), float(right), float(bottom)]}:
                boxes.append((left, top, right, bottom))
            case _:
                return MALFORMED
        if score < check.min_score:
            return f"{ref} is not in it (best correlation {score:.2f}, expected {check.min_score:g})"
    if new_share < check.min_new_share:
        return f"it is {check.refs[0]} itself: {new_share:.2%} of it is new"
    if check.text_rgb is not None and not (number(facts.get("text_share")) or 0) >= check.min_new_share:
        return f"nothing new in it has the colour {check.text_rgb}"
    return _layout(check, boxes)


Box = tuple[float, float, float, float]


def _layout(check: checks.PictureHolds, boxes: list[Box]) -> str | None:
    if check.layout == "any" or len(boxes) < 2:
        return None
    first, second = boxes[:2]
    slack = 0.05
    below = first[3] <= second[1] + slack
    if below or (check.layout == "beside" and _are_apart(first, second, slack)):
        return None
    return (
        "they are not one below the other in order" if check.layout == "below" else "they lie on each other"
    )


def _are_apart(first: Box, second: Box, slack: float) -> bool:
    return any(
        a[end] <= b[start] + slack
        for a, b in ((first, second), (second, first))
        for start, end in ((0, 2), (1, 3))
    )


def _blend(check: checks.PictureBlend, facts: Facts) -> str | None:
    keys = ("ground", "top", "placed_score", "ground_outside")
    values = [number(facts.get(key)) for key in keys]
    if None in values:
        return MALFORMED
    ground, top, placed, outside = (value or 0.0 for value in values)
    if placed >= 0.6 and outside >= 0.6:
        return None
    if min(ground, top) >= check.min_shown:
        return None
    return f"{check.ref} shows with {max(ground, outside):.2f}, {check.top} on it with {max(top, placed):.2f}"


def _palette(check: checks.PicturePalette, facts: Facts) -> str | None:
    match facts:
        case {"n_colours": int(n_colours), "top_share": float(share), "mean_distance": float(distance)}:
            pass
        case _:
            return MALFORMED
    if share < check.min_share or n_colours < check.min_colours:
        return f"no palette: {n_colours} large areas, {share:.0%} of it in its most frequent colours"
    return None if distance <= check.max_distance else f"its colours are {distance:.0f} away from the input's"


def _edges(check: checks.PictureEdges, facts: Facts) -> str | None:
    share, plain, contrast = (number(facts.get(key)) for key in ("share", "plain", "contrast"))
    if share is None or plain is None or contrast is None:
        return MALFORMED
    if plain < check.min_plain:
        return f"{plain:.0%} of it is one plain colour, expected at least {check.min_plain:.0%}"
    if not 0.001 <= share <= check.max_share:
        return f"lines on {share:.1%} of it, expected up to {check.max_share:.0%}"
    if contrast < check.min_contrast:
        return f"its lines lie where the input's gradient is {contrast:.2f} times the mean: no edges"
    return None


def _foreground(check: checks.PictureForeground, facts: Facts) -> str | None:
    kept, removed = number(facts.get("kept")), number(facts.get("removed"))
    if kept is None or removed is None:
        return MALFORMED
    if kept < check.min_kept:
        return f"{kept:.0%} of the foreground is kept, expected at least {check.min_kept:.0%}"
    if removed < check.min_removed:
        return f"{removed:.0%} of the background is gone, expected at least {check.min_removed:.0%}"
    return None


def _qr(check: checks.QrCode, facts: Facts) -> str | None:
    texts = facts.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return MALFORMED
    if not texts:
        return "no QR code that can be read"
    right = re.compile(check.text, re.IGNORECASE | re.DOTALL)
    return (
        None if any(right.fullmatch(text.strip()) for text in texts) else f"the QR code says {show(texts[0])}"
    )


PICTURE_JUDGES: Mapping[str, Callable[[Any, Facts], str | None]] = {
    "picture_drawn": _drawn,
    "picture_transformed": _transformed,
    "picture_crop": _crop,
    "picture_adjusted": _adjusted,
    "picture_holds": _holds,
    "picture_blend": _blend,
    "picture_palette": _palette,
    "picture_edges": _edges,
    "picture_foreground": _foreground,
    "qr_code": _qr,
}
"""By the kind of the check."""
