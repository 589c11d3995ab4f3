"""Web pages and programs in a folder, as facts. Nothing is run. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import ast
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import documents  # type: ignore[import-not-found] # our neighbour, in the sandbox

MAX_FILES = 50
MAX_PAGE_BYTES = 2**20
MAX_TEXT_CHARS = 10_000


def read_folder(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return what each page shows and runs, and what each program imports. Raises ValueError for too much."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in request["suffixes"])
    if len(files) > MAX_FILES or any(file.lstat().st_size > MAX_PAGE_BYTES for file in files):
        raise ValueError(f"more than {MAX_FILES} files, or one of more than {MAX_PAGE_BYTES:,} bytes")
    facts: dict[str, Any] = {"pages": [], "programs": []}
    for file in files:
        if file.suffix.lower() in (".html", ".htm"):
            facts["pages"].append(_page(file))
        elif file.suffix.lower() == ".py":
            facts["programs"].append(_program(file))
    return facts


def _page(file: Path) -> dict[str, Any]:
    page = _Text()
    page.feed(documents.decode(file))
    page.close()
    linked = [file.parent / name for name in page.sources if "://" not in name]
    n_linked = sum(script.stat().st_size for script in linked if script.is_file() and not script.is_symlink())
    text = " ".join(" ".join(page.pieces).split())
    return {"text": text[:MAX_TEXT_CHARS], "n_script_chars": page.n_script_chars + n_linked}


def _program(file: Path) -> dict[str, Any]:
    try:
        tree = ast.parse(documents.decode(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"imports": [], "n_nodes": 0, "problem": f"{file.name}: {type(error).__name__}: {error}"[:200]}
    nodes = list(ast.walk(tree))
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {"imports": sorted(name.split(".")[0] for name in imports)[:100], "n_nodes": len(nodes)}


class _Text(HTMLParser):
    """Collects a page's text and how much script it has."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.sources: list[str] = []
        self.n_script_chars = 0
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self.inside = tag
            self.sources += [value for name, value in attrs if tag == "script" and name == "src" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.n_script_chars += len(data.strip())
        elif not self.inside:
            self.pieces.append(data)
