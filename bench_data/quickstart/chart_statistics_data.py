"""What the samples on distributions and fits are about: rows, files and the right results.

The results are worked out from the rows in plain Python, so that they do not depend on the libraries that
the reference solutions use.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from bench_data.quickstart.inputs import Draw, csv_bytes

Rows = list[list[Any]]

# Commuting ------------------------------------------------------------------------------------------

COMMUTE_EDGES_MIN = (0, 15, 30, 45, 60, 75, 90)


@cache
def _commute_min() -> tuple[int | None, ...]:
    draw = Draw("commute")
    # Many people round what they say to a quarter of an hour, so the edges of the bins matter.
    # Some take so long that a last bin which ends at 105 would lose them.
    answers = [*(max(1, round(draw.bell(38, 20))) for _ in range(176)), 97, 112, 128, 150]
    rounded = [round(n / 15) * 15 or 5 if draw.chance(0.4) else n for n in answers]
    return tuple(None if draw.chance(0.05) else n for n in rounded)


def commute_csv() -> bytes:
    """A survey; some people did not answer."""
    return csv_bytes(["person", "minutes"], enumerate(_commute_min(), start=1))


def commute_histogram() -> Rows:
    """[lower edge in minutes, people]; each bin holds its lower edge and not its upper one."""
    said = [n for n in _commute_min() if n is not None]
    edges = [*COMMUTE_EDGES_MIN, 10**9]
    return [[low, sum(low <= n < high for n in said)] for low, high in pairwise(edges)]


# Sensors --------------------------------------------------------------------------------------------

N_READINGS = 61
"""One more than a multiple of four: the quartiles are readings, whichever definition one takes."""


@cache
def _sensors() -> dict[str, tuple[int, ...]]:
    """Tenths of a bar, reading by reading."""
    draw = Draw("sensors 3")
    levels = {"P1": 120, "P2": 410, "P3": 455, "P4": 800}
    return {
        name: tuple(
            round(draw.bell(level, 8)) + (draw.pick([-60, 45, 70]) if draw.chance(0.06) else 0)
            for _ in range(N_READINGS)
        )
        for name, level in levels.items()
    }


def sensors_csv() -> bytes:
    """All readings, in order of time."""
    rows = [
        (minute, name, f"{readings[minute] / 10:.1f}")
        for minute in range(N_READINGS)
        for name, readings in _sensors().items()
    ]
    return csv_bytes(["minute", "sensor", "pressure_bar"], rows)


def outlier_minutes() -> dict[str, list[int]]:
    """The minutes of each sensor's readings outside its quartiles by over 1.5 quartile distances."""
    result = {}
    for name, readings in _sensors().items():
        ordered = sorted(readings)
        q1, q3 = ordered[N_READINGS // 4], ordered[3 * (N_READINGS // 4)]
        # Doubled, so that the fences are whole numbers.
        low, high = 5 * q1 - 3 * q3, 5 * q3 - 3 * q1
        result[name] = [minute for minute, n in enumerate(readings) if not low <= 2 * n <= high]
    return result


# Growth ---------------------------------------------------------------------------------------------


@cache
def _growth() -> tuple[tuple[int, int], ...]:
    """(minute, cells per ml): a lag, then doubling about every 47 minutes, then a plateau."""
    draw = Draw("growth 8")
    rows = []
    for minute in range(0, 721, 20):
        doublings = min(max(minute - 100, 0), 440) / 47
        rows.append((minute, round(2500 * 2.0 ** (doublings + draw.bell(0, 0.08)))))
    return tuple(rows)


def growth_csv() -> bytes:
    """Counts every 20 minutes for 12 hours."""
    return csv_bytes(["minute", "cells_per_ml"], _growth())


def doubling_time_min() -> float:
    """From the least-squares line through log2 of the counts in minutes 120 to 500."""
    points = [(minute, math.log2(count)) for minute, count in _growth() if 120 <= minute <= 500]
    mean_x = math.fsum(x for x, _ in points) / len(points)
    mean_y = math.fsum(y for _, y in points) / len(points)
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return math.fsum((x - mean_x) ** 2 for x, _ in points) / covariance


# Beans ----------------------------------------------------------------------------------------------


class Bean(NamedTuple):
    """Length in tenths of a millimetre, mass in milligrams."""

    length: int
    mass: int
    variety: str


@cache
def _beans() -> tuple[tuple[Bean, ...], tuple[Bean, ...]]:
    """Known beans, and beans whose variety the file does not tell."""
    draw = Draw("beans 29")
    kinds = {"borlotti": (120, 520), "cannellini": (134, 500)}

    def bean() -> Bean:
        variety = draw.pick(sorted(kinds))
        length, mass = kinds[variety]
        return Bean(round(draw.bell(length, 7)), round(draw.bell(mass, 90)), variety)

    return tuple(bean() for _ in range(70)), tuple(bean() for _ in range(16))


def known_beans_csv() -> bytes:
    """Beans with their variety."""
    rows = [(f"{b.length / 10:.1f}", b.mass, b.variety) for b in _beans()[0]]
    return csv_bytes(["length_mm", "mass_mg", "variety"], rows)


def new_beans_csv() -> bytes:
    """Beans without their variety."""
    rows = [(n, f"{b.length / 10:.1f}", b.mass) for n, b in enumerate(_beans()[1], start=1)]
    return csv_bytes(["bean", "length_mm", "mass_mg"], rows)


def bean_varieties() -> Rows:
    """[bean, variety] by its five nearest known beans in standardised length and mass."""
    known, new = _beans()
    scale_length, scale_mass = _spread([b.length for b in known]), _spread([b.mass for b in known])
    rows: Rows = []
    for number, bean in enumerate(new, start=1):
        by_distance = sorted(
            known,
            key=lambda k: math.hypot(
                (k.length - bean.length) / scale_length, (k.mass - bean.mass) / scale_mass
            ),
        )
        rows.append([number, Counter(b.variety for b in by_distance[:5]).most_common(1)[0][0]])
    return rows


def _spread(numbers: list[int]) -> float:
    mean = sum(numbers) / len(numbers)
    return math.sqrt(math.fsum((n - mean) ** 2 for n in numbers) / len(numbers))
