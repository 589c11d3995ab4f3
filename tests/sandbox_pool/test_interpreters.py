"""Profiles whose interpreter is another than the runner's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import IPython
import pytest

from sandbox_pool import PoolConfig, Sandbox, SandboxPool, SandboxSpec, Status
from tests.sandbox_pool.hostile.setups import why_not

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.kernel]


async def run(sandbox: Sandbox, code: str) -> str:
    """Run a cell that must not fail and return what it wrote."""
    seen = await sandbox.execute(code, timeout_s=30)
    assert seen.status is Status.OK, seen
    return seen.stdout + seen.stderr


def other_interpreter() -> Path | None:
    """Return an interpreter of the runner's version, which its packages fit, that is not the runner's own."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    installed = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin"))
    for place in (Path("/usr/bin"), Path("/usr/local/bin"), *installed):
        path = place / name
        if path.exists() and path.resolve() != Path(sys.executable).resolve():
            return path
    return None


@pytest.fixture(name="other_python", scope="module")
def _other_python() -> Iterator[tuple[Path, list[int]]]:
    """A virtual environment of another interpreter that finds the runner's IPython by a .pth; its version."""
    other = other_interpreter()
    reason = why_not("namespace") or ("no other interpreter of this version" if other is None else None)
    if reason or other is None:
        pytest.skip(reason or "")
    folder = Path(tempfile.mkdtemp(prefix="kf-venv-"))
    folder.chmod(0o755)
    python = folder / "venv" / "bin" / "python"
    try:
        subprocess.run([other, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        (packages,) = (folder / "venv" / "lib").glob("python3*/site-packages")
        (packages / "shared.pth").write_text(f"{Path(IPython.__file__).parent.parent}\n")
        said = subprocess.check_output([python, "-c", "import sys; print(list(sys.version_info[:3]))"])
        yield python, json.loads(said)
    finally:
        shutil.rmtree(folder)


async def test_other_interpreter(other_python: tuple[Path, list[int]]) -> None:
    """Cells run under the profile's own interpreter, and keep what they are promised."""
    python, version = other_python
    packages = Path(IPython.__file__).parent.parent
    own = PoolConfig(tier="namespace", python=python, extra_paths=(packages,), preload=(), max_idle=0)
    async with SandboxPool(own) as pool, pool.acquire(SandboxSpec(seed=7)) as sandbox:
        said = await run(sandbox, "import sys; print([*sys.version_info[:3]]); print(sys.executable)")
        assert said == f"{version}\n{python}\n"
        assert await run(sandbox, "!python -c 'import sys; print(sys.executable)'") == f"{python}\n"
        failed = await sandbox.execute("1 / 0")
        assert failed.error is not None
        assert failed.error.ename == "ZeroDivisionError"
        slow = await sandbox.execute("kept = 1\nimport time\nwhile True: time.sleep(0.01)", timeout_s=0.3)
        assert (slow.status, slow.kernel_alive) == (Status.TIMEOUT, True)
        assert (await sandbox.execute("_ = open('made', 'w').write('x'); kept")).result == "1"
        assert await sandbox.read("made") == b"x"
