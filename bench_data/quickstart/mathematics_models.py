"""Complex mathematics: a Markov chain, a loan and a linear programme."""

from __future__ import annotations

from bench_data.checks import AllOf, AnswerNumber, JsonFile, TableFile
from bench_data.quickstart import mathematics_data as data
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "complex mathematics"


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _weather_chain(),
        _loan_schedule(),
        _production_plan(),
    ]


WEATHER_CHAIN = """\
data/weather.csv describes a Markov chain: the row is today's weather (column `from`), the other columns are \
tomorrow's, and a field is the probability to go from the one to the other (each row sums to 1).

Find its stationary distribution and write it to output/stationary.json: an object with the probability of \
each of the five kinds of weather, rounded to 6 decimals.

End your final reply with a line `Answer: <days>`: the mean number of days from one day with storm to the \
next in the long run (the inverse of its unrounded stationary probability), rounded to 2 decimals."""

_WEATHER_CHAIN_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd

chain = pd.read_csv("data/weather.csv", index_col="from")
print(chain, chain.sum(axis=1), sep="\\n")
""",
        """\
import numpy as np

matrix = chain.to_numpy()
transitions = matrix.T
values, vectors = np.linalg.eig(transitions)
vector = vectors[:, np.argmin(abs(values - 1))].real
shares = dict(zip(chain.columns, vector / vector.sum()))
print(shares)
""",
        """\
import json

with open("output/stationary.json", "w") as file:
    json.dump({name: round(float(share), 6) for name, share in shares.items()}, file)
print(f"{1 / shares['storm']:.2f}")
""",
    ),
    answer="The distribution is in output/stationary.json.\nAnswer: {last_line}",
)


def _weather_chain() -> Sample:
    shares = data.stationary()
    return Sample(
        id="math-weather-chain",
        messages=({"role": "user", "content": WEATHER_CHAIN},),
        category=CATEGORY,
        files=(SampleFile("data/weather.csv", data.weather_csv),),
        check=AllOf(
            checks=[
                JsonFile(path="output/stationary.json", value={**shares}, abs_tol=0.0000011),
                AnswerNumber(value=1 / shares["storm"], abs_tol=0.0051),
            ]
        ),
        reference=_WEATHER_CHAIN_REFERENCE,
        decoy=with_mistake(_WEATHER_CHAIN_REFERENCE, "transitions = matrix.T", "transitions = matrix"),
        metadata={"mistake": "takes the right eigenvector for the left one"},
    )


LOAN_SCHEDULE = """\
data/loan.json has the terms of a loan: amount_eur, annual_rate_percent (nominal; a month's interest is the \
balance at its start times a twelfth of the rate) and monthly_payment_eur. Interest is rounded to cents each \
month, half a cent upwards. The payment at the end of each month covers the interest first; the rest is \
principal and lowers the balance. The last payment is smaller: it pays off exactly what is left.

Write the schedule to output/schedule.csv with the columns month (1, 2, ...), interest_eur, principal_eur \
and balance_eur (after the payment), amounts with 2 decimals, until the balance is 0.

End your final reply with a line `Answer: <amount>`: the sum of all interest in EUR, with 2 decimals."""

_LOAN_SCHEDULE_REFERENCE = Solution(
    cells=(
        """\
import json
from decimal import ROUND_HALF_UP, Decimal

with open("data/loan.json") as file:
    terms = json.load(file, parse_float=Decimal, parse_int=Decimal)
print(terms)
""",
        """\
monthly_rate = terms["annual_rate_percent"] / 100 / 12
balance = terms["amount_eur"]
schedule = []
while balance > 0:
    interest = (balance * monthly_rate).quantize(Decimal("0.01"), ROUND_HALF_UP)
    principal = min(terms["monthly_payment_eur"] - interest, balance)
    balance -= principal
    schedule.append((len(schedule) + 1, interest, principal, balance))
print(len(schedule), schedule[-1])
""",
        """\
with open("output/schedule.csv", "w") as file:
    file.write("month,interest_eur,principal_eur,balance_eur\\n")
    for month, *amounts in schedule:
        file.write(f"{month}," + ",".join(f"{amount:.2f}" for amount in amounts) + "\\n")
print(sum(interest for _, interest, _, _ in schedule))
""",
    ),
    answer="The schedule is in output/schedule.csv.\nAnswer: {last_line}",
)


def _loan_schedule() -> Sample:
    rows = data.loan_schedule()
    return Sample(
        id="math-loan-schedule",
        messages=({"role": "user", "content": LOAN_SCHEDULE},),
        category=CATEGORY,
        files=(SampleFile("data/loan.json", data.loan_json),),
        check=AllOf(
            checks=[
                TableFile(
                    path="output/schedule.csv",
                    columns=["month", "interest_eur", "principal_eur", "balance_eur"],
                    rows=rows,
                    abs_tol=0.001,
                ),
                AnswerNumber(value=round(sum(row[1] for row in rows), 2), abs_tol=0.001),
            ]
        ),
        reference=_LOAN_SCHEDULE_REFERENCE,
        decoy=with_mistake(
            _LOAN_SCHEDULE_REFERENCE,
            'terms["annual_rate_percent"] / 100 / 12',
            '(1 + terms["annual_rate_percent"] / 100) ** (Decimal(1) / 12) - 1',
        ),
        metadata={"mistake": "takes the nominal rate for the effective one"},
    )


PRODUCTION_PLAN = """\
A workshop makes four products. data/products.csv gives for one piece of each (product) the profit in EUR \
(profit_eur) and the minutes that it takes at three stations (sawing_min, assembly_min, painting_min). \
data/capacity.csv gives the minutes that each station has in a day (station, available_min). Everything that \
is made is sold; the daily amounts need not be whole numbers, since a piece may be finished the next day.

What is the highest possible profit per day?

End your final reply with a line `Answer: <amount>`: that profit in EUR, rounded to 2 decimals."""

_PRODUCTION_PLAN_REFERENCE = Solution(
    cells=(
        """\
import pandas as pd

products = pd.read_csv("data/products.csv")
capacity = pd.read_csv("data/capacity.csv").set_index("station")["available_min"]
print(products, capacity, sep="\\n")
""",
        """\
from scipy.optimize import linprog

minutes = products[[f"{station}_min" for station in capacity.index]].to_numpy().T
plan = linprog(-products["profit_eur"], A_ub=minutes, b_ub=capacity, bounds=(0, None))
print(plan.message, dict(zip(products["product"], plan.x)))
""",
        """\
print(f"{-plan.fun:.2f}")
""",
    ),
    answer="Solved as a linear programme.\nAnswer: {last_line}",
)


def _production_plan() -> Sample:
    return Sample(
        id="math-production-plan",
        messages=({"role": "user", "content": PRODUCTION_PLAN},),
        category=CATEGORY,
        files=(
            SampleFile("data/products.csv", data.plan_csv),
            SampleFile("data/capacity.csv", data.capacity_csv),
        ),
        check=AnswerNumber(value=data.best_profit(), abs_tol=0.0051),
        reference=_PRODUCTION_PLAN_REFERENCE,
        decoy=with_mistake(
            _PRODUCTION_PLAN_REFERENCE, "bounds=(0, None))", "bounds=(0, None), integrality=1)"
        ),
        metadata={"mistake": "makes whole pieces only"},
    )
