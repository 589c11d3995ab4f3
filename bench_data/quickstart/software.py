"""Software development: modules to write and one to repair; and what `software_pages` adds.

What the model writes is called with arguments that the task's text covers but does not list. The expected
values are literals, worked out by hand from the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench_data.checks import PythonCall, PythonCalls
from bench_data.quickstart import software_pages
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = software_pages.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _roman_numerals(),
        _merge_intervals(),
        _recent_cache(),
        _fix_statistics(),
        *software_pages.samples(),
    ]


def _returns(function: str, *pairs: tuple[Sequence[Any], Any]) -> list[PythonCall]:
    return [PythonCall(function=function, args=list(args), returns=value) for args, value in pairs]


def _refuses(function: str, *arguments: Any) -> list[PythonCall]:
    return [PythonCall(function=function, args=[argument], raises="ValueError") for argument in arguments]


ROMAN_NUMERALS = """\
Write a Python module output/roman.py with two functions:
- to_roman(number) returns the Roman numeral of an integer from 1 to 3999 in its usual form, in capitals
  (4 is "IV", 1990 is "MCMXC"). For an integer outside this range it raises ValueError.
- from_roman(text) returns the integer that a numeral in that form stands for. For every other string, such
  as "", "iv", "IIII" or "IM", it raises ValueError."""

_ROMAN_NUMERALS_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

Path("output/roman.py").write_text('''\\
SIGNS = [
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
    (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
]


def to_roman(number):
    if not 1 <= number <= 3999:
        raise ValueError(f"{number} is not between 1 and 3999")
    text = ""
    for value, sign in SIGNS:
        count, number = divmod(number, value)
        text += count * sign
    return text


def from_roman(text):
    number, rest = 0, text
    for value, sign in SIGNS:
        while rest.startswith(sign):
            number, rest = number + value, rest[len(sign):]
    if rest or not number or number > 3999 or to_roman(number) != text:
        raise ValueError(f"{text!r} is not a Roman numeral")
    return number
''')
""",
        """\
import sys

sys.path.insert(0, "output")
import roman

assert all(roman.from_roman(roman.to_roman(n)) == n for n in range(1, 4000))
print(roman.to_roman(1990), roman.from_roman("MCMXC"))
""",
    ),
    answer="The module is output/roman.py.",
)


def _roman_numerals() -> Sample:
    numerals = ((1, "I"), (4, "IV"), (49, "XLIX"), (444, "CDXLIV"), (1990, "MCMXC"), (3999, "MMMCMXCIX"))
    calls = [
        *_returns("to_roman", *(((number,), numeral) for number, numeral in numerals)),
        *_returns("from_roman", *(((numeral,), number) for number, numeral in numerals)),
        *_refuses("to_roman", 0, -5, 4000),
        *_refuses("from_roman", "", "xiv", "IIII", "VX", "IM", "MMMM", "X I", " XI", "XI\n", "ABC"),
    ]
    return Sample(
        id="software-roman-numerals",
        category=CATEGORY,
        messages=({"role": "user", "content": ROMAN_NUMERALS},),
        check=PythonCalls(path="output/roman.py", calls=calls),
        reference=_ROMAN_NUMERALS_REFERENCE,
        # Reads every numeral right, and takes "IIII" and "VX" for numerals as well.
        decoy=with_mistake(
            _ROMAN_NUMERALS_REFERENCE,
            "rest or not number or number > 3999 or to_roman(number) != text",
            "rest or not number",
        ),
    )


MERGE_INTERVALS = """\
Write a Python module output/intervals.py with a function merge(intervals). It takes a list of [start, end]
pairs of integers, start <= end, in any order, and returns a list of [start, end] pairs, sorted by start, in
which all intervals that overlap or that share an end point are united: [1, 3] and [3, 5] become [1, 5],
whereas [1, 3] and [4, 5] stay apart. One interval may lie wholly inside another. The result of an empty
list is an empty list."""

_MERGE_INTERVALS_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

Path("output/intervals.py").write_text('''\\
def merge(intervals):
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return merged
''')
namespace = {}
exec(Path("output/intervals.py").read_text(), namespace)
print(namespace["merge"]([[4, 6], [1, 3], [3, 5], [9, 9]]))
""",
    ),
    answer="The module is output/intervals.py; an example gives {last_line}.",
)


def _merge_intervals() -> Sample:
    calls = _returns(
        "merge",
        (([],), []),
        (([[5, 8]],), [[5, 8]]),
        (([[1, 3], [3, 5]],), [[1, 5]]),
        (([[1, 3], [4, 5]],), [[1, 3], [4, 5]]),
        (([[10, 12], [1, 9], [2, 4]],), [[1, 9], [10, 12]]),
        (([[0, 20], [2, 3], [5, 6], [20, 21]],), [[0, 21]]),
        (([[7, 7], [-4, -1], [7, 7], [-2, 0]],), [[-4, 0], [7, 7]]),
    )
    return Sample(
        id="software-merge-intervals",
        category=CATEGORY,
        messages=({"role": "user", "content": MERGE_INTERVALS},),
        check=PythonCalls(path="output/intervals.py", calls=calls),
        reference=_MERGE_INTERVALS_REFERENCE,
        # Wrong where one interval lies inside another.
        decoy=with_mistake(_MERGE_INTERVALS_REFERENCE, "max(end, merged[-1][1])", "end"),
    )


RECENT_CACHE = """\
Write a Python module output/cache.py with a function run_cache(capacity, operations) that plays a list of
operations on an empty cache of at most `capacity` (at least 1) entries and returns the list of what the
"get" operations found, in order. An operation is ["put", key, value], which stores a value (and replaces
the one that the key had), or ["get", key], which finds the key's value, or None if the key is not in the
cache. When a new key is put into a full cache, the entry that has not been put or found for the longest
time is dropped first. A "get" that finds its key makes the entry the most recent one, and so does every
"put", also of a key that is there already."""

_RECENT_CACHE_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

Path("output/cache.py").write_text('''\\
def run_cache(capacity, operations):
    entries, found = {}, []
    for name, key, *value in operations:
        if name == "get":
            found.append(entries.get(key))
            if key in entries:
                entries[key] = entries.pop(key)
            continue
        entries.pop(key, None)
        if len(entries) == capacity:
            del entries[next(iter(entries))]
        entries[key] = value[0]
    return found
''')
""",
        """\
import sys

sys.path.insert(0, "output")
from cache import run_cache

print(run_cache(1, [["put", "a", 1], ["put", "b", 2], ["get", "a"], ["get", "b"]]))
""",
    ),
    answer="The module is output/cache.py.",
)


def _recent_cache() -> Sample:
    put_abc = [["put", "a", 1], ["put", "b", 2], ["put", "c", 3]]
    get_abc = [["get", "a"], ["get", "b"], ["get", "c"]]
    calls = _returns(
        "run_cache",
        ((2, []), []),
        ((3, [*put_abc, *get_abc]), [1, 2, 3]),
        ((2, [*put_abc, *get_abc]), [None, 2, 3]),
        ((2, [*put_abc[:2], ["get", "a"], put_abc[2], *get_abc]), [1, 1, None, 3]),
        ((2, [*put_abc[:2], ["put", "a", 9], put_abc[2], *get_abc]), [9, None, 3]),
        ((2, [*put_abc[:2], ["put", "b", 9], *get_abc]), [1, 9, None]),
        ((2, [*put_abc[:2], ["get", "x"], put_abc[2], *get_abc]), [None, None, 2, 3]),
        ((1, [*put_abc, *get_abc]), [None, None, 3]),
        ((2, [["put", "a", 0], put_abc[1], ["get", "a"], put_abc[2], *get_abc]), [0, 0, None, 3]),
    )
    return Sample(
        id="software-recent-cache",
        category=CATEGORY,
        messages=({"role": "user", "content": RECENT_CACHE},),
        check=PythonCalls(path="output/cache.py", calls=calls),
        reference=_RECENT_CACHE_REFERENCE,
        # A "get" does not make its entry recent.
        decoy=with_mistake(
            _RECENT_CACHE_REFERENCE,
            "\n            if key in entries:\n                entries[key] = entries.pop(key)",
            "",
        ),
    )


_BROKEN = b'''\
"""Small statistics on lists of numbers."""


def median(values):
    """Return the middle value; the mean of the two middle ones if their number is even."""
    return sorted(values)[len(values) // 2]


def moving_mean(values, width):
    """Return the mean of each run of `width` neighbours, from the first run to the last."""
    return [sum(values[i:i + width]) / width for i in range(len(values) - width)]


def spread(values):
    """Return the largest value minus the smallest."""
    return max(values) - min(values)
'''


FIX_STATISTICS = """\
The functions in data/statistics_tools.py do not always do what their docstrings say. Save a repaired version
as output/statistics_tools.py, with the same functions. Besides, each function must raise ValueError for an
empty list, and moving_mean also for a width below 1 or above the number of values."""

_FIX_STATISTICS_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

source = Path("data/statistics_tools.py").read_text()
print(source)
""",
        """\
source = source.replace(
    "    return sorted(values)[len(values) // 2]",
    '''    if not values:
        raise ValueError("no values")
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2''',
)
""",
        """\
source = source.replace(
    "    return [sum(values[i:i + width]) / width for i in range(len(values) - width)]",
    '''    if not 1 <= width <= len(values):
        raise ValueError(f"width {width} for {len(values)} values")
    return [sum(values[i:i + width]) / width for i in range(len(values) - width + 1)]''',
)
""",
        """\
Path("output/statistics_tools.py").write_text(source)
namespace = {}
exec(source, namespace)
print(namespace["median"]([4, 1, 3, 2]), namespace["moving_mean"]([1, 2, 3, 4], 2))
""",
    ),
    answer="The repaired module is output/statistics_tools.py.",
)


def _fix_statistics() -> Sample:
    calls = [
        *_returns("median", (([3, 1, 2],), 2), (([4, 1, 3, 2],), 2.5), (([7],), 7), (([-5, 9],), 2)),
        *_returns(
            "moving_mean",
            (([1, 2, 3, 4], 2), [1.5, 2.5, 3.5]),
            (([2, 4, 9], 3), [5]),
            (([6, 8], 1), [6, 8]),
        ),
        *_returns("spread", (([3, -2, 8],), 10)),
        *_refuses("median", []),
        *_refuses("spread", []),
        *(
            PythonCall(function="moving_mean", args=[values, width], raises="ValueError")
            for values, width in (([1, 2], 3), ([1, 2], 0), ([], 1))
        ),
    ]
    return Sample(
        id="software-fix-statistics",
        category=CATEGORY,
        messages=({"role": "user", "content": FIX_STATISTICS},),
        files=(SampleFile("data/statistics_tools.py", lambda: _BROKEN),),
        check=PythonCalls(path="output/statistics_tools.py", calls=calls),
        reference=_FIX_STATISTICS_REFERENCE,
        # The last run is still missing.
        decoy=with_mistake(_FIX_STATISTICS_REFERENCE, "len(values) - width + 1", "len(values) - width"),
    )
