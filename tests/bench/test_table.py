from __future__ import annotations

import json

import pytest

from sandbox_pool.bench.record import Record
from sandbox_pool.bench.table import Line, as_data, counts, figures, lines, render, started_only


def record_of(ours: dict[str, list[float]], cold: dict[str, list[float]]) -> Record:
    record = Record()
    for contender, measures in (("ours", ours), ("cold", cold)):
        for measure, values in measures.items():
            record.add(contender, measure, values)
    return record


def line_of(title: str, record: Record) -> Line:
    return next(line for line in lines(record, "ours", ["cold"]) if line.figure.title == title)


def test_every_goal_of_the_issue_is_in_the_table() -> None:
    """The limits of issue 3, each once."""
    goals = {
        (f.measure, f.percent): (f.goal, f.min_times) for f in figures([16, 256]) if f.goal or f.min_times
    }
    assert goals == {
        ("warm_s", 50): (1, None),
        ("warm_s", 99): (5, None),
        ("start_s", 50): (22, 50),
        ("start_s", 99): (60, None),
        ("cell_s", 50): (1.2, 4),
        ("cell_s", 99): (3, None),
        ("client_cpu_s", 50): (0.3, None),
        ("pss_bytes_16", 50): (7, 15),
        ("pss_bytes_256", 50): (7, 15),
        ("256_at_once_s", 50): (8, None),
        ("starts_hz", 50): (40, None),
        ("start_cpu_s", 50): (25, None),
        ("teardown_s", 99): (50, None),
    }


def test_a_reached_goal_is_not_missed() -> None:
    """Limits themselves are within."""
    line = line_of("acquire, miss, p50", record_of({"start_s": [0.022]}, {"start_s": [1.2]}))
    assert line.is_judged
    assert line.missed == []
    assert line.ours == 22
    assert line.times == (pytest.approx(54.5, abs=0.1),)


def test_a_missed_limit_and_a_missed_ratio_are_both_told() -> None:
    """Each with by how much."""
    line = line_of("acquire, miss, p50", record_of({"start_s": [0.044]}, {"start_s": [1.1]}))
    assert line.missed == ["2.00 times 22", "25.0 x, not 50 x"]


def test_of_a_rate_more_is_better() -> None:
    """A rate below its goal is missed, one above is not, and its ratio is ours to theirs."""
    slow = line_of("starts per second", record_of({"starts_hz": [20.0]}, {"starts_hz": [2.0]}))
    assert slow.missed == ["0.50 times 40"]
    assert slow.times == (10,)
    assert not line_of("starts per second", record_of({"starts_hz": [41.0]}, {})).missed


def test_a_ratio_without_a_peer_is_not_judged() -> None:
    """What could not be compared is neither reached nor missed."""
    line = line_of("memory of each of 16 idle", record_of({"pss_bytes_16": [6e6]}, {}))
    assert line.missed == []
    assert line.times == (None,)
    assert line.is_judged  # by its limit


def test_memory_of_a_larger_crowd_is_beside_the_peers_largest() -> None:
    """As the title says; a level that the peer has is beside the peer's own."""
    record = record_of(
        {"pss_bytes_64": [7e6], "pss_bytes_256": [5e6]}, {"pss_bytes_16": [96e6], "pss_bytes_64": [91e6]}
    )
    small, large = (line for line in lines(record, "ours", ["cold"]))
    assert (small.figure.title, small.times) == ("memory of each of 64 idle", (13,))
    assert (large.figure.title, large.times) == ("memory of each of 256 idle (peers: 64)", (18.2,))
    assert (small.missed, large.missed) == (["13.0 x, not 15 x"], [])


def test_what_nobody_measured_has_no_line() -> None:
    """No line without a number; one for what only a peer was measured for."""
    found = lines(record_of({}, {"cell_s": [0.006]}), "ours", ["cold"])
    assert [line.figure.measure for line in found] == ["cell_s", "cell_s"]
    assert all(line.ours is None and not line.is_judged for line in found)


def test_the_table_shows_value_ratio_goal_and_verdict() -> None:
    """A line has all of them, and all lines are as wide as the rule."""
    record = record_of({"start_s": [0.044], "cell_s": [0.001]}, {"start_s": [1.1]})
    heading, rule, *rows = render(lines(record, "ours", ["cold"]), "ours", ["cold"]).splitlines()
    assert "ours" in heading
    assert "cold" in heading
    assert {len(row) for row in rows} == {len(rule)} == {len(heading)}
    miss = next(row for row in rows if row.startswith("acquire, miss, p50"))
    assert [cell.strip() for cell in miss.split("|")] == [
        "acquire, miss, p50", "ms", "44.0", "1100 (25.0 x)", "<= 22, 50 x",
        "MISSED: 2.00 times 22; 25.0 x, not 50 x", "1",
    ]  # fmt: skip
    cell = next(row for row in rows if row.startswith("trivial cell, p50"))
    assert [part.strip() for part in cell.split("|")][2:6] == ["1.00", "-", "<= 1.2, 4 x", "ok"]


def test_failures_and_leftovers_are_told_and_judged() -> None:
    """Of ours one is too many; each reason is told once, with how often."""
    record = Record()
    record.count_start("ours")
    record.count_left("ours", 0)
    assert counts(record, "ours", []) == [
        "ours: 0 of 1 starts failed, 0 processes left (goal: none, none): ok"
    ]
    record.count_start("ours", "no memory")
    record.count_start("ours", "no memory")
    record.count_start("cold", "no time")
    assert counts(record, "ours", ["cold"]) == [
        "ours: 2 of 3 starts failed, 0 processes left (goal: none, none): MISSED",
        "  2 x no memory",
        "cold: 1 of 1 starts failed, 0 processes left",
        "  1 x no time",
    ]
    left = Record()
    left.count_left("ours", 1)
    assert counts(left, "ours", [])[0].endswith("MISSED")


def test_those_only_started_have_a_line_of_their_own() -> None:
    """With their median, how many there were, and the ratio; none for what was not started."""
    record = record_of({"start_s": [0.02]}, {"start_s": [0.8, 0.8]})
    assert started_only(record, "ours", ["cold", "nobody"]) == ["cold: started in 800 ms p50, n 2 (40.0 x)"]


def test_the_data_hold_what_the_table_shows() -> None:
    """It survives JSON, a line for each line, with the verdict."""
    found = lines(record_of({"start_s": [0.044]}, {"start_s": [1.1]}), "ours", ["cold"])
    data = json.loads(json.dumps(as_data(found)))
    assert len(data) == len(found)
    assert data[0]["title"] == "acquire, miss, p50"
    assert data[0]["unit"] == "ms"
    assert data[0]["ours"] == 44
    assert data[0]["goal"] == 22
    assert data[0]["missed"] == ["2.00 times 22", "25.0 x, not 50 x"]
