"""What a sandbox sees of us when we are installed from a wheel, in the environment that kernels run in too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT, clean_environment
from tests.sandbox_pool.hostile import cases_escape
from tests.sandbox_pool.hostile.bait import Bait, our_files
from tests.sandbox_pool.hostile.setups import why_not

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]
_ATTACKS = ("no-file-of-ours", "no-module-of-ours")
_SCRIPT = """
import asyncio, json, sys
import sandbox_pool
from sandbox_pool import PoolConfig, SandboxPool

async def main(tier, cells):
    said = {"where": sandbox_pool.__file__}
    async with SandboxPool(PoolConfig(tier=tier, allow_unsafe=True)) as pool:
        for name, cell in cells.items():
            async with pool.acquire() as sandbox:
                seen = await sandbox.execute(cell, timeout_s=100)
                said[name] = [seen.status, seen.stdout]
    print(json.dumps(said))

asyncio.run(main(sys.argv[1], json.load(sys.stdin)))
"""


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a virtual environment with our wheel, and with what this one has."""
    top = tmp_path_factory.mktemp("installed")
    for folder in (top, *top.parents):
        if folder.stat().st_uid == os.getuid() and folder not in (Path("/"), Path("/tmp")):
            folder.chmod(folder.stat().st_mode | 0o755)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(top), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top / "venv")], check=True)
    here = Path(sysconfig.get_path("purelib"))
    site = top / "venv" / here.relative_to(sys.prefix)
    shutil.copytree(
        here, site, copy_function=_link, dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.pth", "kernelfleet*", "__editable__*", "__pycache__"),
    )  # fmt: skip
    (wheel,) = top.glob("kernelfleet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def _link(source: str, target: str) -> str:
    """Copy a file without copying it, where that can be done."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@pytest.mark.parametrize("tier", ["namespace", "landlock", "process"])
def test_installed(site: Path, tier: str) -> None:
    """No module of ours but inside/ can be found or imported; in `process`, which promises nothing, they are."""
    if reason := why_not(tier):
        pytest.skip(reason)
    cells = {case.id: case.cell for case in cases_escape.CASES if case.id in _ATTACKS}
    with Bait() as bait:
        facts = {
            **bait.facts(), "OURS": json.dumps(our_files(site)), "TIER": tier, "ZYGOTE_PID": "1",
            "WALK": str(site) if tier == "process" else "/",
        }  # fmt: skip
        for name, value in facts.items():
            cells = {key: cell.replace(f"@{name}@", value) for key, cell in cells.items()}
        done = subprocess.run(
            [str(site.parents[2] / "bin" / "python"), "-c", _SCRIPT, tier],
            input=json.dumps(cells), capture_output=True, text=True, check=False, cwd=bait.folder, timeout=200,
            env={key: value for key, value in clean_environment().items() if key != "PYTHONPATH"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said.pop("where")).is_relative_to(site)
    assert len(said) == len(_ATTACKS)
    for name, (status, stdout) in said.items():
        assert status == "ok", (name, stdout)
        assert (stdout == "") == (tier != "process"), (name, stdout)
