"""A metrics page captured from vLLM is read; tests/engines_real holds that vLLM still serves its names."""

from __future__ import annotations

from pathlib import Path

from runner.admission import EngineLoad
from runner.models.engine_metrics import parse_engine_load

CAPTURED = Path(__file__).parent / "vllm_metrics.txt"


def test_captured_page_is_read() -> None:
    assert parse_engine_load(CAPTURED.read_text(encoding="utf-8")) == EngineLoad(
        n_running=0, n_waiting=0, kv_usage=0.0, n_preemptions=0, n_generated_tokens=120,
        max_kv_tokens=8192 * 128, n_prefix_queries=665, n_prefix_hits=512, n_waiting_for_room=0,
    )  # fmt: skip
