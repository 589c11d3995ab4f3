"""vLLM's own API server as a child of the test, on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines_real.tiny_llama import ARGUMENTS, ENVIRONMENT

BOOT_LIMIT_S = 400.0
"""Half a minute on two idle cores; some two minutes the first time on busy ones."""
STOP_LIMIT_S = 30.0
NAME = "tiny"


@contextmanager
def vllm_server(model: Path, log: Path) -> Iterator[str]:
    """Yield the URL of a server of this model, without `/v1`, once it is healthy; end it on leaving.

    Raises:
        RuntimeError: it ended, or was not healthy in time; with the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port), *ARGUMENTS,
    ]  # fmt: skip
    environment = {**os.environ, **ENVIRONMENT}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        ) as server,
    ):
        try:
            _wait_until_healthy(server, url, log)
            yield url
        finally:
            _stop(server)


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + BOOT_LIMIT_S
    while not _is_healthy(url):
        if server.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
            raise RuntimeError(f"vLLM did not start (exit code {server.poll()}); its log ends:\n{tail}")
        time.sleep(0.5)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
