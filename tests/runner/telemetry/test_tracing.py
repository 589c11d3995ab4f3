"""Spans of a run: on when the environment asks for them, nested rightly, and nearly free when off."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bench_data import Samples
from runner.errors import ConfigError
from runner.journal import Journal
from runner.models import Completion, ModelRequest
from runner.plan import attempts
from runner.records import Usage
from runner.telemetry.tracing import NoTracer, OtelTracer, build_tracer
from sandbox_pool import FakePool
from tests.runner.factories import FakeModel, rollout_settings, sample, scheduler


class Model(FakeModel):
    async def complete(self, request: ModelRequest) -> Completion:
        text = "```python\nx\n```" if request.n_turns_done == 0 else "done"
        return Completion(text, "stop", usage=Usage(3, 4, 7))


async def test_spans_are_nested_across_many_tasks(tmp_path: Path) -> None:
    """Each trajectory has its turns, each turn its call and its cell, whatever runs beside it."""
    from dataclasses import replace

    exporter = InMemorySpanExporter()
    tracer = OtelTracer(exporter)
    settings = replace(rollout_settings(Model(), FakePool()), tracer=tracer)
    with Journal(tmp_path) as journal:
        await scheduler(settings, journal, 20, concurrency=10).run(
            attempts(Samples.of([sample(f"s{i}") for i in range(20)]), 1, ())
        )
    tracer.close()
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    by_name: dict[str, list[object]] = {}
    for span in spans.values():
        by_name.setdefault(span.name, []).append(span)
        parent = spans[span.parent.span_id].name if span.parent else None
        assert (
            parent == {"trajectory": None, "turn": "trajectory", "chat": "turn", "execute": "turn"}[span.name]
        )
    assert {name: len(of_name) for name, of_name in by_name.items()} == {
        "trajectory": 20,
        "turn": 40,
        "chat": 40,
        "execute": 20,
    }
    trajectories = [dict(span.attributes) for span in spans.values() if span.name == "trajectory"]
    assert {t["kernelfleet.attempt"] for t in trajectories} == {f"s{i}@1" for i in range(20)}
    assert {(t["kernelfleet.stop_reason"], t["kernelfleet.n_turns"]) for t in trajectories} == {("answer", 2)}
    call = next(span for span in spans.values() if span.name == "chat")
    assert dict(call.attributes)["gen_ai.usage.output_tokens"] == 4


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_off_unless_asked_for(environment: dict[str, str]) -> None:
    """Installed is not configured."""
    assert isinstance(build_tracer(environment), NoTracer)


def test_console_exporter() -> None:
    """The one that needs no other package."""
    tracer = build_tracer({"OTEL_TRACES_EXPORTER": "console"})
    assert isinstance(tracer, OtelTracer)
    tracer.close()


OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
EXPORTER = "opentelemetry.exporter.otlp.proto.{}.trace_exporter"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER=zipkin: not known here; use otlp or console",
        ),
        (OTLP, r"pip install 'kernelfleet\[tracing\]'"),
        (
            OTLP | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "pip install opentelemetry-exporter-otlp-proto-grpc",
        ),
        (
            OTLP | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "PROTOCOL=http/json: not known here; use http/pro",
        ),
    ],
)
def test_what_cannot_be_had_is_told(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown exporter or protocol, or one that is not installed: what to do."""
    for protocol in ("http", "grpc"):
        monkeypatch.setitem(sys.modules, EXPORTER.format(protocol), None)
    with pytest.raises(ConfigError, match=message):
        build_tracer(environment)


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, "http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http",
        ),
    ],
)
def test_protocol_is_the_environments(
    environment: dict[str, str], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans go by the exporter of that protocol; the variable for traces alone comes first."""
    exporters = {name: InMemorySpanExporter() for name in ("http", "grpc")}
    for name, exporter in exporters.items():
        module = SimpleNamespace(OTLPSpanExporter=lambda exporter=exporter: exporter)
        monkeypatch.setitem(sys.modules, EXPORTER.format(name), module)
    tracer = build_tracer(OTLP | environment)
    with tracer.span("turn", {}):
        pass
    tracer.close()
    assert [name for name, exporter in exporters.items() if exporter.get_finished_spans()] == [protocol]


def test_off_is_nearly_free() -> None:
    """Far below a hundredth of what a turn costs."""
    tracer = NoTracer()
    began_at = time.perf_counter()
    for _ in range(10_000):
        with tracer.span("turn", {}) as span:
            span.set_attributes({})
    assert (time.perf_counter() - began_at) / 10_000 < 50e-6
