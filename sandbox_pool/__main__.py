"""`python -m sandbox_pool probe [--json]`: what this machine enforces for a sandbox."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import orjson

from sandbox_pool.probe import probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox_pool", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    probe_parser = commands.add_parser("probe", help="print what this machine enforces for a sandbox")
    probe_parser.add_argument("--json", action="store_true", help="as JSON, the way a run records it")
    options = parser.parse_args(arguments)
    found = probe()
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return 0
    print(f"tier {found['tier']}, kernel {found['kernel']}, {found['uid_policy']}")
    for name, how in found["enforced"].items():
        print(f"  {name:<16} {how}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
