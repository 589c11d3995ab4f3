"""Chart data analysis: distributions, outliers, fits and neighbours, drawn."""

from __future__ import annotations

from bench_data.checks import AllOf, AnswerNumber, ImageFile, JsonFile, TableFile
from bench_data.quickstart import chart_statistics_data as data
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "chart data analysis"


MIN_COLOURS = 12
"""What even a plain chart has, through the smoothed edges of its letters; a blank page has one."""


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _commute_histogram(),
        _sensor_outliers(),
        _growth_rate(),
        _bean_varieties(),
    ]


COMMUTE_HISTOGRAM = """\
data/commute.csv is a survey: person, and minutes on the way to work (a whole number; empty where the \
person did not answer: leave those out).

Sort the answers into seven bins: 0 to under 15 minutes, 15 to under 30, and so on in steps of 15; the last \
bin is 90 minutes and more. An answer of exactly 15 belongs to the second bin.

1. Write output/commute_bins.csv with the columns from_min (the lower edge: 0, 15, ..., 90) and n_people, a \
row for each bin, from the lowest up.
2. Draw it as a histogram or bar chart, 800 x 500 pixels, and save it as output/commute.png.

End your final reply with a line `Answer: <number>`: how many people need 45 minutes or more."""

_COMMUTE_HISTOGRAM_REFERENCE = Solution(
    cells=(
        """\
import numpy as np
import pandas as pd

minutes = pd.read_csv("data/commute.csv")["minutes"].dropna()
edges = [0, 15, 30, 45, 60, 75, 90, np.inf]
bins = pd.cut(minutes, edges, right=False, labels=edges[:-1])
counts = bins.value_counts(sort=False)
table = pd.DataFrame({"from_min": edges[:-1], "n_people": counts.to_numpy()})
table.to_csv("output/commute_bins.csv", index=False)
print(table)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(8, 5), dpi=100)
ax.bar(table["from_min"].astype(str), table["n_people"])
ax.set_xlabel("Minutes, from")
ax.set_ylabel("People")
fig.savefig("output/commute.png", dpi=100)
plt.close(fig)
print(table.loc[table["from_min"] >= 45, "n_people"].sum())
""",
    ),
    answer="The bins are in output/commute_bins.csv.\nAnswer: {last_line}",
)


def _commute_histogram() -> Sample:
    rows = data.commute_histogram()
    return Sample(
        id="chart-commute-histogram",
        messages=({"role": "user", "content": COMMUTE_HISTOGRAM},),
        category=CATEGORY,
        files=(SampleFile("data/commute.csv", data.commute_csv),),
        check=AllOf(
            checks=[
                TableFile(path="output/commute_bins.csv", columns=["from_min", "n_people"], rows=rows),
                chart_file("output/commute.png", width=800, height=500),
                AnswerNumber(value=sum(n for low, n in rows if low >= 45)),
            ]
        ),
        reference=_COMMUTE_HISTOGRAM_REFERENCE,
        decoy=with_mistake(_COMMUTE_HISTOGRAM_REFERENCE, "right=False, ", ""),
        metadata={"mistake": "puts an edge into the bin below it"},
    )


SENSOR_OUTLIERS = """\
data/pressure.csv has the readings of four sensors: minute, sensor, pressure_bar. For each sensor by \
itself, let Q1 and Q3 be the lower and upper quartile of its 61 readings (the 16th and the 46th in \
ascending order) and D = Q3 - Q1. A reading is an outlier if it is below Q1 - 1.5 * D or above \
Q3 + 1.5 * D of its own sensor; one exactly on the limit is not.

1. Write output/outliers.json: an object with a key for each sensor; its value is the list of the minutes of \
that sensor's outliers in ascending order (an empty list where there are none).
2. Draw all readings over time with the outliers marked, 1000 x 600 pixels, and save it as \
output/pressure.png.

End your final reply with a line `Answer: <number>`: the number of outliers of all sensors together."""

_SENSOR_OUTLIERS_REFERENCE = Solution(
    cells=(
        """\
import json

import pandas as pd

df = pd.read_csv("data/pressure.csv")
by_sensor = df.groupby("sensor")["pressure_bar"]
q1 = by_sensor.transform(lambda s: s.quantile(0.25))
q3 = by_sensor.transform(lambda s: s.quantile(0.75))
# A millionth of a bar of slack: the readings have one decimal, floats do not.
slack = 1.5 * (q3 - q1) + 1e-6
df["outlier"] = (df["pressure_bar"] < q1 - slack) | (df["pressure_bar"] > q3 + slack)
outliers = {
    sensor: sorted(int(minute) for minute in rows.loc[rows["outlier"], "minute"])
    for sensor, rows in df.groupby("sensor")
}
with open("output/outliers.json", "w") as file:
    json.dump(outliers, file)
print(outliers)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(10, 6), dpi=100)
for sensor, rows in df.groupby("sensor"):
    ax.plot(rows["minute"], rows["pressure_bar"], label=sensor)
marked = df[df["outlier"]]
ax.scatter(marked["minute"], marked["pressure_bar"], color="red", zorder=3)
ax.legend()
fig.savefig("output/pressure.png", dpi=100)
plt.close(fig)
print(len(marked))
""",
    ),
    answer="Outliers are marked in red in output/pressure.png.\nAnswer: {last_line}",
)


def _sensor_outliers() -> Sample:
    outliers = data.outlier_minutes()
    return Sample(
        id="chart-sensor-outliers",
        messages=({"role": "user", "content": SENSOR_OUTLIERS},),
        category=CATEGORY,
        files=(SampleFile("data/pressure.csv", data.sensors_csv),),
        check=AllOf(
            checks=[
                JsonFile(
                    path="output/outliers.json", value={name: [*found] for name, found in outliers.items()}
                ),
                chart_file("output/pressure.png", width=1000, height=600),
                AnswerNumber(value=sum(map(len, outliers.values()))),
            ]
        ),
        reference=_SENSOR_OUTLIERS_REFERENCE,
        decoy=with_mistake(
            _SENSOR_OUTLIERS_REFERENCE,
            'by_sensor = df.groupby("sensor")',
            'by_sensor = df.groupby(df["sensor"].notna())',
        ),
        metadata={"mistake": "takes the quartiles of all sensors together"},
    )


GROWTH_RATE = """\
data/growth.csv is a bacteria culture counted every 20 minutes: minute, cells_per_ml. After a lag the \
culture doubles regularly, until it reaches a plateau.

Fit a straight line by ordinary least squares to the base-2 logarithm of cells_per_ml as a function of \
time, with the counts from minute 120 to minute 500 only (both included). The doubling time is the inverse \
of its slope.

Draw all counts over time with a logarithmic vertical axis, and the fitted line, and save the chart as \
output/growth.png.

End your final reply with a line `Answer: <minutes>`: the doubling time in minutes, rounded to 2 decimals."""

_GROWTH_RATE_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd

growth = pd.read_csv("data/growth.csv")
print(growth.describe())
""",
        """\
import numpy as np

phase = growth[(growth["minute"] >= 120) & (growth["minute"] <= 500)]
slope, intercept = np.polyfit(phase["minute"], np.log2(phase["cells_per_ml"]), 1)
print(len(phase), slope, intercept)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.scatter(growth["minute"], growth["cells_per_ml"])
ax.plot(phase["minute"], 2 ** (intercept + slope * phase["minute"]), color="black")
ax.set_yscale("log")
fig.savefig("output/growth.png")
plt.close(fig)
""",
        """\
print(f"{1 / slope:.2f}")
""",
    ),
    answer="In the growth phase the culture doubles every {last_line} minutes.\nAnswer: {last_line}",
)


def _growth_rate() -> Sample:
    return Sample(
        id="chart-growth-rate",
        messages=({"role": "user", "content": GROWTH_RATE},),
        category=CATEGORY,
        files=(SampleFile("data/growth.csv", data.growth_csv),),
        check=AllOf(
            checks=[
                chart_file("output/growth.png"),
                AnswerNumber(value=data.doubling_time_min(), abs_tol=0.0051),
            ]
        ),
        reference=_GROWTH_RATE_REFERENCE,
        decoy=with_mistake(
            _GROWTH_RATE_REFERENCE,
            '(growth["minute"] >= 120) & (growth["minute"] <= 500)',
            'growth["minute"] >= 0',
        ),
        metadata={"mistake": "fits the lag and the plateau as well"},
    )


BEAN_VARIETIES = """\
data/known_beans.csv has beans with their variety: length_mm, mass_mg, variety. data/new_beans.csv has \
beans of unknown variety: bean (its number), length_mm, mass_mg.

Tell the variety of each new bean from its five nearest known beans (each has one vote). Distance is \
Euclidean, after length and mass were standardised: subtract the mean of the known beans and divide by their \
standard deviation (that of the population, dividing by n).

1. Write output/varieties.csv with the columns bean and variety, in order of the number.
2. Draw length against mass as a scatter plot, coloured by variety, with the new beans marked differently \
from the known ones, and save it as output/beans.png.

End your final reply with a line `Answer: <number>`: how many of the new beans are borlotti."""

_BEAN_VARIETIES_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

known = pd.read_csv("data/known_beans.csv")
new = pd.read_csv("data/new_beans.csv")
features = ["length_mm", "mass_mg"]
scaler = StandardScaler().fit(known[features])
model = KNeighborsClassifier(n_neighbors=5)
model.fit(scaler.transform(known[features]), known["variety"])
new["variety"] = model.predict(scaler.transform(new[features]))
new[["bean", "variety"]].to_csv("output/varieties.csv", index=False)
print(new)
""",
        """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
for variety, colour in {"borlotti": "tab:red", "cannellini": "tab:blue"}.items():
    for beans, marker in ((known, "o"), (new, "*")):
        rows = beans[beans["variety"] == variety]
        ax.scatter(rows["length_mm"], rows["mass_mg"], color=colour, marker=marker)
fig.savefig("output/beans.png")
plt.close(fig)
print((new["variety"] == "borlotti").sum())
""",
    ),
    answer="Stars are the new beans.\nAnswer: {last_line}",
)


def _bean_varieties() -> Sample:
    rows = data.bean_varieties()
    return Sample(
        id="chart-bean-varieties",
        messages=({"role": "user", "content": BEAN_VARIETIES},),
        category=CATEGORY,
        files=(
            SampleFile("data/known_beans.csv", data.known_beans_csv),
            SampleFile("data/new_beans.csv", data.new_beans_csv),
        ),
        check=AllOf(
            checks=[
                TableFile(path="output/varieties.csv", columns=["bean", "variety"], rows=rows),
                chart_file("output/beans.png"),
                AnswerNumber(value=sum(variety == "borlotti" for _, variety in rows)),
            ]
        ),
        reference=_BEAN_VARIETIES_REFERENCE,
        decoy=with_mistake(
            _BEAN_VARIETIES_REFERENCE,
            "StandardScaler().fit(known[features])",
            "StandardScaler(with_mean=False, with_std=False).fit(known[features])",
        ),
        metadata={"mistake": "compares millimetres with milligrams"},
    )


def chart_file(path: str, *, width: int | None = None, height: int | None = None) -> ImageFile:
    """Return the check of a chart: a PNG file that is not a blank page."""
    return ImageFile(path=path, format="PNG", width=width, height=height, min_colours=MIN_COLOURS)
