from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox_pool.inside.launch import first_blocked, pieces


def test_first_blocked_is_the_outermost(tmp_path: Path) -> None:
    """Of the folders above a path the outermost that others may not enter is found; its own mode is not asked."""
    top = Path(tempfile.gettempdir())
    for part in (tmp_path, *tmp_path.parents):
        if part.is_relative_to(top) and part != top:
            part.chmod(0o755)
    path = tmp_path / "a" / "b" / "c"
    path.mkdir(parents=True)
    path.chmod(0o700)
    assert first_blocked(str(path)) == first_blocked(str(top / "x"))
    (tmp_path / "a" / "b").chmod(0o750)
    assert first_blocked(str(path)) == str(tmp_path / "a" / "b")
    (tmp_path / "a").chmod(0o700)
    assert first_blocked(str(path)) == str(tmp_path / "a")


@given(st.text(max_size=50), st.integers(1, 10))
def test_pieces_lose_nothing(text: str, size: int) -> None:
    """The pieces of a stream message together are its text, none longer than allowed."""
    parts = pieces({"content": {"name": "stdout", "text": text}, "header": 1}, size, 100)
    assert "".join(part["content"]["text"] for part in parts) == text
    assert all(len(part["content"]["text"]) <= size and part["header"] == 1 for part in parts)


def test_displays_are_cut() -> None:
    """A display is cut where its reader gives up; other messages pass unchanged."""
    assert pieces({"content": {"data": {"a": "x" * 50, "b": 1}}}, 5, 10) == [
        {"content": {"data": {"a": "x" * 10, "b": 1}}}
    ]
    assert pieces({"content": {"execution_state": "idle"}}, 5, 10) == [
        {"content": {"execution_state": "idle"}}
    ]
