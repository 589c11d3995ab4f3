"""The command line of the sandbox pool: what this machine enforces for a sandbox, and what one costs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from sandbox_pool import bench
from sandbox_pool.config import PoolConfig
from sandbox_pool.probe import probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 1 where no sandbox can be held, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m sandbox_pool", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_probe(commands)
    _add_bench(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _add_probe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("probe", help="print what this machine enforces for a sandbox, tier by tier")
    parser.add_argument("--json", action="store_true", help="as JSON, the way a run records it")
    parser.add_argument(
        "--tier", default="auto", help="ask for one: namespace, landlock, process (%(default)s)"
    )
    parser.add_argument("--kernel", default="lean", help="lean or ipykernel (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the kernels (%(default)s)")
    parser.set_defaults(run=_probe)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", help="measure starts, cells and memory beside cold kernels")
    bench.add_arguments(parser)
    parser.set_defaults(run=bench.run)


def _probe(options: argparse.Namespace) -> int:
    asked = {"tier": options.tier, "kernel": options.kernel, "python": options.python, "allow_unsafe": True}
    try:
        config = PoolConfig.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"--{first['loc'][0]}: {first['msg']}, got {first['input']!r}", file=sys.stderr)
        return 2
    found = probe(config)
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(_lines(found)))
    return 1 if found["tier"] == "none" else 0


def _lines(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"tier {found['tier']}, kernel {found['kernel']}, python {found['python']} {found['python_version']}"
    ]
    if found["uid_policy"]:
        lines.append(f"uid: {found['uid_policy']}")
    for name, offer in found["tiers"].items():
        is_taken = name == found["tier"]
        state = "taken" if is_taken else "available" if offer["is_available"] else "not available"
        lines += ["", f"{name}: {state}"]
        lines += [f"  missing: {problem}" for problem in offer["missing"]]
        lines += [f"  {key:<16} {how}" for key, how in offer.get("enforced", {}).items()]
        lines += [] if is_taken else [f"  warning: {text}" for text in offer.get("warnings", [])]
    missing = found["cgroups"]["missing"].items()
    lines += ["", *(f"no cgroup for {name}: {reason}" for name, reason in missing)]
    lines += [f"warning: {text}" for text in found["warnings"]]
    return lines if lines[-1] else lines[:-1]


if __name__ == "__main__":
    sys.exit(main())
