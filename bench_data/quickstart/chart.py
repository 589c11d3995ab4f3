"""Chart data analysis: add up and compare the rows of tables, and draw the sums."""

from __future__ import annotations

from bench_data.checks import AllOf, AnswerNumber, AnswerText, JsonFile, TableFile
from bench_data.quickstart import chart_data as data
from bench_data.quickstart import chart_statistics
from bench_data.quickstart.chart_statistics import chart_file
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = chart_statistics.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _monthly_revenue(),
        _station_temperatures(),
        _energy_mix(),
        _library_genres(),
        *chart_statistics.samples(),
    ]


MONTHLY_REVENUE = """\
data/orders.csv is a shop's export of its orders of 2023: order_id, date (YYYY-MM-DD), quantity, \
unit_price_eur, status. By mistake some lines were exported twice; count each order_id once. Only orders \
with the status `shipped` count. The revenue of an order is quantity times unit_price_eur.

1. Write output/monthly_revenue.csv with the columns month (YYYY-MM) and revenue_eur (EUR, rounded to 2 \
decimals), a row for each month, in order of time.
2. Draw a bar chart of the revenue by month and save it as output/monthly_revenue.png.

End your final reply with a line `Answer: <month>`: the month with the highest revenue, as YYYY-MM."""

_MONTHLY_REVENUE_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd

orders = pd.read_csv("data/orders.csv")
print(orders.shape, orders["order_id"].nunique())
print(orders["status"].value_counts())
""",
        """\
orders = orders.drop_duplicates("order_id")
shipped = orders[orders["status"] == "shipped"].copy()
shipped["month"] = shipped["date"].str[:7]
shipped["revenue_eur"] = shipped["quantity"] * shipped["unit_price_eur"]
monthly = shipped.groupby("month")["revenue_eur"].sum().round(2)
monthly.reset_index().to_csv("output/monthly_revenue.csv", index=False)
print(monthly)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(9, 4))
ax.bar(monthly.index, monthly.values)
ax.set_ylabel("Revenue (EUR)")
ax.tick_params(axis="x", rotation=45)
fig.tight_layout()
fig.savefig("output/monthly_revenue.png")
plt.close(fig)
print(monthly.idxmax())
""",
    ),
    answer="The chart is in output/monthly_revenue.png.\nAnswer: {last_line}",
)


def _monthly_revenue() -> Sample:
    rows = data.monthly_revenue()
    return Sample(
        id="chart-monthly-revenue",
        messages=({"role": "user", "content": MONTHLY_REVENUE},),
        category=CATEGORY,
        files=(SampleFile("data/orders.csv", data.orders_csv),),
        check=AllOf(
            checks=[
                TableFile(
                    path="output/monthly_revenue.csv",
                    columns=["month", "revenue_eur"],
                    rows=rows,
                    abs_tol=0.001,
                ),
                chart_file("output/monthly_revenue.png"),
                AnswerText(accept=[str(max(rows, key=lambda row: row[1])[0])]),
            ]
        ),
        reference=_MONTHLY_REVENUE_REFERENCE,
        decoy=with_mistake(_MONTHLY_REVENUE_REFERENCE, '.drop_duplicates("order_id")', ".copy()"),
        metadata={"mistake": "counts repeated orders twice"},
    )


STATION_TEMPERATURES = """\
data/stations.xlsx has a sheet for each of two weather stations, with a row for each day: `Harbour` (date, \
temperature_c in degrees Celsius; -99.9 marks a missing reading) and `Airport` (date, temperature_f in \
degrees Fahrenheit; no reading is missing).

1. Write output/monthly_means.csv with the columns month (YYYY-MM), harbour_c and airport_c: the mean of \
that month's readings at each station in degrees Celsius, rounded to 2 decimals, in order of time. Leave \
missing readings out.
2. Draw both as lines over the months and save the chart as output/monthly_means.png.

End your final reply with a line `Answer: <month>`: the month, as YYYY-MM, in which the two means (before \
rounding) are furthest apart."""

_STATION_TEMPERATURES_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd

sheets = pd.read_excel("data/stations.xlsx", sheet_name=["Harbour", "Airport"])
harbour = sheets["Harbour"].set_index("date")["temperature_c"]
airport = sheets["Airport"].set_index("date")["temperature_f"]
print(harbour.describe(), airport.describe(), sep="\\n")
""",
        """\
import matplotlib.pyplot as plt

harbour = harbour[harbour > -99]
celsius = pd.DataFrame({"harbour_c": harbour, "airport_c": (airport - 32) * 5 / 9})
means = celsius.groupby(celsius.index.strftime("%Y-%m")).mean()
means.index.name = "month"
means.round(2).to_csv("output/monthly_means.csv")
ax = means.plot(marker="o", ylabel="Mean temperature (°C)")
ax.figure.savefig("output/monthly_means.png")
plt.close(ax.figure)
print((means["harbour_c"] - means["airport_c"]).abs().idxmax())
""",
    ),
    answer="Both files are written.\nAnswer: {last_line}",
)


def _station_temperatures() -> Sample:
    return Sample(
        id="chart-station-temperatures",
        messages=({"role": "user", "content": STATION_TEMPERATURES},),
        category=CATEGORY,
        files=(SampleFile("data/stations.xlsx", data.stations_xlsx),),
        check=AllOf(
            checks=[
                TableFile(
                    path="output/monthly_means.csv",
                    columns=["month", "harbour_c", "airport_c"],
                    rows=data.monthly_temperatures(),
                    abs_tol=0.0051,
                ),
                chart_file("output/monthly_means.png"),
                AnswerText(accept=[data.largest_gap_month()]),
            ]
        ),
        reference=_STATION_TEMPERATURES_REFERENCE,
        decoy=with_mistake(_STATION_TEMPERATURES_REFERENCE, "harbour[harbour > -99]", "harbour.dropna()"),
        metadata={"mistake": "takes the mark of a missing reading for a temperature"},
    )


ENERGY_MIX = """\
data/energy.json gives the electricity that five regions produced in 2023, by source. Mind the `unit` of \
each region: GWh or TWh (1 TWh = 1000 GWh).

1. Write output/energy_totals.json: an object with the production of all regions together for each source, \
in GWh, as numbers; the keys are the names of the sources.
2. Draw a pie chart of these totals, 600 x 600 pixels, and save it as output/energy_mix.png.

Hydro, solar and wind are renewable, the other sources are not. End your final reply with a line \
`Answer: <percent>`: the renewable share of the whole production in percent, rounded to 1 decimal."""

_ENERGY_MIX_REFERENCE = Solution(
    cells=(
        """\
import json

import matplotlib.pyplot as plt

with open("data/energy.json", encoding="utf-8") as file:
    regions = json.load(file)["regions"]
totals = {}
for region in regions:
    factor = {"GWh": 1, "TWh": 1000}[region["unit"]]
    for source, amount in region["production"].items():
        totals[source] = totals.get(source, 0) + amount * factor
with open("output/energy_totals.json", "w") as file:
    json.dump(totals, file)

fig, ax = plt.subplots(figsize=(6, 6), dpi=100)
ax.pie(list(totals.values()), labels=list(totals), autopct="%.0f%%")
fig.savefig("output/energy_mix.png", dpi=100)
plt.close(fig)

renewable = sum(totals[source] for source in ("hydro", "solar", "wind"))
print(f"{100 * renewable / sum(totals.values()):.1f}")
""",
    ),
    answer="The renewable share is {last_line} percent.\nAnswer: {last_line}",
)


def _energy_mix() -> Sample:
    return Sample(
        id="chart-energy-mix",
        messages=({"role": "user", "content": ENERGY_MIX},),
        category=CATEGORY,
        files=(SampleFile("data/energy.json", data.energy_json),),
        check=AllOf(
            checks=[
                JsonFile(path="output/energy_totals.json", value={**data.energy_totals_gwh()}, abs_tol=0.001),
                chart_file("output/energy_mix.png", width=600, height=600),
                AnswerNumber(value=round(data.renewable_percent(), 1), abs_tol=0.001),
            ]
        ),
        reference=_ENERGY_MIX_REFERENCE,
        decoy=with_mistake(_ENERGY_MIX_REFERENCE, '{"GWh": 1, "TWh": 1000}[region["unit"]]', "1"),
        metadata={"mistake": "adds TWh to GWh"},
    )


LIBRARY_GENRES = """\
data/library.sqlite is an SQLite database with two tables: books (id, title, genre) and loans (id, book_id, \
loaned_on, returned_on). Dates are text, YYYY-MM-DD. A book without a genre (NULL) counts as the genre \
`unknown`. Loans that were not returned yet (returned_on is NULL) count like the others.

For each genre, count the loans that began (loaned_on) in the year 2023.

1. Write output/genres.csv with the columns genre and n_loans: the five genres with the most loans, most \
first, and among equals in alphabetical order.
2. Draw these five as a horizontal bar chart and save it as output/genres.png.

End your final reply with a line `Answer: <number>`: the loans of the first of the five."""

_LIBRARY_GENRES_REFERENCE = Solution(
    cells=(
        """\
import sqlite3

connection = sqlite3.connect("data/library.sqlite")
for name, sql in connection.execute("SELECT name, sql FROM sqlite_master"):
    print(sql)
""",
        """\
import pandas as pd

query = '''
    SELECT coalesce(genre, 'unknown') AS genre, count(*) AS n_loans
    FROM loans JOIN books ON books.id = loans.book_id
    WHERE loaned_on BETWEEN '2023-01-01' AND '2023-12-31'
    GROUP BY 1 ORDER BY n_loans DESC, genre LIMIT 5
'''
top = pd.read_sql(query, connection)
top.to_csv("output/genres.csv", index=False)
print(top)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.barh(top["genre"], top["n_loans"])
ax.invert_yaxis()
fig.tight_layout()
fig.savefig("output/genres.png")
plt.close(fig)
connection.close()
print(top["n_loans"].iloc[0])
""",
    ),
    answer="The five genres are in output/genres.csv.\nAnswer: {last_line}",
)


def _library_genres() -> Sample:
    rows = data.loans_by_genre("2023")[:5]
    return Sample(
        id="chart-library-genres",
        messages=({"role": "user", "content": LIBRARY_GENRES},),
        category=CATEGORY,
        files=(SampleFile("data/library.sqlite", data.library_sqlite),),
        check=AllOf(
            checks=[
                TableFile(path="output/genres.csv", columns=["genre", "n_loans"], rows=rows),
                chart_file("output/genres.png"),
                AnswerNumber(value=rows[0][1]),
            ]
        ),
        reference=_LIBRARY_GENRES_REFERENCE,
        decoy=with_mistake(
            _LIBRARY_GENRES_REFERENCE, "BETWEEN '2023-01-01' AND '2023-12-31'", ">= '2023-01-01'"
        ),
        metadata={"mistake": "counts the loans of 2024 too"},
    )
