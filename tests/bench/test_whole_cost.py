"""What a command costs is counted whole, whoever does or does not wait for its processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench.whole_cost import Cost, counting_mount, run_costed

MIB = 2**20


pytestmark = pytest.mark.skipif(counting_mount() is None, reason="no control group can be made here")

BURN = "import time\nwhile time.process_time() < 0.4: pass\n"
ORPHAN = f"import os\nif os.fork() == 0:\n    if os.fork() == 0:\n        exec({BURN!r})\n    os._exit(0)\nos.wait()"


def python(code: str, tmp_path: Path, **options: float) -> Cost:
    return run_costed([sys.executable, "-c", code], cwd=tmp_path, environment=os.environ, **options)


def test_cpu_of_a_process_that_nobody_waited_for_is_counted(tmp_path: Path) -> None:
    """It outlives the command, and is still waited until it is gone."""
    idle, burning = python("import os", tmp_path), python(ORPHAN, tmp_path)
    assert 0.4 <= burning.cpu_s - idle.cpu_s < 0.8
    assert idle.memory is None


def test_memory_is_that_of_all_processes(tmp_path: Path) -> None:
    """At its peak: two processes with a block each, which is gone at the end."""
    hold = "import time\nblock = bytearray(b'x') * (64 << 20)\ntime.sleep(0.7)\n"
    cost = python(f"import os\nos.fork()\n{hold}\ndel block", tmp_path, sample_s=0.1)
    assert cost.memory is not None
    assert 128 * MIB < cost.memory.all_bytes < 192 * MIB
    assert 64 * MIB < cost.memory.largest_bytes < 128 * MIB
    assert 64 * MIB < cost.memory.rest_bytes < cost.memory.all_bytes


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    """And one that does not end is killed with all that it started."""
    with pytest.raises(SystemExit, match=r"(?s)failed with 1; it wrote: .*ZeroDivisionError"):
        python("1 / 0", tmp_path)
    with pytest.raises(SystemExit, match=r"did not end within 0.3 s"):
        python("import os, time\nos.fork()\ntime.sleep(60)", tmp_path, timeout_s=0.3)
