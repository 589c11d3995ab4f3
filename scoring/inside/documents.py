"""Text, JSON and HTML files, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

MAX_DEPTH = 256
MAX_ELEMENTS = 5_000

VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})
IMPLIED_END = frozenset({"li", "p", "td", "th", "tr", "option", "dt", "dd"})
RAW = frozenset({"script", "style"})


def read_text(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the file's text."""
    return {"text": decode(path)}


def read_json(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the file's value. NaN and Infinity, which Python writes and JSON has not, are refused."""
    try:
        return {"value": json.loads(decode(path), parse_constant=_refuse_constant)}
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None


def read_html(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the elements that have one of the requested tags, in the order of the page."""
    page = _Page(set(request["tags"]), set(request["around"]))
    page.feed(decode(path))
    page.close()
    page.end_all()
    return {"elements": page.found}


def decode(path: Path) -> str:
    """Return a text file's content. Raises ValueError that names the first byte that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: it holds {name}")


class _Page(HTMLParser):
    """Collects elements with attributes, text (that of children included) and the asked tags around them."""

    def __init__(self, tags: set[str], around: set[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.tags = tags
        self.around = around
        self.found: list[dict[str, Any]] = []
        self.open: list[tuple[str, int, dict[str, Any] | None]] = []
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in IMPLIED_END and self.open and self.open[-1][0] == tag:
            self.handle_endtag(tag)
        element = None
        if tag in self.tags:
            within = {name for name, _, _ in self.open} & self.around
            attributes = {name: value or "" for name, value in attrs}
            element = {"tag": tag, "attributes": attributes, "text": "", "within": sorted(within)}
            self.found.append(element)
        if len(self.found) > MAX_ELEMENTS or len(self.open) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_ELEMENTS:,} elements, or nested deeper than {MAX_DEPTH}")
        if tag not in VOID:
            self.open.append((tag, len(self.pieces), element))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # In HTML the slash of <div/> means nothing; only void elements have no content.
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if all(name != tag for name, _, _ in self.open):
            return
        while self._end_last() != tag:
            pass

    def handle_data(self, data: str) -> None:
        innermost = self.open[-1] if self.open else None
        if innermost is None or innermost[0] not in RAW:
            self.pieces.append(data)
        elif innermost[2] is not None:
            innermost[2]["text"] += data

    def end_all(self) -> None:
        """End what the page left open."""
        while self.open:
            self._end_last()

    def _end_last(self) -> str:
        tag, start, element = self.open.pop()
        if element is not None:
            text = element["text"] if tag in RAW else "".join(self.pieces[start:])
            element["text"] = " ".join(text.split())
        return tag
