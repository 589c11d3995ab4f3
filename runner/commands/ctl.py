"""python -m runner ctl RUN_DIR status|pause|resume|drain|cancel SAMPLE|set concurrency=N."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.control import ask
from runner.errors import RunnerError
from runner.progress.line import printable

COMMANDS = ("status", "pause", "resume", "drain", "cancel", "set")


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code: 0, 1 failed, 2 wrong usage."""
    arguments = parse_arguments(argv)
    try:
        reply = asyncio.run(ask(arguments.run_dir, arguments.request))
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(reply))
    elif "status" in reply:
        print("\n".join(status_lines(reply["status"])))
    elif "done" in reply:
        print(printable(reply["done"]))
    if "error" in reply:
        print(f"error: {printable(reply['error'])}", file=sys.stderr)
        return 1
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m runner ctl",
        description="Ask a running run, or tell it what to do.",
        allow_abbrev=False,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("argument", nargs="?", metavar="SAMPLE | concurrency=N")
    parser.add_argument("--json", action="store_true", help="print the run's answer as JSON")
    arguments = parser.parse_args(argv)
    arguments.request = _request(parser, arguments.command, arguments.argument)
    return arguments


def _request(parser: argparse.ArgumentParser, command: str, argument: str | None) -> dict[str, Any]:
    match command:
        case "cancel":
            if argument is None:
                parser.error("cancel needs a SAMPLE, or an attempt: SAMPLE@EPOCH")
            return {"command": command, "sample": argument}
        case "set":
            found = re.fullmatch(r"concurrency=([0-9]{1,9})", argument or "")
            if found is None:
                parser.error(f"set takes concurrency=N, not {argument or 'nothing'!r}")
            return {"command": command, "concurrency": int(found[1])}
    if argument is not None:
        parser.error(f"{command} takes nothing more, found {argument!r}")
    return {"command": command}


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """Return a run's statistics, as they came over the socket, for a person."""
    n_over = status["n_finished"] + status["n_failed"]
    lines = [
        f"{n_over}/{status['n_total']} attempts over, {status['n_done_before']} done before; "
        f"{60 * status['finished_per_s']:.0f}/min now; {status['elapsed_s']:.0f} s elapsed",
        f"{status['n_in_flight']} in flight (at most {status['max_trajectories']} of "
        f"{status['concurrency']}): {_counts(status['phases'])}",
        f"{status['n_turns']} turns, {status['n_prompt_tokens']} prompt and "
        f"{status['n_completion_tokens']} completion tokens",
        f"ended by: {_counts(status['stop_reasons'])}",
        f"failed: {status['n_failed']} attempts, {status['n_cancelled']} cancelled; "
        f"tries: {_counts(status['failures_by_owner'])}",
        f"event loop: {1000 * status['loop_lag_p99_s']:.1f} ms late (p99)",
    ]
    if boxes := status["sandboxes"]:
        lines.append(
            f"sandboxes: {boxes['n_leased']} of {boxes['max_leased']} leased, "
            f"{boxes['n_waiting']} waited for, {boxes['n_idle']} warm"
        )
    lines += [
        f"endpoint {e['name']}: {e['state']}, {e['n_calls_in_flight']}/{e['max_calls']} calls, "
        f"{e['n_calls_waiting']} waiting, {e['n_trajectories']}/{e['max_trajectories']} trajectories, "
        f"{e['n_failed_calls']} of {e['n_calls']} calls failed"
        for e in status["endpoints"]
    ]
    lines += [f"{key}: {status[key]}" for key in ("paused", "draining", "last_failure") if status[key]]
    return [printable(line) for line in lines]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "none"
