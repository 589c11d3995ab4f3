from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_pool.jupyter.notebook_folder import why_not_shown

UID = 54_321


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, with Jupyter's runtime folder elsewhere."""
    home = tmp_path / "users/ada"
    (home / "project").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "run/jupyter"))
    return home


def test_project_is_shown(home: Path) -> None:
    """A folder beneath the home is shown, by whatever uid may read it."""
    assert why_not_shown(home / "project", uid=None, is_mounted=True) is None
    (home / "project").chmod(0o755)
    home.chmod(0o755)
    assert why_not_shown(home / "project", uid=UID, is_mounted=True) is None


@pytest.mark.parametrize(
    ("folder", "holds"),
    [("/", "users/ada"), ("users", "users/ada"), ("users/ada", "users/ada"), ("run", "run/jupyter"), ("run/jupyter", "run/jupyter"), ("own", "own/kf-1")],
)  # fmt: skip
def test_private_places_are_not_shown(home: Path, folder: str, holds: str) -> None:
    """Neither the home, nor Jupyter's keys, nor our own scratch folder, nor anything above them."""
    top = home.parents[1]
    said = why_not_shown(top / folder, uid=None, is_mounted=True, own_places=[top / "own/kf-1"])
    assert said is not None
    assert said.startswith(f"it holds {top / holds}, ")


@pytest.mark.parametrize(
    ("parent_mode", "mode", "is_mounted", "said"),
    [
        (0o711, 0o755, True, None),
        (0o711, 0o750, True, "chmod o+rx {folder}"),
        (0o711, 0o751, True, "chmod o+rx {folder}"),
        (0o700, 0o755, True, "chmod o+x {parent}"),
        (0o711, 0o755, False, "chmod o+x {top}"),
    ],
)
def test_what_a_uid_may_enter(
    home: Path, parent_mode: int, mode: int, is_mounted: bool, said: str | None
) -> None:
    """The folder must be readable and the one above open; all above only where it has its own path inside."""
    folder = home / "project"
    home.parent.chmod(0o700)
    home.chmod(parent_mode)
    folder.chmod(mode)
    found = why_not_shown(folder, uid=UID, is_mounted=is_mounted)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert f"`{said.format(folder=folder, parent=home, top=home.parent)}`" in found


def test_owner_and_group_count(home: Path) -> None:
    """A uid is judged as the owner, or as the group of its number, where it is that."""
    folder = home / "project"
    home.chmod(0o711)
    folder.chmod(0o705)
    info = folder.stat()
    assert why_not_shown(folder, uid=info.st_uid, is_mounted=True) is None
    folder.chmod(0o055)
    found = why_not_shown(folder, uid=info.st_uid, is_mounted=True)
    assert found is not None
    assert f"uid {info.st_uid} may not enter {folder}" in found
