"""What an engine's log says about why it did not start, and what to do."""

from __future__ import annotations

import pytest

from runner.engines.diagnosis import describe_status, error_lines, excerpt, remedy
from tests.fake_engine import CUDA_OOM, NO_KV_SPACE


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (CUDA_OOM, "tensor_parallel"),
        (NO_KV_SPACE, "max_model_len"),
        ("ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB).", "another process"),
        ("OSError: [Errno 98] Address already in use", "port"),
        ("api_server.py: error: unrecognized arguments: --nonsense", "engines.args"),
        ("ModuleNotFoundError: No module named 'vllm'", "make install-engines"),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "engines.dtype"),
        ("OSError: x is not a local folder and is not a valid model identifier listed on the hub", "folder"),
    ],
)  # fmt: skip
def test_known_failures_have_a_remedy(log: str, expected: str) -> None:
    """It names the setting to change, and the line that says so."""
    said = remedy(f"INFO loading\n{log}\nINFO bye", "exit code 1")
    assert expected in said.removesuffix(f"({log[:200]})")
    assert said.endswith(f"({log[:200]})")


def test_a_kill_from_outside_is_named() -> None:
    """The memory killer leaves nothing in the log."""
    assert "too little memory" in remedy("INFO loading", describe_status(-9))
    assert "the log says why" in remedy("INFO loading", describe_status(1))


def test_the_error_is_shown_although_much_was_written_behind_it() -> None:
    """An engine on its way out says what it leaks."""
    log = "\n".join(["INFO loading"] * 50 + [CUDA_OOM] + ["leaked function"] * 200)
    shown = excerpt(log).splitlines()
    assert shown[0] == CUDA_OOM
    assert len(shown) < 30
    assert error_lines(log, 5) == [CUDA_OOM]
    assert error_lines("a\nb\nc", 2) == ["b", "c"]
    assert excerpt("a\nb") == "a\nb"
