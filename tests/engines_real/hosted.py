"""Real vLLM as a run hosts it, open while synchronous tests and other loops use it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.config import RunConfig, check_config
from runner.engines import open_engines
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.engines_real.tiny_llama import ENVIRONMENT, N_BLOCKS


def vllm_config(model: Path, **engines: Any) -> RunConfig:
    """Return a config of engines of the tiny model; `engines` are further settings of that section."""
    args = {"enforce_eager": True, "num_gpu_blocks_override": N_BLOCKS, **engines.pop("args", {})}
    env = {**ENVIRONMENT, **engines.pop("env", {})}
    settings = {"served_name": NAME, "start_timeout_s": BOOT_LIMIT_S, "args": args, "env": env, **engines}
    return check_config({"model": f"vllm:{model}", "engines": settings})


@contextmanager
def hosted_vllm(config: RunConfig, logs: Path) -> Iterator[list[str]]:
    """Yield the URLs of the config's engines, with `/v1`, once they are ready; stop them on leaving.

    A thread keeps them, so that they belong to no test's event loop.

    Raises:
        RunnerError: as `open_engines`.
    """
    opened: Future[list[str]] = Future()
    closing = threading.Event()

    async def keep() -> None:
        async with await open_engines(config, logs) as group:
            opened.set_result([row.url for row in group.endpoints()])
            await asyncio.to_thread(closing.wait)

    def run() -> None:
        try:
            asyncio.run(keep())
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)

    thread = threading.Thread(target=run, name="engines")
    thread.start()
    try:
        yield opened.result()
    finally:
        closing.set()
        thread.join()
