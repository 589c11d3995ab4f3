"""What the chart samples are about: rows, the files made from them, and the right results.

The results are worked out from the rows in plain Python, so that they do not depend on the libraries that
the reference solutions use.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import date, timedelta
from functools import cache
from typing import Any, NamedTuple

from bench_data.quickstart.inputs import Draw, csv_bytes, json_bytes, sqlite_bytes, xlsx_bytes

Rows = list[list[Any]]

# Orders ------------------------------------------------------------------------------------------


class Order(NamedTuple):
    """A line of the shop's export; some lines are there twice."""

    order_id: str
    day: str
    quantity: int
    unit_cents: int
    status: str


@cache
def _orders() -> tuple[Order, ...]:
    draw = Draw("orders")
    orders = [
        Order(
            f"A{1000 + n}",
            (date(2023, 1, 1) + timedelta(days=draw.integer(0, 364))).isoformat(),
            draw.integer(1, 9),
            draw.integer(350, 4999),
            draw.pick(["shipped", "shipped", "shipped", "shipped", "returned", "cancelled"]),
        )
        for n in range(260)
    ]
    return tuple(draw.shuffled(orders + [draw.pick(orders) for _ in range(24)]))


def orders_csv() -> bytes:
    """The export, with its repeated lines."""
    header = ["order_id", "date", "quantity", "unit_price_eur", "status"]
    return csv_bytes(header, [(o[0], o[1], o[2], f"{o[3] / 100:.2f}", o[4]) for o in _orders()])


def monthly_revenue() -> Rows:
    """[month, revenue in EUR] of shipped orders, each order once."""
    cents: Counter[str] = Counter()
    for order in set(_orders()):
        if order.status == "shipped":
            cents[order.day[:7]] += order.quantity * order.unit_cents
    return [[month, cents[month] / 100] for month in sorted(cents)]


# Two weather stations ------------------------------------------------------------------------------

MISSING_C = -99.9


@cache
def _stations() -> tuple[tuple[date, float, float], ...]:
    """Rows of (day, harbour in Celsius or MISSING_C, airport in Fahrenheit)."""
    draw = Draw("stations")
    rows = []
    for n in range(181):
        season = 2.0 + 0.1 * n
        harbour = MISSING_C if draw.chance(0.06) else round(draw.bell(season, 2.0), 1)
        airport = round(draw.bell(season + 0.9 * math.sin(n / 20), 2.5) * 1.8 + 32, 1)
        rows.append((date(2022, 1, 1) + timedelta(days=n), harbour, airport))
    return tuple(rows)


def stations_xlsx() -> bytes:
    """A workbook with a sheet per station."""
    return xlsx_bytes(
        {
            "Harbour": [("date", "temperature_c"), *((day, harbour) for day, harbour, _ in _stations())],
            "Airport": [("date", "temperature_f"), *((day, airport) for day, _, airport in _stations())],
        }
    )


def monthly_temperatures() -> Rows:
    """[month, mean at the harbour, mean at the airport], in Celsius."""
    harbour: dict[str, list[float]] = defaultdict(list)
    airport: dict[str, list[float]] = defaultdict(list)
    for day, celsius, fahrenheit in _stations():
        month = day.isoformat()[:7]
        airport[month].append((fahrenheit - 32) / 1.8)
        if celsius != MISSING_C:
            harbour[month].append(celsius)
    return [[month, _mean(harbour[month]), _mean(airport[month])] for month in sorted(airport)]


def largest_gap_month() -> str:
    """The month in which the two means differ most."""
    return str(max(monthly_temperatures(), key=lambda row: abs(row[1] - row[2]))[0])


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)


# Electricity ----------------------------------------------------------------------------------------

RENEWABLE = ("hydro", "solar", "wind")
SOURCES = ("coal", "gas", "hydro", "nuclear", "solar", "wind")


@cache
def _energy_gwh() -> dict[str, dict[str, int]]:
    draw = Draw("energy 2")
    regions = ("East", "Islands", "North", "South", "West")
    return {region: {source: draw.integer(2, 80) * 100 for source in SOURCES} for region in regions}


def energy_json() -> bytes:
    """Production by region; two regions report in TWh."""
    regions = []
    for region, sources in _energy_gwh().items():
        in_twh = region in ("Islands", "West")
        production = {name: gwh / 1000 if in_twh else gwh for name, gwh in sources.items()}
        regions.append({"region": region, "unit": "TWh" if in_twh else "GWh", "production": production})
    return json_bytes({"year": 2023, "regions": regions})


def energy_totals_gwh() -> dict[str, int]:
    """Production of all regions by source."""
    return {source: sum(region[source] for region in _energy_gwh().values()) for source in SOURCES}


def renewable_percent() -> float:
    """The share of hydro, solar and wind."""
    totals = energy_totals_gwh()
    return 100 * sum(totals[source] for source in RENEWABLE) / sum(totals.values())


# The library ----------------------------------------------------------------------------------------

LIBRARY_SCHEMA = """
CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT NOT NULL, genre TEXT);
CREATE TABLE loans (id INTEGER PRIMARY KEY, book_id INTEGER NOT NULL REFERENCES books (id),
                    loaned_on TEXT NOT NULL, returned_on TEXT);
"""
GENRES = ("crime", "history", "poetry", "science", "travel", "young adult", None)


@cache
def _library() -> tuple[tuple[tuple[int, str, str | None], ...], tuple[tuple[Any, ...], ...]]:
    draw = Draw("library 5")
    books = tuple((n, f"Book {n:02}", draw.pick(GENRES)) for n in range(1, 46))
    loans = []
    for n in range(1, 421):
        day = date(2022, 7, 1) + timedelta(days=draw.integer(0, 729))
        back = None if draw.chance(0.1) else (day + timedelta(days=draw.integer(2, 40))).isoformat()
        loans.append((n, draw.integer(1, 45), day.isoformat(), back))
    return books, tuple(loans)


def library_sqlite() -> bytes:
    """Books and loans from the middle of 2022 to the middle of 2024."""
    books, loans = _library()
    return sqlite_bytes(LIBRARY_SCHEMA, {"books": books, "loans": loans})


def loans_by_genre(year: str) -> Rows:
    """[genre, loans begun in the year], most first, then by name; no genre counts as `unknown`."""
    books, loans = _library()
    genre_of = {number: genre or "unknown" for number, _, genre in books}
    counts = Counter(genre_of[book] for _, book, day, _ in loans if day.startswith(year))
    return [[genre, n] for genre, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
