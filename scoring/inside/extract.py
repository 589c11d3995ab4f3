"""Reads untrusted output files inside a sandbox and reports facts about them.

This and its neighbours are copied into a fresh sandbox; they import nothing of ours, and no request
says what a check expects. One line of facts is written per request, as soon as it is known, so that
a file which takes the process down costs no facts but its own. Whatever a file does to its reader
becomes `{"problem": ...}`. A `{"fault": ...}` says that this sandbox lacks a package: our mistake.

A line is `NONCE INDEX JSON`. The nonce is random per request, so that no text which a file or a
program brings along can be taken for a line of facts.

Not covered: code of the model that attacks this process (it runs under the same user). It gains
nothing that way: facts are compared outside with values that were never here.
"""

from __future__ import annotations

import importlib
import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 8 * 2**20
MAX_FACTS_BYTES = 2**20
MAX_PROBLEM_CHARS = 500

READERS = {  # kind: (module, function, largest file)
    "table_file": ("tables", "read_table", MAX_TEXT_BYTES),
    "sqlite_query": ("tables", "read_sqlite", MAX_FILE_BYTES),
    "json_file": ("documents", "read_json", MAX_TEXT_BYTES),
    "text_file": ("documents", "read_text", MAX_TEXT_BYTES),
    "html_file": ("documents", "read_html", MAX_TEXT_BYTES),
    "image_file": ("media", "read_image", MAX_FILE_BYTES),
    "audio_file": ("media", "read_audio", MAX_FILE_BYTES),
    "python_calls": ("programs", "read_calls", MAX_TEXT_BYTES),
    "command_runs": ("programs", "read_runs", MAX_TEXT_BYTES),
    "frame": ("frames", "read_frame", MAX_FILE_BYTES),
    "frames": ("frames", "read_frames", MAX_FILE_BYTES),
    "picture": ("pictures", "read_picture", MAX_FILE_BYTES),
    "picture_shares": ("pictures", "read_shares", MAX_FILE_BYTES),
    "picture_statistic": ("pictures", "read_statistic", MAX_FILE_BYTES),
    "picture_similarity": ("pictures", "read_similarity", MAX_FILE_BYTES),
    "picture_parts": ("pictures", "read_parts", MAX_FILE_BYTES),
    "wav_levels": ("sounds", "read_wav_levels", MAX_FILE_BYTES),
    "mp3s": ("sounds", "read_mp3s", MAX_FILE_BYTES),
    "pickle": ("pickles", "read_pickle", MAX_FILE_BYTES),
    "rows": ("rows", "read_rows", MAX_FILE_BYTES),
    "dates": ("rows", "read_dates", MAX_FILE_BYTES),
    "json_lines": ("rows", "read_json_lines", MAX_FILE_BYTES),
    "drawn": ("likeness", "read_drawn", MAX_FILE_BYTES),
    "transformed": ("likeness", "read_transformed", MAX_FILE_BYTES),
    "adjusted": ("likeness", "read_adjusted", MAX_FILE_BYTES),
    "crop": ("placing", "read_crop", MAX_FILE_BYTES),
    "holds": ("placing", "read_holds", MAX_FILE_BYTES),
    "blend": ("placing", "read_blend", MAX_FILE_BYTES),
    "palette": ("regions", "read_palette", MAX_FILE_BYTES),
    "edges": ("regions", "read_edges", MAX_FILE_BYTES),
    "foreground": ("regions", "read_foreground", MAX_FILE_BYTES),
    "qr": ("regions", "read_qr", MAX_FILE_BYTES),
    "document": ("productions", "read_document", MAX_FILE_BYTES),
    "film": ("productions", "read_film", MAX_FILE_BYTES),
    "sound": ("productions", "read_sound", MAX_FILE_BYTES),
    "model": ("productions", "read_model", MAX_FILE_BYTES),
    "folder": ("folders", "read_folder", MAX_TEXT_BYTES),
}
FOLDER_READERS = frozenset({"folder"})
"""Whose path is a folder."""


def main(request_path: str, facts_path: str, nonce: str, root: str) -> None:
    """Write a line of facts to `facts_path` for each request in `request_path`; paths are below `root`."""
    requests = json.loads(Path(request_path).read_bytes())
    with Path(facts_path).open("w", encoding="ascii") as lines:
        for index, request in enumerate(requests):
            lines.write(f"{nonce} {index} {facts_json(request, Path(root).resolve())}\n")
            lines.flush()


def facts_json(request: dict[str, Any], root: Path) -> str:
    """Return the facts that one request asks for, as a line of ASCII JSON of bounded size."""
    try:
        text = json.dumps(_facts(request, root), allow_nan=False)
    except Exception as error:  # noqa: BLE001 - a hostile file can make a parser raise anything
        return json.dumps({"problem": _describe(error, root)})
    if len(text) > MAX_FACTS_BYTES:
        return json.dumps({"problem": f"it holds more than the scorer compares ({MAX_FACTS_BYTES:,} bytes)"})
    return text


def _facts(request: dict[str, Any], root: Path) -> dict[str, Any]:
    module_name, function_name, max_bytes = READERS[request["kind"]]
    path = root / request["path"]
    if path.is_dir() and not path.is_symlink() and request["kind"] in FOLDER_READERS:
        for file in (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir()):
            _refuse_unreadable(file, max_bytes)
    else:
        _refuse_unreadable(path, max_bytes)
    try:
        reader = getattr(importlib.import_module(module_name), function_name)
        facts: dict[str, Any] = reader(path, request, root)
    except ModuleNotFoundError as error:
        if error.name is None:  # not an import that failed: a library's advice on a file of a rare form
            raise
        return {"fault": f"the scorer's sandbox cannot import what it needs: {error}"}
    return facts


def _refuse_unreadable(path: Path, max_bytes: int) -> None:
    """Raise ValueError unless `path` is a regular file of at most `max_bytes`, before a byte is read."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise ValueError("no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"{status.st_size:,} bytes, more than the scorer reads ({max_bytes:,})")


def _describe(error: Exception, root: Path) -> str:
    """Return a text for `error` that is the same whichever sandbox it came from."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - as above
        text = "(its message cannot be shown)"
    if type(error) is not ValueError:  # a plain ValueError is how our readers refuse a file
        text = f"{type(error).__name__}: {text}"
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", text.replace(f"{root}/", "").replace(str(root), "."))
    return text[:MAX_PROBLEM_CHARS]


if __name__ == "__main__":
    main(*sys.argv[1:5])
