"""Judges output files by PyBench's strict checks. Pure: one small function a kind, as in `pybench_judges`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from scoring import pybench_strict_checks as checks
from scoring.compare import number, show, whole_number
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench_answers import STRICT_ANSWER_JUDGES

NEARLY_THE_SAME = 3.0
"""Mean difference per channel below which a picture is a copy."""


def _rows(check: checks.RowsOfInput, facts: Facts) -> str | None:
    match facts:
        case {"columns": list(columns), "missing_columns": list(missing), "numeric_columns": list(numeric)}:
            pass
        case _:
            return MALFORMED
    lacking = [name for name in check.columns if name not in columns] if check.columns else missing
    lacking += [name for name in check.by if name not in columns]
    if lacking:
        return f"no column {', '.join(map(str, lacking))}"
    if len(columns) < check.min_columns:
        return f"{len(columns)} columns, expected at least {check.min_columns}"
    texts = [name for name in check.numeric if name not in numeric]
    return f"no numbers in {', '.join(texts)}" if texts else _count(check, facts) or _cells(check, facts)


def _count(check: checks.RowsOfInput, facts: Facts) -> str | None:
    n_rows = whole_number(facts.get("n_rows"))
    if n_rows is None:
        return MALFORMED
    if check.rows and n_rows not in check.rows:
        return f"{n_rows} rows, expected {' or '.join(map(str, check.rows))}"
    return f"{n_rows} rows, expected at least {check.min_rows}" if n_rows < check.min_rows else None


def _cells(check: checks.RowsOfInput, facts: Facts) -> str | None:
    limits = [("n_unknown", "rows that the input has not", check.max_unknown)]
    if check.is_unique:
        limits.append(("n_repeated", "repeated rows", 0))
    if check.has_no_nulls:
        limits.append(("n_nulls", "null cells", 0))
    if check.k is not None:
        limits.append(("n_beyond", "numbers beyond what is usual in the input's column", 0))
    for key, name, most in limits:
        count = whole_number(facts.get(key))
        if count is None:
            return MALFORMED
        if count > most:
            return f"{count} {name}, expected {most or 'none'}"
    if check.order_by and facts.get("is_ordered") is not True:
        return f"not in order of {', '.join(check.order_by)}"
    return None


def _dates(check: checks.DatesOfInput, facts: Facts) -> str | None:
    counts = [whole_number(facts.get(key)) for key in ("n_rows", "n_iso", "n_same", "n_reference")]
    if None in counts:
        return MALFORMED
    n_rows, n_iso, n_same, n_reference = counts
    if n_rows != n_reference:
        return f"{n_rows} rows, the input has {n_reference}"
    if n_iso != n_rows:
        return f"{n_iso} of {n_rows} cells in {check.column} are written YYYY-MM-DD"
    return None if n_same == n_rows else f"{n_same} of {n_rows} dates in {check.column} are the input's"


def _json_lines(check: checks.JsonLines, facts: Facts) -> str | None:
    match facts:
        case {"n_lines": int(n_lines), "n_good": int(n_good), "values": dict(values)}:
            pass
        case _:
            return MALFORMED
    if n_good < max(n_lines, check.min_lines):
        return f"{n_good} of {n_lines} lines are JSON objects with {', '.join(check.keys)}"
    for key, accept in check.accept.items():
        found = values.get(key)
        if not isinstance(found, list) or any(value not in accept for value in found):
            return f"{key} is one of {show(found)}, expected {', '.join(accept)}"
    return None


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
        if max(abs(w - right_w), abs(h - right_h)) > check.size_tol:
            return f"{path}: {w} x {h}, expected {right_w} x {right_h}"
        if off > check.tol:
            return f"{path}: differs by {off:.1f} (mean, of 255), expected at most {check.tol:g}"
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


def _document(check: checks.DocumentText, facts: Facts) -> str | None:
    match facts:
        case {"n_pages": int(n_pages), "text": str(text), "score": float(score)}:
            pass
        case _:
            return MALFORMED
    if n_pages < check.min_pages or len(text.strip()) < check.min_chars:
        return f"{n_pages} pages with {len(text.strip())} characters, expected {check.min_chars}"
    folded = " ".join(text.split()).casefold()
    n_words = sum(word.casefold() in folded for word in check.words)
    if n_words < check.min_words:
        return f"it has {n_words} of {show(check.words)}, expected {check.min_words}"
    if check.ref is not None and score < check.min_score:
        return f"it does not show {check.ref} (best correlation {score:.2f})"
    return None


def _film(check: checks.FilmOfInput, facts: Facts) -> str | None:
    match facts:
        case {"n_frames": int(n_frames), "reference_frames": int(wanted), "difference": float(off)}:
            pass
        case _:
            return MALFORMED
    size, right = facts.get("size"), facts.get("reference_size")
    if n_frames < max(2, check.min_frames_share * wanted):
        return f"{n_frames} frames, the input has {wanted}"
    if size is None or size != right:
        return f"size {show(size)}, the input has {show(right)}"
    return None if off <= check.tol else f"its first frame differs by {off:.0f} (mean, of 255)"


def _sound(check: checks.SoundOfInputs, facts: Facts) -> str | None:
    match facts:
        case {"format": str(form), "references": list(refs), "correlation": float(alike)}:
            pass
        case _:
            return MALFORMED
    duration_s, level = number(facts.get("duration_s")), number(facts.get("level_dbfs"))
    lengths = [number(ref.get("duration_s")) for ref in refs if isinstance(ref, dict)]
    levels = [number(ref.get("level_dbfs")) for ref in refs if isinstance(ref, dict)]
    if duration_s is None or level is None or len(lengths) != len(check.refs) or None in lengths + levels:
        return MALFORMED
    if form not in ((check.format, "WAVEX") if check.format == "WAV" else (check.format, "MPEG")):
        return f"format {form}, expected {check.format}"
    right = _lengths(check, [length or 0.0 for length in lengths])
    if not any(-check.shorter_by_s <= duration_s - each <= check.longer_by_s for each in right):
        return f"{duration_s:.1f} s long, expected {' or '.join(f'{each:.1f}' for each in right)} s"
    if check.min_correlation is not None and alike < check.min_correlation:
        return f"its loudness correlates with the input's by {alike:.2f}, expected {check.min_correlation:g}"
    return _level(check, level, level - (levels[0] or 0.0))


def _lengths(check: checks.SoundOfInputs, lengths: list[float]) -> list[float]:
    if check.length == "fixed":
        return [check.duration_s or 0.0]
    if check.length == "sum":
        return [sum(lengths)]
    return lengths if check.length == "one_of" else lengths[:1]


def _level(check: checks.SoundOfInputs, level: float, gain_db: float) -> str | None:
    if check.max_level_dbfs is not None:
        return (
            None
            if level <= check.max_level_dbfs
            else f"{level:.1f} dBFS, expected at most {check.max_level_dbfs:g}"
        )
    if level < check.min_level_dbfs:
        return f"{level:.1f} dBFS: there is nothing to hear"
    if check.min_gain_db is not None and gain_db < check.min_gain_db:
        return f"{gain_db:+.1f} dB against the input, expected at least {check.min_gain_db:+g}"
    if check.max_gain_db is not None and gain_db > check.max_gain_db:
        return f"{gain_db:+.1f} dB against the input, expected at most {check.max_gain_db:+g}"
    return None


def _model(check: checks.FittedModel, facts: Facts) -> str | None:
    match facts:
        case {"names": list(names), "fitted": list(fitted)}:
            pass
        case _:
            return MALFORMED
    models = [n for n in names if isinstance(n, str) and any(n.startswith(part) for part in check.any_of)]
    if not models:
        return f"it names {show(names)}, none of {', '.join(check.any_of)}"
    if models[0].startswith("sklearn.") and not fitted:
        return f"{models[0]} has not been fitted"
    return None


def _folder(check: checks.FolderFiles, facts: Facts) -> str | None:
    names = [name for name in facts.get("files") or () if name.startswith(f"{check.path}/")]
    found = [name for name in names if name.lower().endswith(tuple(check.suffixes))]
    if len(found) >= check.min_files:
        return None
    wanted = f"at least {check.min_files} ending in {' or '.join(check.suffixes)}"
    return f"{len(found)} such files in it, expected {wanted}; it has {show(names)}"


STRICT_FILE_JUDGES: Mapping[str, Callable[[Any, Facts], str | None]] = {
    "rows_of_input": _rows,
    "dates_of_input": _dates,
    "json_lines": _json_lines,
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
    "document_text": _document,
    "film_of_input": _film,
    "sound_of_inputs": _sound,
    "fitted_model": _model,
    "folder_files": _folder,
}
"""By the kind of the check."""
__all__ = ["STRICT_ANSWER_JUDGES", "STRICT_FILE_JUDGES"]
