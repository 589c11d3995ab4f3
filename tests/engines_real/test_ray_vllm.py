"""VLLM itself on Ray: boots in an actor, answers as our client asks, comes back after its core is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from runner.config import check_config
from runner.engines import open_engines
from runner.engines.ray_connection import connect, disconnect
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.engines_real.tiny_llama import ENVIRONMENT
from tests.processes import processes_below, wait_until_gone
from tests.runner.engines.test_open_engines import ask

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-engines"),
    pytest.mark.timeout(2 * BOOT_LIMIT_S + 120),
]


def core_of(folder: Path) -> int:
    """Return the process of a folder's engine that computes."""
    names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in processes_below(folder)}
    return next(pid for pid, name in names.items() if name.startswith("VLLM::EngineCor"))


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_vllm_comes_back_when_its_core_is_killed(tiny_llama: Path, tmp_path: Path) -> None:
    """The same request has the same answer of the next epoch, and nothing is left at the end."""
    settings = check_config(
        {
            "model": f"vllm:{tiny_llama}",
            "cluster": {"address": "local"},
            "engines": {
                "kind": "ray",
                "served_name": NAME,
                "args": {"enforce_eager": True, "num_gpu_blocks_override": 1024},
                "env": {**ENVIRONMENT, "FOLDER": str(tmp_path)},
                "start_timeout_s": BOOT_LIMIT_S,
            },
        }
    )
    body = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "seed": 1}
    await asyncio.to_thread(connect, "local")
    try:
        async with await open_engines(settings, tmp_path / "logs") as group:
            (row,) = group.endpoints()
            status, first = await ask(row.url, "chat/completions", **body)
            assert status == 200
            os.kill(core_of(tmp_path), signal.SIGKILL)
            async with asyncio.timeout(BOOT_LIMIT_S):
                while (row.epoch, row.state) != (2, "ready"):
                    await asyncio.sleep(1.0)
                    (row,) = group.endpoints()
            _, again = await ask(row.url, "chat/completions", **body)
            assert again["choices"][0]["message"] == first["choices"][0]["message"]
        assert not wait_until_gone(tmp_path)
    finally:
        await asyncio.to_thread(disconnect)
    assert "Application startup complete" in (tmp_path / "logs" / "engine-0.log").read_text()
