"""A run's figures for Prometheus. Made when they are asked for; they cost the run nothing else.

All names begin with `kernelfleet_`:

    run_info{run_id,model,benchmark}        1
    attempts{state}                         gauge    total, done_before, in_flight
    trajectories_finished_total{stop_reason}
    attempts_failed_total                   by our fault, after all tries
    attempts_cancelled_total
    tries_failed_total{owner}
    attempts_resumed_total, attempts_restarted_total
    trajectories{phase}                     gauge    queued, model, sandbox, executing
    trajectories_limit                      gauge
    turns_total
    tokens_total{kind}                      prompt, completion
    cost_total                              in the currency of model.prices
    endpoint_calls_in_flight{endpoint}, endpoint_calls_limit, endpoint_calls_waiting,
    endpoint_trajectories, endpoint_latency_seconds, endpoint_up                gauges
    endpoint_calls_total{endpoint}, endpoint_calls_failed_total{endpoint}
    sandboxes{state}                        gauge    leased, waiting, idle
    sandboxes_limit                         gauge
    loop_lag_seconds{quantile}              gauge    0.5, 0.99: how late the event loop is
    paused, draining                        gauge    0 or 1
    elapsed_seconds                         gauge
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from runner.errors import ConfigError
from runner.telemetry.statistics import EndpointStatistics, RunStatistics

HOST = "127.0.0.1"


class MetricsServer:
    """Serves `/metrics` on 127.0.0.1 from the running loop. The caller closes it."""

    def __init__(self, statistics: Callable[[], RunStatistics], port: int, labels: Mapping[str, str]) -> None:
        self._port = port
        self._registry = CollectorRegistry()
        self._registry.register(_RunCollector(statistics, labels))
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; return the port. Raises ConfigError when it is taken."""
        application = web.Application()
        application.router.add_get("/metrics", self._page)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._port).start()
        except OSError as error:
            await self.close()
            raise ConfigError(
                f"metrics_port: {HOST}:{self._port} cannot be listened on ({error.strerror}); choose another "
                "port, or 0 for a free one"
            ) from error
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, request: web.Request) -> web.Response:
        page = generate_latest(self._registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _RunCollector(Collector):
    def __init__(self, statistics: Callable[[], RunStatistics], labels: Mapping[str, str]) -> None:
        self._statistics = statistics
        self._labels = dict(labels)

    def collect(self) -> Iterator[Metric]:
        s = self._statistics()
        yield InfoMetricFamily("kernelfleet_run", "What is run.", value=self._labels)
        yield from _attempts(s)
        yield from _work(s)
        yield from _endpoints(s.endpoints)
        yield from _host(s)


def _attempts(s: RunStatistics) -> Iterator[Metric]:
    counts = {"total": s.n_total, "done_before": s.n_done_before, "in_flight": s.n_in_flight}
    yield _gauge("attempts", "Attempts of this process, and those done before.", "state", counts)
    yield _counter("trajectories_finished", "Trajectories with a line.", "stop_reason", s.stop_reasons)
    yield _counter_of("attempts_failed", "Attempts that failed by our fault, after all tries.", s.n_failed)
    yield _counter_of("attempts_cancelled", "Attempts that were cancelled.", s.n_cancelled)
    yield _counter("tries_failed", "Tries that failed by our fault.", "owner", s.failures_by_owner)
    yield _counter_of("attempts_resumed", "Attempts that went on from recorded turns.", s.n_resumed)
    yield _counter_of("attempts_restarted", "Attempts with recorded turns that began again.", s.n_restarted)


def _work(s: RunStatistics) -> Iterator[Metric]:
    yield _gauge("trajectories", "Trajectories in flight.", "phase", s.phases)
    yield _gauge_of("trajectories_limit", "Trajectories that may be in flight.", s.max_trajectories)
    yield _counter_of("turns", "Replies of the model.", s.n_turns)
    tokens = {"prompt": s.n_prompt_tokens, "completion": s.n_completion_tokens}
    yield _counter("tokens", "Tokens, by the server's count where it gives one.", "kind", tokens)
    yield _counter_of("cost", "Cost by model.prices.", s.cost or 0.0)
    yield _gauge_of("elapsed_seconds", "Since the run of this process began.", s.elapsed_s)
    yield _gauge_of("paused", "Whether no attempt is begun.", float(s.paused is not None))
    yield _gauge_of("draining", "Whether the run is about to end early.", float(s.draining is not None))


def _endpoints(endpoints: tuple[EndpointStatistics, ...]) -> Iterator[Metric]:
    def by_name(value: Callable[[EndpointStatistics], float]) -> dict[str, float]:
        return {endpoint.name: value(endpoint) for endpoint in endpoints}

    gauges: Mapping[str, tuple[str, Callable[[EndpointStatistics], float]]] = {
        "endpoint_calls_in_flight": ("Calls in flight.", lambda e: e.n_calls_in_flight),
        "endpoint_calls_limit": ("Calls that may be in flight.", lambda e: e.max_calls),
        "endpoint_calls_waiting": ("Trajectories that wait for a call slot.", lambda e: e.n_calls_waiting),
        "endpoint_trajectories": ("Trajectories that stick to it.", lambda e: e.n_trajectories),
        "endpoint_latency_seconds": ("Of a call, smoothed.", lambda e: e.latency_s or 0.0),
        "endpoint_up": ("Whether it is not ejected.", lambda e: e.state == "ready"),
    }
    for name, (what, value) in gauges.items():
        yield _gauge(name, what, "endpoint", by_name(value))
    yield _counter("endpoint_calls", "Calls.", "endpoint", by_name(lambda e: e.n_calls))
    failed = by_name(lambda e: e.n_failed_calls)
    yield _counter("endpoint_calls_failed", "Calls that failed.", "endpoint", failed)


def _host(s: RunStatistics) -> Iterator[Metric]:
    if s.sandboxes is not None:
        boxes = s.sandboxes
        counts = {"leased": boxes.n_leased, "waiting": boxes.n_waiting, "idle": boxes.n_idle}
        yield _gauge("sandboxes", "Sandboxes, and those waited for.", "state", counts)
        yield _gauge_of("sandboxes_limit", "Sandboxes that may be leased.", boxes.max_leased)
    lags = {"0.5": s.loop_lag_p50_s, "0.99": s.loop_lag_p99_s}
    yield _gauge("loop_lag_seconds", "How late the event loop is, over a minute.", "quantile", lags)


def _gauge(name: str, what: str, label: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"kernelfleet_{name}", what, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _counter(name: str, what: str, label: str, values: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"kernelfleet_{name}", what, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _gauge_of(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"kernelfleet_{name}", what, value=value)


def _counter_of(name: str, what: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"kernelfleet_{name}", what, value=value)
