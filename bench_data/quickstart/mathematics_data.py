"""What the mathematics samples are about, and the right results by another way than the references go."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import Any

from bench_data.quickstart.inputs import Draw, csv_bytes, json_bytes

Rows = list[list[Any]]

# A grid with walls ----------------------------------------------------------------------------------

GRID_SIZE = 16


@cache
def _grid() -> tuple[str, ...]:
    draw = Draw("grid 3")
    rows = [
        "".join("#" if draw.chance(0.12) and (x, y) != (0, 0) else "." for x in range(GRID_SIZE))
        for y in range(GRID_SIZE)
    ]
    # A wall in the first row and one in the first column are what a hasty solution forgets.
    rows[0] = "....#" + rows[0][5:]
    rows[5] = "#" + rows[5][1:]
    rows[-1] = rows[-1][:-1] + "."
    return tuple(rows)


def grid_txt() -> bytes:
    """A row on each line: `.` is free, `#` is a wall."""
    return ("\n".join(_grid()) + "\n").encode()


def n_paths() -> int:
    """Paths from the top left to the bottom right corner, by steps to the right or down."""

    @cache
    def paths_from(x: int, y: int) -> int:
        if x == GRID_SIZE or y == GRID_SIZE or _grid()[y][x] == "#":
            return 0
        if x == y == GRID_SIZE - 1:
            return 1
        return paths_from(x + 1, y) + paths_from(x, y + 1)

    return paths_from(0, 0)


# A Markov chain -------------------------------------------------------------------------------------

STATES = ("sun", "cloud", "fog", "rain", "storm")
_PERCENT = (
    (60, 25, 5, 9, 1),
    (30, 35, 10, 20, 5),
    (15, 45, 25, 15, 0),
    (10, 30, 5, 40, 15),
    (5, 20, 0, 45, 30),
)


def weather_csv() -> bytes:
    """From each state (row) to each state (column)."""
    rows = [(name, *(f"{p / 100:.2f}" for p in row)) for name, row in zip(STATES, _PERCENT, strict=True)]
    return csv_bytes(["from", *STATES], rows)


def stationary() -> dict[str, float]:
    """The distribution that one more day does not change, solved in fractions."""
    n = len(STATES)
    # Balance of every state but the last, and the sum, which stands in for the last.
    balance = [[Fraction(_PERCENT[i][j], 100) - (i == j) for i in range(n)] for j in range(n - 1)]
    system = [*balance, [Fraction(1)] * n]
    shares = _solve(system, [Fraction(0)] * (n - 1) + [Fraction(1)])
    return {name: float(share) for name, share in zip(STATES, shares, strict=True)}


def _solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Return the solution of a regular system, by Gauss and Jordan."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(len(rows)):
        pivot = next(k for k in range(i, len(rows)) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(len(rows)):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


# A loan ---------------------------------------------------------------------------------------------

LOAN = {"amount_eur": 18500, "annual_rate_percent": 5.4, "monthly_payment_eur": 820}


def loan_json() -> bytes:
    """The terms."""
    return json_bytes(LOAN)


def loan_schedule() -> Rows:
    """[month, interest, principal, balance] in EUR; worked out in whole cents."""
    balance, payment = 18500_00, 820_00
    rows: Rows = []
    while balance:
        # 5.4 percent a year is 9 / 2000 a month; half a cent rounds up.
        interest = (balance * 9 * 2 + 2000) // 4000
        principal = min(payment - interest, balance)
        balance -= principal
        rows.append([len(rows) + 1, interest / 100, principal / 100, balance / 100])
    return rows


# A production plan ----------------------------------------------------------------------------------

PROFIT = {"chair": 45, "table": 80, "shelf": 60, "bench": 52}
MINUTES: dict[str, tuple[dict[str, int], int]] = {
    "sawing": ({"chair": 4, "table": 9, "shelf": 5, "bench": 7}, 380),
    "assembly": ({"chair": 10, "table": 12, "shelf": 6, "bench": 5}, 560),
    "painting": ({"chair": 3, "table": 4, "shelf": 8, "bench": 6}, 350),
}


def plan_csv() -> bytes:
    """A row for each product: its profit, and its minutes at each station."""
    rows: Rows = [
        [name, profit, *(use[name] for use, _ in MINUTES.values())] for name, profit in PROFIT.items()
    ]
    return csv_bytes(["product", "profit_eur", *(f"{station}_min" for station in MINUTES)], rows)


def capacity_csv() -> bytes:
    """The minutes that each station has."""
    return csv_bytes(
        ["station", "available_min"], [(station, limit) for station, (_, limit) in MINUTES.items()]
    )


def best_profit() -> float:
    """The most profit, by trying every corner of what is possible."""
    products = list(PROFIT)
    n = len(products)
    planes = [([Fraction(use[p]) for p in products], Fraction(limit)) for use, limit in MINUTES.values()]
    planes += [([Fraction(-(i == k)) for k in range(n)], Fraction(0)) for i in range(n)]
    best = Fraction(0)
    for corner in combinations(planes, n):
        try:
            plan = _solve([row for row, _ in corner], [limit for _, limit in corner])
        except StopIteration:  # these planes do not meet in one point
            continue
        used = (sum(a * b for a, b in zip(row, plan, strict=True)) <= limit for row, limit in planes)
        if all(used):
            best = max(best, sum((PROFIT[p] * x for p, x in zip(products, plan, strict=True)), Fraction(0)))
    return float(best)
