from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sandbox_pool.bench.usage import (
    Process,
    Stat,
    available_bytes,
    descendants,
    living,
    parse_stat,
    pss_bytes,
    tree,
    tree_cpu_s,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
HOLD = "x = bytearray(50_000_000); print('up', flush=True); input()"
BUSY = "import time\nwhile time.process_time() < 0.5: pass\n"
UP = "print('up', flush=True); input()"


def child(*arguments: str) -> subprocess.Popen[str]:
    """Start Python, and return when it has said a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def stat(pid: int, parent: int) -> Stat:
    return Stat(Process(pid, 0), parent, is_zombie=False, waited_s=0.0)


@pytest.mark.parametrize("name", ["python3", "a) R 7 (b", "two words", ")", ""])
def test_a_name_cannot_shift_the_fields(name: str) -> None:
    """Names are chosen by the processes, and may hold what separates the fields."""
    line = f"42 ({name}) Z 7 42 42 0 -1 4194304 1 2 3 4 50 60 70 80 20 0 1 0 123456 1000 200 18446744073709551615"
    assert parse_stat(line, 100) == Stat(Process(42, 123456), 7, is_zombie=True, waited_s=1.5)


def test_descendants_are_found_whatever_the_order() -> None:
    """Children of children too, strangers not, in any order of the list."""
    stats = [stat(5, 4), stat(9, 1), stat(4, 2), stat(2, 1), stat(3, 2), stat(1, 0)]
    assert [s.process.pid for s in descendants(stats, 2)] == [2, 4, 3, 5]
    assert [s.process.pid for s in descendants(stats, 77)] == []


@on_linux
def test_a_child_is_in_the_tree_until_it_ends() -> None:
    """A living child is there, with the memory that it took; an ended one is neither there nor living."""
    with child(HOLD) as process:
        mine = next(s.process for s in tree() if s.process.pid == process.pid)
        assert living([mine]) == {mine}
        assert 50_000_000 < pss_bytes(mine) < 100_000_000
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert living([mine]) == set()  # a zombie is not living
        process.wait()
        assert mine not in {s.process for s in tree()}
        assert pss_bytes(mine) == 0


@on_linux
def test_cpu_of_children_is_counted_and_ours_only_if_asked_for() -> None:
    """What a living child used and what a waited-for grandchild used are in it; our own can be left out."""
    wait_for_it = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}], check=True)\n"
    began_all_s, began_others_s = tree_cpu_s(), tree_cpu_s(with_own=False)
    with child(BUSY + UP) as busy, child(wait_for_it + UP) as waiting:
        others_s = tree_cpu_s(with_own=False) - began_others_s
        all_s = tree_cpu_s() - began_all_s
        busy.kill()
        waiting.kill()
    assert 1.0 <= others_s < 3.0  # two times half a second, and three starts of an interpreter
    assert all_s > others_s


@on_linux
def test_free_memory_is_known() -> None:
    """A positive number of bytes, less than the machine has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = available_bytes()
    assert found is not None
    assert 1_000_000 < found <= total
