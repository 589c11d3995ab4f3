"""Judges output files and answers by upstream's checks. Pure: one small function a kind.

As in `file_checks`: facts can be anything, and a judge returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scoring.compare import is_number, number, show, whole_number
from scoring.file_checks import MALFORMED, Facts
from scoring.pybench import upstream_checks as checks


def _contains(check: checks.LastMessageContains, text: str) -> str | None:
    for words in check.all_of:
        if not any(word in text for word in words):
            return f"the last message has none of {show(words)}"
    return None


def _always_fails(check: checks.AlwaysFails, text: str) -> str | None:
    return "upstream's test cannot pass"


def _always_passes(check: checks.AlwaysPasses, text: str) -> str | None:
    return None


def _paths_exist(check: checks.PathsExist, facts: Facts) -> str | None:
    missing = [path for path in (check.path, *check.more) if not _is_there(path, facts)]
    return f"no such file or folder: {', '.join(missing)}" if missing else None


def _is_there(path: str, facts: Facts) -> bool:
    files = facts.get("files") or ()
    return any(name.rstrip("/") == path or name.startswith(f"{path}/") for name in files)


def _folder_has(check: checks.FolderHas, facts: Facts) -> str | None:
    names = [name.removeprefix(f"{check.path}/") for name in facts["files"] if name.startswith(check.path)]
    found = [name for name in names if "/" not in name and name.endswith(check.suffix)]
    return None if found else f"no {check.suffix} file in it; it has {show(names)}"


def _no_nulls(check: Any, facts: Facts) -> str | None:
    return _none_of("n_nulls", "null cells", facts)


def _no_duplicates(check: Any, facts: Facts) -> str | None:
    return _none_of("n_duplicate_rows", "duplicate rows", facts)


def _no_nulls_no_duplicates(check: Any, facts: Facts) -> str | None:
    return _no_nulls(check, facts) or _no_duplicates(check, facts)


def _no_outliers(check: checks.CsvNoIqrOutliers, facts: Facts) -> str | None:
    return _none_of("n_outliers", "values beyond the fences of their column", facts)


def _none_of(key: str, name: str, facts: Facts) -> str | None:
    count = whole_number(facts.get(key))
    if count is None:
        return MALFORMED
    return f"{count} {name}, expected none" if count else None


def _row_count(check: checks.CsvRowCount, facts: Facts) -> str | None:
    count = whole_number(facts.get("n_rows"))
    return None if count == check.rows else f"{show(count)} rows, expected {check.rows}"


def _sorted_by(check: checks.CsvSortedBy, facts: Facts) -> str | None:
    return None if facts.get("is_sorted") is True else f"sorting it by {', '.join(check.by)} changes it"


def _dates(check: checks.CsvColumnParsesAsDates, facts: Facts) -> str | None:
    return None if facts.get("are_dates") is True else f"column {check.column} holds what is no date"


def _no_numeric_text(check: checks.NoNumericTextColumns, facts: Facts) -> str | None:
    match facts.get("numeric_text_columns"):
        case []:
            return None
        case [*names]:
            return f"numbers as text in {show(names)}"
    return MALFORMED


def _pickle(check: checks.PickleLoads, facts: Facts) -> str | None:
    match facts.get("unknown"):
        case []:
            return None
        case [*names]:
            return f"loading it would need {show(names)}"
    return MALFORMED


def _size(check: checks.ImageSize, facts: Facts) -> str | None:
    found = (facts.get("width"), facts.get("height"))
    return (
        None
        if found == (check.width, check.height)
        else f"size {show(found)}, not {check.width} x {check.height}"
    )


def _square(check: checks.ImageSquare, facts: Facts) -> str | None:
    width, height = facts.get("width"), facts.get("height")
    return None if is_number(width) and width == height else f"{show(width)} x {show(height)} is no square"


def _mode(check: checks.ImageMode, facts: Facts) -> str | None:
    mode = facts.get("mode")
    return None if mode == check.mode else f"mode {show(mode)}, expected {check.mode}"


def _dark(check: checks.ImageDarkShare, facts: Facts) -> str | None:
    share = number(facts.get("dark_share"))
    if share is None:
        return MALFORMED
    return None if share > check.share else f"{share:.1%} of it is dark, expected more than {check.share:.0%}"


def _statistic(check: checks.ImageStatistic, facts: Facts) -> str | None:
    value, reference = number(facts.get("value")), number(facts.get("reference"))
    if value is None or reference is None:
        return MALFORMED
    if value > reference if check.is_more else value < reference:
        return None
    wanted = "more" if check.is_more else "less"
    return f"{check.statistic} is {value:.4g}, expected {wanted} than the input's {reference:.4g}"


def _similar(check: checks.ImageSimilar, facts: Facts) -> str | None:
    similarity = number(facts.get("similarity"))
    if similarity is None:
        return MALFORMED
    return None if similarity >= check.min_similarity else f"{similarity:.1%} of it is the input, undone"


def _parts(check: checks.ImagePartsAspect, facts: Facts) -> str | None:
    value, reference = number(facts.get("aspect")), number(facts.get("reference"))
    if value is None or reference is None:
        return MALFORMED
    if abs(value - reference) <= check.tolerance:
        return None
    return f"side by side they are {value:.2f} as wide as high, the input is {reference:.2f}"


def _louder(check: checks.WavLouder, facts: Facts) -> str | None:
    value, reference = number(facts.get("level_dbfs")), number(facts.get("reference_dbfs"))
    if value is None or reference is None:
        return MALFORMED
    return None if value > reference else f"{value:.2f} dBFS, the input has {reference:.2f}"


def _replaygain(check: checks.Mp3ReplaygainLower, facts: Facts) -> str | None:
    value, reference = number(facts.get("gain")), number(facts.get("reference_gain"))
    if value is None or reference is None:
        return "it or the input has no ReplayGain tag"
    return None if reference > value else f"ReplayGain {value:g}, the input has {reference:g}"


def _shorter(check: checks.Mp3Shorter, facts: Facts) -> str | None:
    value, reference = number(facts.get("duration_s")), number(facts.get("reference_s"))
    if value is None or reference is None:
        return MALFORMED
    return None if value < reference else f"{value:.1f} s long, the input has {reference:.1f} s"


UPSTREAM_ANSWER_JUDGES: Mapping[str, Callable[[Any, str], str | None]] = {
    "last_message_contains": _contains,
    "always_fails": _always_fails,
    "always_passes": _always_passes,
}
"""By the kind of the check."""

UPSTREAM_FILE_JUDGES: Mapping[str, Callable[[Any, Facts], str | None]] = {
    "paths_exist": _paths_exist,
    "folder_has": _folder_has,
    "csv_no_nulls": _no_nulls,
    "csv_no_duplicate_rows": _no_duplicates,
    "csv_no_nulls_no_duplicate_rows": _no_nulls_no_duplicates,
    "csv_row_count": _row_count,
    "csv_sorted_by": _sorted_by,
    "csv_no_iqr_outliers": _no_outliers,
    "csv_column_parses_as_dates": _dates,
    "no_numeric_text_columns": _no_numeric_text,
    "pickle_loads": _pickle,
    "image_size": _size,
    "image_square": _square,
    "image_mode": _mode,
    "image_dark_share": _dark,
    "image_statistic": _statistic,
    "image_similar": _similar,
    "image_parts_aspect": _parts,
    "wav_louder": _louder,
    "mp3_replaygain_lower": _replaygain,
    "mp3_shorter": _shorter,
}
