"""Text analysis: logs, invoices and reviews, where the text holds records."""

from __future__ import annotations

from bench_data.checks import AllOf, AnswerNumber, AnswerText, JsonFile, TableFile
from bench_data.quickstart import text_records_data as data
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "text analysis"


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _server_log(),
        _german_invoices(),
        _review_terms(),
    ]


SERVER_LOG = """\
Each line of data/server.log starts with a time in ISO 8601 with its offset from UTC (`Z` is UTC), then the \
level (INFO, WARN or ERROR), then the message, with single spaces between. Different machines write with \
different offsets.

Count the lines of level ERROR by the hour of the day in UTC.

Write output/errors_by_hour.json: an object whose keys are the hours that have at least one such line, as \
two digits ("00" to "23"), and whose values are the counts.

End your final reply with a line `Answer: <hour>`: the hour (two digits, UTC) with the most such lines; if \
several have the most, the earliest."""

_SERVER_LOG_REFERENCE = Solution(
    cells=(
        """\
with open("data/server.log", encoding="utf-8") as file:
    lines = [line.rstrip("\\n").split(" ", 2) for line in file]
print(len(lines), sorted({level for _, level, _ in lines}), lines[:3])
""",
        """\
from collections import Counter
from datetime import datetime, timezone

errors = [datetime.fromisoformat(at) for at, level, _ in lines if level == "ERROR"]
by_hour = Counter(at.astimezone(timezone.utc).strftime("%H") for at in errors)
print(sorted(by_hour.items()))
""",
        """\
import json

with open("output/errors_by_hour.json", "w") as file:
    json.dump(dict(sorted(by_hour.items())), file)
print(min(by_hour, key=lambda hour: (-by_hour[hour], hour)))
""",
    ),
    answer="Most errors happen in hour {last_line} (UTC).\nAnswer: {last_line}",
)


def _server_log() -> Sample:
    by_hour = data.errors_by_hour()
    worst = min(by_hour, key=lambda hour: (-by_hour[hour], hour))
    return Sample(
        id="text-server-log",
        messages=({"role": "user", "content": SERVER_LOG},),
        category=CATEGORY,
        files=(SampleFile("data/server.log", data.server_log),),
        check=AllOf(
            checks=[
                JsonFile(path="output/errors_by_hour.json", value={**by_hour}),
                AnswerNumber(value=int(worst)),
            ]
        ),
        reference=_SERVER_LOG_REFERENCE,
        decoy=with_mistake(_SERVER_LOG_REFERENCE, "at.astimezone(timezone.utc)", "at"),
        metadata={"mistake": "counts by local hours", "language": "en"},
    )


GERMAN_INVOICES = """\
data/rechnungen.txt holds German invoices in the encoding Windows-1252, in no particular order and with an \
empty line between them. Each gives its number and date (`Rechnung Nr. ... vom ...`), the customer (Kunde), \
the net amount (Nettobetrag, in German notation: `1.234,50 €` is 1234.50 EUR) and the rate of the tax \
(MwSt.) that comes on top. The gross amount is net plus tax, rounded to cents for each invoice; half a cent \
is rounded up.

Write output/rechnungen.csv with the columns number, date (YYYY-MM-DD), net_eur and gross_eur (with a \
decimal point and 2 decimals), in order of the number.

End your final reply with a line `Answer: <amount>`: the sum of all gross amounts in EUR, with a decimal \
point, 2 decimals and no thousands separator."""

_GERMAN_INVOICES_REFERENCE = Solution(
    cells=(
        """\
with open("data/rechnungen.txt", encoding="cp1252") as file:
    blocks = file.read().strip().split("\\n\\n")
print(len(blocks), blocks[0], sep="\\n")
""",
        """\
import re
from decimal import ROUND_HALF_UP, Decimal

months = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
rows = []
for block in blocks:
    number, day, month, year = re.search(r"Nr\\. (\\S+) vom (\\d+)\\. (\\w+) (\\d+)", block).groups()
    date = f"{year}-{months.index(month) + 1:02}-{int(day):02}"
    net = re.search(r"Nettobetrag: (\\S+) €", block).group(1)
    net = Decimal(net.replace(".", "").replace(",", "."))
    tax = Decimal(re.search(r"(\\d+) % MwSt", block).group(1))
    gross = (net * (100 + tax) / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
    rows.append((number, date, net, gross))
rows.sort()
print(rows[:3])
""",
        """\
import csv

with open("output/rechnungen.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["number", "date", "net_eur", "gross_eur"])
    writer.writerows(rows)
print(sum(gross for *_, gross in rows))
""",
    ),
    answer="The table is in output/rechnungen.csv.\nAnswer: {last_line}",
)


def _german_invoices() -> Sample:
    rows = data.invoice_rows()
    return Sample(
        id="text-german-invoices",
        messages=({"role": "user", "content": GERMAN_INVOICES},),
        category=CATEGORY,
        files=(SampleFile("data/rechnungen.txt", data.invoices_txt),),
        check=AllOf(
            checks=[
                TableFile(
                    path="output/rechnungen.csv",
                    columns=["number", "date", "net_eur", "gross_eur"],
                    rows=rows,
                    abs_tol=0.001,
                ),
                AnswerNumber(value=round(sum(gross for *_, gross in rows), 2), abs_tol=0.001),
            ]
        ),
        reference=_GERMAN_INVOICES_REFERENCE,
        decoy=with_mistake(
            _GERMAN_INVOICES_REFERENCE, 'Decimal(re.search(r"(\\d+) % MwSt", block).group(1))', "Decimal(19)"
        ),
        metadata={"mistake": "takes one tax rate for all", "language": "de"},
    )


REVIEW_TERMS = """\
data/reviews.json is a list of product reviews, each with the keys `review` (its number) and `text`. Make \
the text lower case; a term is then an unbroken run of the letters a to z.

The weight of a term in a review is f * ln(N / d): f is how often the term occurs in this review, N is the \
number of all reviews, d the number of reviews that hold the term at least once, and ln the natural \
logarithm.

Write output/top_terms.csv with the columns review, term and weight (rounded to 4 decimals): for each review \
the term with the highest weight (among equals the first in the alphabet), in order of the number.

End your final reply with a line `Answer: <term>`: the term with the highest weight of all."""

_REVIEW_TERMS_REFERENCE = Solution(
    cells=(
        """\
import json

with open("data/reviews.json", encoding="utf-8") as file:
    reviews = json.load(file)
print(len(reviews), reviews[0])
""",
        """\
import re
from collections import Counter

counts = {r["review"]: Counter(re.findall("[a-z]+", r["text"].lower())) for r in reviews}
containing = Counter(term for terms in counts.values() for term in terms)
print(containing.most_common(5))
""",
        """\
import math

top = []
for review, terms in sorted(counts.items()):
    weights = {term: n * math.log(len(reviews) / containing[term]) for term, n in terms.items()}
    term = min(weights, key=lambda term: (-weights[term], term))
    top.append((review, term, round(weights[term], 4)))
print(top)
""",
        """\
import csv

with open("output/top_terms.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["review", "term", "weight"])
    writer.writerows(top)
print(max(top, key=lambda row: row[2])[1])
""",
    ),
    answer="The terms are in output/top_terms.csv.\nAnswer: {last_line}",
)


def _review_terms() -> Sample:
    rows = data.top_terms()
    return Sample(
        id="text-review-terms",
        messages=({"role": "user", "content": REVIEW_TERMS},),
        category=CATEGORY,
        files=(SampleFile("data/reviews.json", data.reviews_json),),
        check=AllOf(
            checks=[
                TableFile(
                    path="output/top_terms.csv",
                    columns=["review", "term", "weight"],
                    rows=rows,
                    abs_tol=0.000051,
                ),
                AnswerText(accept=[str(max(rows, key=lambda row: row[2])[1])]),
            ]
        ),
        reference=_REVIEW_TERMS_REFERENCE,
        decoy=with_mistake(
            _REVIEW_TERMS_REFERENCE,
            "Counter(term for terms in counts.values() for term in terms)",
            "sum(counts.values(), Counter())",
        ),
        metadata={"mistake": "counts occurrences where reviews are meant", "language": "en"},
    )
