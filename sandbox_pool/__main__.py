"""The command line of the sandbox pool: what holds a sandbox here, what one costs, kernels for Jupyter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from sandbox_pool import bench
from sandbox_pool.config import PoolConfig
from sandbox_pool.host.probe import probe
from sandbox_pool.jupyter import kernelspec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 1 where no sandbox can be held, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m sandbox_pool", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_probe(commands)
    _add_bench(commands)
    _add_kernelspec(commands)
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


def _add_kernelspec(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "kernelspec", help="let Jupyter start kernels in sandboxes: write a kernel.json"
    )
    name = kernelspec.DEFAULT_NAME
    parser.add_argument("--name", default=name, help="what notebooks know the kernel by (%(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user, whichever Jupyter is started")
    where.add_argument(
        "--prefix",
        type=Path,
        default=Path(sys.prefix),
        metavar="DIR",
        help="below DIR/share/jupyter (this environment: %(default)s)",
    )
    parser.set_defaults(run=_kernelspec)


def _kernelspec(options: argparse.Namespace) -> int:
    kernels = kernelspec.kernels_folder(None if options.user else options.prefix.absolute())
    try:
        file = kernelspec.write_kernelspec(kernels, options.name)
    except (OSError, ValueError) as error:
        print(f"the kernelspec cannot be written: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(f"written: {file}")
    if not kernelspec.is_searched(kernels):
        print(f"note: Jupyter does not look there; set JUPYTER_PATH={kernels.parent}")
    return 0


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
