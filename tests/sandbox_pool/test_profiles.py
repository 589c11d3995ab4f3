"""What a profile promises: its packages, its interpreter, its limits, beside other profiles of the pool."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandbox_pool import PoolConfig, Sandbox, SandboxPool, SandboxSpec, Status, UnknownProfile
from tests.sandbox_pool.hostile.setups import why_not

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.kernel]


def config(tier: str, **more: Any) -> PoolConfig:
    """Return a config of small sandboxes."""
    return PoolConfig.model_validate({"tier": tier, "preload": (), "max_idle": 0, "max_sandboxes": 4, **more})


def make_wheel(folder: Path, name: str, *, n_needed: str = "") -> None:
    """Make a wheel by hand: a module of that name, and what pip wants to read."""
    info = f"{name}-1.0.dist-info"
    needed = f"Requires-Dist: {n_needed}\n" if n_needed else ""
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "answer = 42\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(name="wheels", scope="module")
def _wheels() -> Iterator[Path]:
    """A folder that every user may read, with wheels and a module that must not hide the library's."""
    folder = Path(tempfile.mkdtemp(prefix="kf-wheels-"))
    folder.chmod(0o755)
    for name in ("tiny_wheel", "other_wheel"):
        make_wheel(folder, name)
    make_wheel(folder, "needy_wheel", n_needed="traitlets")
    (folder / "json.py").write_text("raise ImportError('not this one')")
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(name="sandbox", scope="module", loop_scope="module", params=["namespace", "landlock"])
async def _sandbox(request: pytest.FixtureRequest, wheels: Path) -> AsyncIterator[Sandbox]:
    """A sandbox of each tier that protects, with the folder of wheels."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    own = config(request.param, extra_paths=(wheels,))
    async with SandboxPool(own) as pool, pool.acquire() as sandbox:
        yield sandbox


async def run(sandbox: Sandbox, code: str) -> str:
    """Run a cell that must not fail and return what it wrote."""
    seen = await sandbox.execute(code, timeout_s=30)
    assert seen.status is Status.OK, seen
    return seen.stdout + seen.stderr


async def test_wheel_is_imported(sandbox: Sandbox) -> None:
    """A pure wheel can be imported in the kernel and by a command, behind the standard library."""
    assert await run(sandbox, "import json, other_wheel\nprint(other_wheel.__file__)")
    said = await run(
        sandbox, "!python -c 'import json, other_wheel; print(json.loads(\"1\"), other_wheel.answer)'"
    )
    assert said == "1 42\n"


async def test_wheel_is_installed(sandbox: Sandbox) -> None:
    """It installs from the folder, with what is needed being there, into the sandbox's own folders."""
    if (await run(sandbox, "import os; print(os.getcwd())")).strip() != "/sandbox/work":
        pytest.skip("pip lists every folder of sys.path, and Landlock denies that of an editable install")
    found = "import importlib; importlib.invalidate_caches(); import {0}; print({0}.__file__)"
    said = await run(sandbox, "!python -m pip install tiny_wheel")
    assert "Successfully installed tiny" in said
    assert (
        await run(sandbox, "import tiny_wheel, os\nprint(tiny_wheel.__file__.startswith(os.environ['HOME']))")
    ) == "True\n"
    assert ".whl" not in await run(sandbox, f"!python -c '{found.format('tiny_wheel')}'")
    said = await run(sandbox, "%pip install needy_wheel")
    assert "Successfully installed needy" in said
    assert ".whl" not in await run(sandbox, "import needy_wheel\nprint(needy_wheel.__file__)")
    assert "already satisfied" in await run(sandbox, "!python -m pip install traitlets")


async def test_missing_package(sandbox: Sandbox, wheels: Path) -> None:
    """A package without a wheel is refused at once, with the reason."""
    seen = await sandbox.execute("!python -m pip install no_such_package_here", timeout_s=30)
    assert "no network" in seen.stderr
    assert str(wheels) in seen.stderr
    assert seen.duration_s < 15


async def test_profiles_side_by_side() -> None:
    """Sandboxes of several profiles live at once, each as its own profile says; the seed is the attempt's."""
    other = {"memory_bytes": 300 << 20, "environment": {"WHO": "other"}, "network": "host"}
    async with SandboxPool(config("auto", profiles={"other": other}, environment={"WHO": "default"})) as pool:
        async with (
            pool.acquire(SandboxSpec(seed=5)) as one,
            pool.acquire(SandboxSpec(profile="other", seed=5)) as two,
        ):
            who = "import os, random; print(os.environ['WHO'], random.random())"
            said = [await run(one, who), await run(two, who)]
            assert [words.split()[0] for words in said] == ["default", "other"]
            assert said[0].split()[1] == said[1].split()[1]
            limit = "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[0])"
            assert await run(two, limit) == f"{300 << 20}\n"
            assert await run(one, limit) != await run(two, limit)
        with pytest.raises(UnknownProfile, match="known are default, other"):
            await pool.acquire(SandboxSpec(profile="third")).__aenter__()
