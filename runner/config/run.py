"""RunConfig: all sections, and what concerns the run as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bench_data import DataOptions
from runner.config.admission import AdmissionConfig
from runner.config.base import ConfigModel
from runner.config.cluster import ClusterConfig
from runner.config.engines import EnginesConfig
from runner.config.failures import BreakerConfig, ResumeConfig
from runner.config.limits import Limits, RunLimits
from runner.config.model import ModelConfig
from runner.config.prompts import PromptsFile, with_prompts
from runner.config.protocol import ProtocolConfig
from runner.errors import ConfigError
from sandbox_pool import PoolConfig

SHORT_FOR = {"model": "client", "protocol": "kind", "prompts": "path", "cluster": "kind"}
"""Sections for which YAML may have a bare string, and the key that it stands for."""


class RunConfig(ConfigModel):
    """One run."""

    benchmark: str = "quickstart"
    """`quickstart`, `pybench` or `jsonl:FILE`; `python -m bench_data list` names all."""

    profile: Literal["default", "upstream"] = "default"
    """Whose rules hold where PyBench's differ from ours. `upstream`: observations are not shortened, the two
    user messages stay two, and kernels are ipykernel's, unless a setting says otherwise."""

    prompts: PromptsFile | None = None
    """A config of PyBench's own, such as `config/llama3.yaml` in a checkout: its system prompt, tokens,
    turns, model and sampling are the defaults of this run. None: the protocol's own prompt."""

    data: DataOptions = DataOptions()
    model: ModelConfig = ModelConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    limits: Limits = Limits()
    sandbox: PoolConfig = PoolConfig()
    artifacts: tuple[str, ...] = ("output/**",)
    """Which files of the working directory are kept, as globs."""

    concurrency: int = Field(default=16, ge=1)
    """Most trajectories in flight; fewer are where the engines or this machine can bear no more."""

    admission: AdmissionConfig = AdmissionConfig()
    engines: EnginesConfig = EnginesConfig()
    cluster: ClusterConfig = ClusterConfig()
    run_limits: RunLimits = RunLimits()
    resume: ResumeConfig = ResumeConfig()
    breaker: BreakerConfig = BreakerConfig()

    epochs: int = Field(default=1, ge=1)
    """Attempts per sample."""

    limit: int | None = Field(default=None, ge=1)
    """Run only so many samples."""

    samples: str | None = None
    """Run only samples whose id matches this glob."""

    shuffle: int | None = None
    """Seed of the order; None: the benchmark's own order."""

    seed: int = 0
    """The seed of each attempt is derived from this one and recorded."""

    run_dir: Path | None = None
    """None: a new folder below `runs/`."""

    grace_s: float = Field(default=30.0, ge=0)
    """How long running trajectories may go on after SIGINT or SIGTERM."""

    max_failed_share: float = Field(default=0.02, ge=0, le=1)
    """Of all attempts, how many may have failed by no fault of the model before scoring withholds its
    headline number."""

    progress: Literal["auto", "live", "plain", "json", "quiet"] = "auto"
    """`auto`: live on a terminal, else plain lines; `json`: a JSON object a line on standard error."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve Prometheus metrics on this port of 127.0.0.1; 0 takes a free one."""

    @property
    def merges_user_messages(self) -> bool:
        """Whether consecutive user messages become one."""
        chosen = self.protocol.merge_user_messages
        return self.profile != "upstream" if chosen is None else chosen

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, data: Any) -> Any:
        """Let `model: oracle` stand for `model: {client: oracle}` and so on; read the file of `prompts`."""
        if not isinstance(data, Mapping):
            return data
        written = {
            key: {SHORT_FOR[key]: data[key]} for key in SHORT_FOR if isinstance(data.get(key), str | Path)
        }
        return with_prompts({**data, **written})

    @model_validator(mode="after")
    def _prices_where_cost_is_limited(self) -> Self:
        for section in ("limits", "run_limits"):
            limit = getattr(self, section).max_cost
            if limit is not None and self.model.prices is None:
                raise ConfigError(
                    f"{section}.max_cost: {limit:g} of what is not known; set model.prices, for example "
                    "{prompt: 0.5, completion: 1.5} per million tokens"
                )
        return self

    @field_validator("benchmark")
    @classmethod
    def _absolute_file(cls, benchmark: str) -> str:
        """Let scoring find the file from whichever folder it is started in."""
        kind, _, path = benchmark.partition(":")
        return f"{kind}:{Path(path).absolute()}" if kind == "jsonl" and path else benchmark

    @field_validator("data")
    @classmethod
    def _absolute_root(cls, data: DataOptions) -> DataOptions:
        return data.model_copy(update={"root": data.root.absolute()}) if data.root else data

    @field_validator("artifacts")
    @classmethod
    def _relative_globs(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if glob.startswith("/") or ".." in glob.split("/"):
                raise ValueError(f"{glob!r} leaves the working directory")
        return globs
