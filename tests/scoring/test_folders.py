"""Folders of output files: all that matter are read together, in one sandbox."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scoring.checks import judge
from scoring.facts import gather_facts
from scoring.pybench.strict_checks import StrictCheck
from scoring.trajectory import Artifact

ADAPTER: TypeAdapter[Any] = TypeAdapter(StrictCheck)
GAME = {"kind": "page_folder", "path": "output/game", "min_script_chars": 20}


def artifacts(folder: Path, files: dict[str, str]) -> dict[str, Artifact]:
    """Write files of a run and describe them."""
    found = {}
    for index, (path, text) in enumerate(files.items()):
        file = folder / str(index)
        file.write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        found[path] = Artifact(path=path, file=file, n_bytes=len(text.encode()), sha256=sha256)
    return found


async def test_a_page_and_the_script_that_it_links(tmp_path: Path, make_pool: Any) -> None:
    """Files of other kinds and of other folders stay outside."""
    check = ADAPTER.validate_python(GAME)
    files = {
        "output/game/index.html": "<script src=game.js></script>",
        "output/game/game.js": "draw(bird); " * 3,
    }
    files |= {"output/game/notes.txt": "x", "output/other.html": "<p>x"}
    pool = make_pool()
    facts = await gather_facts(check, artifacts(tmp_path, files), pool)
    assert judge(check, None, facts).reason == "as expected"
    put = {
        str(path.relative_to(pool.leased[0].folder / "files"))
        for path in pool.leased[0].folder.rglob("files/**/*.*")
    }
    assert put == {"output/game/index.html", "output/game/game.js"}


async def test_an_empty_folder_needs_no_sandbox(tmp_path: Path, make_pool: Any) -> None:
    """Nothing to read is said without one."""
    check = ADAPTER.validate_python(GAME)
    pool = make_pool()
    facts = await gather_facts(check, artifacts(tmp_path, {"output/game/notes.txt": "x"}), pool)
    assert (
        judge(check, None, facts).reason
        == "output/game: no file in it that ends in .html or .htm or .css or .js"
    )
    assert pool.leased == []
