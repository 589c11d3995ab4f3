"""A model on disk and a server of it, once for all tests of this folder; they skip where vLLM is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines_real.serving import vllm_server
from tests.engines_real.tiny_llama import write_tiny_llama


@pytest.fixture(name="tiny_llama", scope="session")
def _tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that any vLLM loads."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here: make test-engines")
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(name="server", scope="package")
def _server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server, without `/v1`."""
    with vllm_server(tiny_llama, tmp_path_factory.mktemp("server") / "vllm.log") as url:
        yield url
