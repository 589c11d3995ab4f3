"""RunConfig: everything that a run depends on, checked before any work is done.

Order of precedence: defaults, the file that `prompts` names, config file, `--set key.path=value`, explicit
options. No environment variable changes a setting; the API key is read from the one that
`model.api_key_env` names. Paths are relative to the current folder.
"""

from runner.config.admission import AdmissionConfig
from runner.config.cluster import ClusterConfig
from runner.config.engines import EnginesConfig, read_options
from runner.config.failures import BreakerConfig, ResumeConfig
from runner.config.limits import Limits, RunLimits
from runner.config.model import ModelConfig, Prices
from runner.config.nested import flatten
from runner.config.protocol import ProtocolConfig, Truncation
from runner.config.public import public_config
from runner.config.reading import check_config, load_config, parse_setting, read_settings, set_key
from runner.config.run import RunConfig

__all__ = [
    "AdmissionConfig",
    "BreakerConfig",
    "ClusterConfig",
    "EnginesConfig",
    "Limits",
    "ModelConfig",
    "Prices",
    "ProtocolConfig",
    "ResumeConfig",
    "RunConfig",
    "RunLimits",
    "Truncation",
    "check_config",
    "flatten",
    "load_config",
    "parse_setting",
    "public_config",
    "read_options",
    "read_settings",
    "set_key",
]
