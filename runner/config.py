"""RunConfig: everything that a run depends on, checked before any work is done.

Order of precedence: defaults, the file that `prompts` names, config file, `--set key.path=value`, explicit
options. No environment variable changes a setting; the API key is read from the one that
`model.api_key_env` names. Paths are relative to the current folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench_data import DataOptions
from runner.errors import ConfigError
from runner.upstream_prompts import read_upstream
from runner.yaml_file import parse_mapping, parse_yaml, read_bytes
from sandbox_pool import PoolConfig
from sandbox_pool.config import Profile


class ConfigModel(BaseModel):
    """Strict: an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OWN_ENGINE_ARGS = {
    "host": "the runner chooses it",
    "port": "the runner takes a free one",
    "uds": "engines are asked over TCP",
    "api_key": "set engines.env.VLLM_API_KEY and model.api_key_env",
    "model": "name it with --model vllm:PATH_OR_ID",
    "served_model_name": "set engines.served_name",
    "dtype": "set engines.dtype",
    "chat_template": "set engines.chat_template",
    "tensor_parallel_size": "set engines.tensor_parallel",
    "pipeline_parallel_size": "set engines.pipeline_parallel",
}
"""Options of vLLM's server that are not for `engines.args`, and what to do instead."""

SHORT_FOR = {"model": "client", "protocol": "kind", "prompts": "path", "cluster": "kind"}
"""Sections for which YAML may have a bare string, and the key that it stands for."""


class Prices(ConfigModel):
    """What a model costs, per million tokens, in one currency for all."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class ModelConfig(ConfigModel):
    """Who answers. In YAML a bare string stands for `client`."""

    client: str = "oracle"
    """`vllm:PATH_OR_ID` (engines of our own), `openai:URL[,URL...]` (servers of one model), `replay:FILE`,
    `oracle`, `decoy` or `nop`."""

    name: str | None = None
    """The model's name in requests; when unset, the only one that the server lists."""

    request: dict[str, Any] = {}
    """Merged verbatim into the request body: temperature, max_tokens, top_p, ... A `stop` here replaces the
    protocol's own."""

    headers: dict[str, str] = {}
    """Sent with every request. Their values are not written to the run directory."""

    api_key_env: str | None = None
    """The environment variable that holds the API key; None: no Authorization header."""

    timeout_s: float = Field(default=600.0, gt=0)
    """For one request, from sending it to the last byte of the answer."""

    max_retries: int = Field(default=6, ge=0)
    """Further tries of a request after a connection error, 408, 429, 5xx or an unreadable answer."""

    max_backoff_s: float = Field(default=30.0, ge=0)
    """Longest wait between two tries, unless the server's Retry-After asks for more; for more than
    `timeout_s`, the call fails."""

    send_seed: bool = True
    """Send a `seed` with each request, derived from the attempt's; one in `request` replaces it."""

    send_reasoning: bool = False
    """Send back what the model thought in earlier turns (`reasoning_content`); it is recorded either way."""

    prices: Prices | None = None
    """None: nothing is known of costs, and no limit on them may be set."""

    cache: Path | None = None
    """A folder of replies by the content of their requests: a request that was made before is not made again.
    For judges, and for temperature 0."""


class Truncation(ConfigModel):
    """How much of an observation the model is shown."""

    head_chars: int = Field(ge=0)
    tail_chars: int = Field(ge=0)


class ProtocolConfig(ConfigModel):
    """How the model writes an action and is told the observation."""

    kind: Literal["fenced", "function_call", "execute_tag", "tool_call"] | None = None
    """None: the one that the benchmark is written for."""

    system_prompt: str | None = None
    """None: the protocol's own. An empty string sends no system message."""

    code_start_token: str | None = Field(default=None, min_length=1)
    """What code stands behind in a reply, of `fenced`; None: ```` ```python ````."""

    code_end_token: str | None = Field(default=None, min_length=1)
    """What code ends before, of `fenced`; None: ```` ``` ````."""

    tool_call_token: str | None = Field(default=None, min_length=1)
    """What a call stands behind in a reply, of `function_call`; None: `<|tool_call|>`."""

    truncation: Literal["default", "off"] | Truncation = "default"
    """Of observations; the default is the protocol's own, and none for `profile: upstream`."""

    merge_user_messages: bool | None = None
    """Join consecutive user messages with a blank line: strict chat templates reject two in a row. None: yes,
    but for `profile: upstream`."""


class PromptsFile(ConfigModel):
    """A config file of PyBench's own, below all other settings. In YAML a bare string stands for `path`."""

    path: Path
    sha256: str = ""
    """Of the file; filled in."""

    given: tuple[str, ...] = ()
    """The settings whose values come from it; filled in."""

    unused: tuple[str, ...] = ()
    """Its keys whose values are not used, such as credentials; filled in."""


class Limits(ConfigModel):
    """When a trajectory ends that does not end by itself."""

    max_turns: int = Field(default=10, ge=1)
    working_s: float = Field(default=1800.0, gt=0)
    """Wall time of a trajectory, less what it waited in our queues (for a sandbox, for its turn to call the
    model) or lost to a failing server."""

    wall_s: float | None = Field(default=None, gt=0)
    """Wall time of a trajectory, waits included; one that mostly waited is not the model's failure."""

    max_total_tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens, summed over all calls of a trajectory."""

    max_cost: float | None = Field(default=None, gt=0)
    """By `model.prices`, in their currency."""

    max_repeated_actions: int | None = Field(default=None, ge=2)
    """How often in a row the same code may be asked for: the last of so many is not executed any more."""

    cell_s: float = Field(default=60.0, gt=0)
    """Wall time of one cell: then it is interrupted, and killed if that does not help."""

    max_tries: int = Field(default=3, ge=1)
    """How often an attempt is begun, the first time included, when a sandbox or the engine failed."""


class RunLimits(ConfigModel):
    """When a run ends that is not done: running trajectories get `grace_s`, a resume goes on.

    A resume counts from zero again.
    """

    wall_s: float | None = Field(default=None, gt=0)
    max_total_tokens: int | None = Field(default=None, ge=1)
    max_cost: float | None = Field(default=None, gt=0)


class ResumeConfig(ConfigModel):
    """How trajectories go on that a killed or drained run left unfinished, or a failure of ours broke off."""

    unit: Literal["turns", "attempts"] = "turns"
    """`turns`: from the last finished turn, by executing the recorded actions again in a fresh sandbox;
    `attempts`: from the beginning."""

    on_divergence: Literal["restart", "continue"] = "restart"
    """What to do where an action gives another observation than it had given: begin the attempt again, or go
    on with what was recorded."""

    max_reexecute_s: float = Field(default=600.0, ge=0)
    """Attempts whose recorded actions took longer begin again."""


class AdmissionConfig(ConfigModel):
    """How many model calls may be in flight for each endpoint, and how many sandboxes may be leased."""

    mode: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: as the endpoints' answers, their metrics and this machine's pressure allow; `fixed`: up to
    `concurrency`, whatever comes."""

    max_calls: int | None = Field(default=None, ge=1)
    """Most calls in flight for each endpoint; None: as many as trajectories."""

    poll_s: float = Field(default=2.0, gt=0)
    """How often an endpoint's metrics page and this machine's pressure are read."""

    kv_grow: float = Field(default=0.6, ge=0, le=1)
    """An engine is given more only while less than this share of its KV cache is in use."""

    kv_target: float = Field(default=0.7, gt=0, le=1)
    """What a trim of trajectories aims at."""

    kv_soft: float = Field(default=0.8, gt=0, le=1)
    """Above this share an engine's trajectories are trimmed: new ones wait, those that run go on."""

    kv_hard: float = Field(default=0.9, gt=0, le=1)
    """Above this share they are trimmed again sooner."""

    stall_s: float = Field(default=30.0, gt=0)
    """An engine that has calls and makes no token for so long is sent fewer, and again after as long."""

    @model_validator(mode="after")
    def _in_order(self) -> AdmissionConfig:
        shares = (self.kv_grow, self.kv_target, self.kv_soft, self.kv_hard)
        if list(shares) != sorted(shares):
            raise ValueError(
                "kv_grow, kv_target, kv_soft and kv_hard must not fall in this order, "
                f"and are {', '.join(f'{share:g}' for share in shares)}"
            )
        return self


class BreakerConfig(ConfigModel):
    """When a run pauses because of failures of the infrastructure."""

    max_share: float = Field(default=0.5, gt=0, le=1)
    """Of the last `window` tries, how many may have failed for the same reason."""

    window: int = Field(default=20, ge=2)
    max_pause_s: float = Field(default=900.0, ge=0)
    """How long the run probes before it stops."""


class EnginesConfig(ConfigModel):
    """The vLLM engines that a run hosts for `model.client: vllm:PATH_OR_ID`; unused with other clients."""

    kind: Literal["auto", "local", "ray"] = "auto"
    """`local`: on this machine; `ray`: on the GPUs of a Ray cluster; `auto`: where the run itself is."""

    replicas: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """How many engines; `auto`: GPUs divided by GPUs per replica, and one where vLLM runs on the CPU."""

    tensor_parallel: int = Field(default=1, ge=1)
    pipeline_parallel: int = Field(default=1, ge=1)
    gpus_per_replica: int | None = Field(default=None, ge=0)
    """None: tensor_parallel times pipeline_parallel, and 0 where vLLM was built for the CPU."""

    cpus_per_replica: int = Field(default=1, ge=0)
    """What Ray sets aside for each."""

    args: dict[str, Any] | tuple[str, ...] = {}
    """Further options of vLLM's server: a mapping (`max_model_len: 8192`; true and false for switches, null
    for none of our defaults), or a list that goes to its command line as it is."""

    env: dict[str, str] = {}
    """Environment variables of the engines, beside the runner's own."""

    chat_template: Path | None = None
    """A Jinja file; None: the model's own."""

    served_name: str | None = None
    """The model's name in requests; None: as it stands behind `vllm:`."""

    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"

    start_timeout_s: float = Field(default=1800.0, gt=0)
    """From the start of the process to its first answer: downloads, weights, compilation."""

    stall_s: float = Field(default=300.0, gt=0)
    """An engine that has requests and makes no token for so long is started again."""

    max_restarts: int = Field(default=3, ge=0)
    """Of one engine within `restart_window_s`; then it is given up."""

    restart_window_s: float = Field(default=3600.0, gt=0)

    command: tuple[str, ...] = ()
    """What is run in place of `python -m vllm.entrypoints.openai.api_server`: a wrapper, another Python."""

    @field_validator("args", mode="before")
    @classmethod
    def _not_ours(cls, args: Any) -> Any:
        if isinstance(args, Mapping):
            given = list(args)
        elif isinstance(args, list | tuple) and all(isinstance(arg, str) for arg in args):
            given = [arg[2:] for arg in args if arg.startswith("--")]
        else:
            raise ValueError(
                "write a mapping (max_model_len: 8192), or a list of texts (['--lora-modules', 'a=b'])"
            )
        for name in given:
            if instead := OWN_ENGINE_ARGS.get(str(name).partition("=")[0].replace("-", "_")):
                raise ValueError(f"{name} is not passed through; {instead}")
        return args

    @field_validator("chat_template")
    @classmethod
    def _absolute_template(cls, path: Path | None) -> Path | None:
        return path.absolute() if path else None


class ClusterConfig(ConfigModel):
    """Where the sandboxes of a run are. In YAML a bare string stands for `kind`."""

    kind: Literal["none", "ray"] = "none"
    """`none`: on this machine, in this process; `ray`: on the nodes of a Ray cluster, a worker on each."""

    address: str | None = None
    """Of the cluster: `HOST:PORT`, or `auto` for the one of this machine. None: what RAY_ADDRESS says, as in
    a Ray job, and else a cluster of this machine alone, for this run."""

    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """At most so many; `auto`: on each node that has a CPU, or, where some declare the resource `sandbox`, on
    those alone; on nodes that join later, too."""

    cpus_per_worker: float = Field(default=1.0, ge=0)
    """What Ray sets aside for each. Sandboxes are not bound by it."""

    window_factor: float = Field(default=2.0, ge=1)
    """How many attempts a worker is given ahead, times the trajectories that it may have in flight."""

    drain_s: float | None = Field(default=None, ge=0)
    """In place of `grace_s`. None: in a Ray job what RAY_JOB_STOP_WAIT_TIME_S leaves of it."""


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
        return _with_prompts({**data, **written})

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


NOT_RECORDED = "(not recorded)"


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Read a config file (None: all defaults), lay overrides (`a.b` -> value) over it, check it.

    Raises:
        ConfigError: names the file, the line or the key, the value and what is allowed.
    """
    data = read_settings(path, overrides)
    where = f"{path}: " if path else ""
    if "matrix" in data:
        raise ConfigError(f"{where}it holds a matrix: run it with python -m runner sweep {path}")
    return check_config(data, where)


def check_config(data: Mapping[str, Any], where: str = "") -> RunConfig:
    """Return the config that a mapping describes. Raises ConfigError, whose message begins with `where`."""
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(where + _first_problem(error)) from error
    for key, value in flatten(config.model_dump(mode="json")).items():
        try:
            orjson.dumps(value)
        except TypeError as error:
            raise ConfigError(f"{where}{key}: {value!r} cannot be sent or recorded: {error}") from error
    return config


def read_settings(path: Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Read a config file and lay overrides over it, unchecked. Raises ConfigError."""
    what = f"config file {path}"
    data = parse_mapping(read_bytes(path, "config file"), what) if path else {}
    for key, value in overrides.items():
        set_key(data, key, value)
    return data


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `key.path=value`; the value is read as YAML 1.2. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: write key.path=value, for example --set limits.max_turns=5")
    return key, parse_yaml(value, source=f"--set {key}")


def public_config(config: RunConfig) -> dict[str, Any]:
    """Return the config as JSON for the run directory, without the values of headers and URLs' passwords."""
    data = config.model_dump(mode="json")
    model = data["model"]
    model["client"] = re.sub(r"://[^/?#,\s]*@", "://", model["client"])
    model["headers"] = dict.fromkeys(model["headers"], NOT_RECORDED)
    data["engines"]["env"] = dict.fromkeys(data["engines"]["env"], NOT_RECORDED)
    if isinstance(headers := model["request"].get("extra_headers"), dict):
        model["request"]["extra_headers"] = dict.fromkeys(headers, NOT_RECORDED)
    return data


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping of dotted keys; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _with_prompts(data: dict[str, Any]) -> dict[str, Any]:
    """Lay what the file of `prompts` says below the other settings. Raises ConfigError."""
    prompts = data.get("prompts")
    prompts = prompts.model_dump() if isinstance(prompts, PromptsFile) else prompts
    if not isinstance(prompts, Mapping) or not isinstance(path := prompts.get("path"), str | Path):
        return data
    content = read_bytes(Path(path), "prompts")
    upstream = read_upstream(parse_mapping(content, f"prompts {path}"), f"prompts {path}")
    sections = {key: _as_mapping(data[key]) for key in upstream.settings if key in data}
    said = flatten(sections)
    read = {
        "path": Path(path).absolute(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "given": tuple(key for key in flatten(upstream.settings) if key not in said),
        "unused": upstream.unused,
    }
    return {**data, **lay_over(upstream.settings, sections), "prompts": {**prompts, **read}}


def _as_mapping(section: Any) -> Any:
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else section


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one, in which the values of `above` win, key by key."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = lay_over(under, value)
        else:
            merged[key] = value
    return merged


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` in nested mappings. Raises ConfigError where something else is in the way."""
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        child = data.get(part)
        if depth == 0 and part in SHORT_FOR and isinstance(child, str):
            child = {SHORT_FOR[part]: child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {'.'.join(parts[: depth + 1])} is {child!r}, not a mapping")
        data[part] = child
        data = child
    data[parts[-1]] = value


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), ConfigError):
        return str(cause)
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{_known_keys(first['loc'])}{more}"
    problem = first["msg"].removeprefix("Value error, ")
    return f"{key}: {problem}, got {first['input']!r}{more}"


def _known_keys(location: Sequence[int | str]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        found = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        model = found.annotation if found else None
    if location[:2] == ("sandbox", "profiles"):  # their values are checked by the pool's config itself
        model = Profile
    fields = getattr(model, "model_fields", None)
    return f"; known here: {', '.join(fields)}" if fields else ""
