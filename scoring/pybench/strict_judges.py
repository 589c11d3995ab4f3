"""Judges tables, documents, sounds and models by PyBench's strict checks. Pure: see `upstream_judges`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scoring.compare import number, show, whole_number
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench import strict_checks as checks
from scoring.pybench.picture_judges import PICTURE_JUDGES


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


def _pages(check: checks.PageFolder, facts: Facts) -> str | None:
    pages = facts.get("pages")
    if not isinstance(pages, list):
        return MALFORMED
    problems = [_page(check, page) for page in pages]
    return "no web page in it" if not problems else None if None in problems else problems[0]


def _page(check: checks.PageFolder, page: Any) -> str | None:
    match page:
        case {"text": str(text), "n_script_chars": int(n_script_chars)}:
            pass
        case _:
            return MALFORMED
    if len(text) < check.min_text_chars:
        return f"a page of {len(text)} characters, expected at least {check.min_text_chars}"
    n_words = sum(word.casefold() in text.casefold() for word in check.words)
    if n_words < check.min_words:
        return f"a page with {n_words} of {show(list(check.words))}, expected {check.min_words}"
    if n_script_chars < check.min_script_chars:
        return f"a page with {n_script_chars} characters of script, expected {check.min_script_chars}"
    return None


def _programs(check: checks.ProgramFolder, facts: Facts) -> str | None:
    programs = facts.get("programs")
    if not isinstance(programs, list):
        return MALFORMED
    for program in programs:
        match program:
            case {"imports": list(imports), "n_nodes": int(n_nodes)}:
                if n_nodes >= check.min_nodes and any(name in check.imports for name in imports):
                    return None
    return f"no program that parses and imports {' or '.join(check.imports)}"


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
    "document_text": _document,
    "film_of_input": _film,
    "sound_of_inputs": _sound,
    "fitted_model": _model,
    "folder_files": _folder,
    "page_folder": _pages,
    "program_folder": _programs,
    **PICTURE_JUDGES,
}
"""By the kind of the check."""
