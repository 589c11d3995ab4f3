"""Spans of trajectories, turns, model calls and cells, through OpenTelemetry.

On when its packages are installed (`pip install kernelfleet[tracing]`) and its standard environment variables
name an exporter: OTEL_TRACES_EXPORTER (`otlp`, `console`) or OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_SDK_DISABLED
turns it off, OTEL_EXPORTER_OTLP_PROTOCOL (`http/protobuf`, or `grpc` with its own package), OTEL_SERVICE_NAME
and the others mean what OpenTelemetry says. Off, a span costs a call.

Attributes follow OpenTelemetry's conventions for generative AI where there are any (`gen_ai.*`); ours
begin with `kernelfleet.`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from runner.errors import ConfigError

SERVICE_NAME = "kernelfleet"
EXPORTERS = ("otlp", "console")
PROTOCOLS = ("http/protobuf", "grpc")
"""Of the exporter `otlp`; the first is the default."""

GRPC_PACKAGE = "opentelemetry-exporter-otlp-proto-grpc"


class Span(Protocol):
    """What the code that is traced says of itself."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes; of None, nothing."""


class Tracer(Protocol):
    """Makes spans; each is a child of the one that is open in the same task."""

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """Open a span for the length of a block."""
        ...

    def close(self) -> None:
        """Send what is left. Blocks, for some seconds at most."""


class NoSpan:
    """Takes anything and keeps nothing."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See Span."""


class NoTracer:
    """Traces nothing."""

    _nothing = nullcontext(NoSpan())

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """See Tracer."""
        return self._nothing

    def close(self) -> None:
        """See Tracer."""


def build_tracer(environment: Mapping[str, str] = os.environ) -> Tracer:
    """Return the tracer that the environment asks for.

    Raises:
        ConfigError: it asks for one, and OpenTelemetry or the exporter is not installed.
    """
    name = environment.get("OTEL_TRACES_EXPORTER", "")
    if not name and any(environment.get(f"OTEL_EXPORTER_OTLP{kind}_ENDPOINT") for kind in ("", "_TRACES")):
        name = "otlp"
    if name in ("", "none") or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTracer()
    if name not in EXPORTERS:
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER={name}: not known here; use {' or '.join(EXPORTERS)}, or none"
        )
    protocol = _protocol(environment) if name == "otlp" else ""
    try:
        return OtelTracer(_exporter(protocol))
    except ImportError as error:
        package = GRPC_PACKAGE if protocol == "grpc" else "'kernelfleet[tracing]'"
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER={name} asks for traces, and {error.name} is not installed: "
            f"pip install {package}, or set OTEL_TRACES_EXPORTER=none"
        ) from error


def _protocol(environment: Mapping[str, str]) -> str:
    for key in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(key, ""):
            if protocol not in PROTOCOLS:
                raise ConfigError(f"{key}={protocol}: not known here; use {' or '.join(PROTOCOLS)}")
            return protocol
    return PROTOCOLS[0]


def _exporter(protocol: str) -> Any:
    match protocol:
        case "":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class OtelTracer:
    """Sends spans through OpenTelemetry, from a thread of its own."""

    def __init__(self, exporter: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # The environment's OTEL_SERVICE_NAME, if there is one, wins over ours.
        name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("runner")
        self._use = trace.use_span

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """See Tracer."""
        span = self._tracer.start_span(name, attributes=_known(attributes))
        return _Open(self._use(span, end_on_exit=True, record_exception=False))

    def close(self) -> None:
        """See Tracer."""
        self._provider.shutdown()


class _Open:
    """A span in use, whose attributes may be None."""

    def __init__(self, use: Any) -> None:
        self._use = use
        self._span: Any = None

    def __enter__(self) -> _Open:
        self._span = self._use.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return bool(self._use.__exit__(*error))

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(_known(attributes))


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if value is not None}
