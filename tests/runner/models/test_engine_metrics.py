"""vLLM's metrics page, as version 0.29 serves it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.admission import EngineLoad
from runner.models.engine_metrics import parse_engine_load

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 12.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.75
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:num_preemptions_total{engine="1",model_name="m"} 1.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 700.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",cache_dtype="auto"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000",cache_dtype="auto"} 1.0
vllm:request_queue_time_seconds_sum{engine="0"} NaN
process_cpu_seconds_total 12.5
"""


def test_page_is_read() -> None:
    """Counts are summed over engines, of the cache's use the highest counts."""
    assert parse_engine_load(PAGE) == EngineLoad(
        n_running=15, n_waiting=4, kv_usage=0.75, n_preemptions=3, n_generated_tokens=1_500_000,
        max_kv_tokens=32_000, n_prefix_queries=1000, n_prefix_hits=700, n_waiting_for_room=4,
    )  # fmt: skip


@pytest.mark.parametrize("page", ["", "<html>", "python_info 1.0\n", "llamacpp:requests_processing 1\n"])
def test_other_pages_are_none(page: str) -> None:
    """A server that is not vLLM says nothing here."""
    assert parse_engine_load(page) is None


def test_numbers_that_are_none() -> None:
    """NaN and infinities are left out."""
    load = parse_engine_load(
        "vllm:num_requests_running 1\nvllm:kv_cache_usage_perc NaN\nvllm:num_requests_waiting +Inf\n"
    )
    assert load is not None
    assert (load.kv_usage, load.n_waiting) == (None, 0)


@settings(deadline=None)
@given(st.text(alphabet='vllm:num_requests_running{}="0123456789.e+\n ', max_size=200))
def test_any_page_is_read_or_not(page: str) -> None:
    """Never an error."""
    parse_engine_load(page)
