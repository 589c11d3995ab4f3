"""The metrics page, scraped as Prometheus does."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runner.errors import ConfigError
from runner.telemetry import metrics
from runner.telemetry.metrics import MetricsServer
from runner.telemetry.statistics import RunStatistics
from tests.runner.progress.test_watch import FULL


async def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as response:
        assert response.status == 200
        families = text_string_to_metric_families(await response.text())
        return {
            (s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples
        }


async def test_page_says_what_the_run_says() -> None:
    """Counters and gauges have the statistics' values at the time of the scrape, under the documented names."""
    state = [FULL]
    server = MetricsServer(lambda: state[0], 0, {"run_id": "r1", "model": "m"})
    port = await server.start()
    try:
        values = await scrape(port)
        state[0] = RunStatistics(5, n_turns=7)
        later = await scrape(port)
    finally:
        await server.close()
    assert values["kernelfleet_trajectories_finished_total", (("stop_reason", "answer"),)] == 390
    assert values["kernelfleet_tries_failed_total", (("owner", "engine"),)] == 7
    assert values["kernelfleet_trajectories", (("phase", "model"),)] == 150
    assert values["kernelfleet_endpoint_up", (("endpoint", "gpu2:8000"),)] == 0
    assert values["kernelfleet_sandboxes", (("state", "leased"),)] == 49
    assert values["kernelfleet_loop_lag_seconds", (("quantile", "0.99"),)] == 0.012
    assert values["kernelfleet_run_info", (("model", "m"), ("run_id", "r1"))] == 1
    assert values["kernelfleet_paused", ()] == 1
    assert values["kernelfleet_cost_total", ()] == 1.25
    assert later["kernelfleet_turns_total", ()] == 7
    names = {name.removeprefix("kernelfleet_") for name, _ in values}
    assert names
    for name in names:
        assert name in (metrics.__doc__ or ""), f"{name} is not documented"


async def test_taken_port_is_told() -> None:
    """With the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"127.0.0.1:{port} cannot be listened on .*choose another port"
        ):
            await MetricsServer(lambda: RunStatistics(1), port, {}).start()
