"""What the text samples about records are made from, and the right results.

The results are worked out from the records themselves; only the reference solutions parse the texts.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from bench_data.quickstart.inputs import Draw, json_bytes

Rows = list[list[Any]]

# A log ----------------------------------------------------------------------------------------------

_QUIET = ("GET /orders 200", "cache warm", "retry after ERROR 502", "session closed", "ERROR count reset")
_LOUD = ("connection reset", "timeout after 30 s", "disk almost full", "GET /orders 500")


class LogLine(NamedTuple):
    """When in UTC, the offset that the line shows, and the rest."""

    at: datetime
    offset_h: int
    level: str
    text: str


@cache
def _log() -> tuple[LogLine, ...]:
    draw = Draw("log")
    at = datetime(2024, 5, 6, 4, 0, 0)  # noqa: DTZ001 - shown with an offset below
    lines = []
    for _ in range(300):
        at += timedelta(seconds=draw.integer(5, 260))
        level = draw.pick(["INFO", "INFO", "INFO", "WARN", "ERROR"])
        message = draw.pick(_LOUD if level == "ERROR" else _QUIET)
        lines.append(LogLine(at, draw.pick([0, 0, 2, -3]), level, f"{draw.pick(['api', 'web'])}: {message}"))
    return tuple(lines)


def server_log() -> bytes:
    """Lines such as `2024-05-06T06:12:09+02:00 ERROR api: timeout after 30 s`."""
    shown = []
    for line in _log():
        local = (line.at + timedelta(hours=line.offset_h)).isoformat()
        zone = f"{line.offset_h:+03}:00" if line.offset_h else "Z"
        shown.append(f"{local}{zone} {line.level} {line.text}\n")
    return "".join(shown).encode()


def errors_by_hour() -> dict[str, int]:
    """Errors in each hour of the day (UTC, two digits) that has any."""
    return dict(sorted(Counter(f"{line.at:%H}" for line in _log() if line.level == "ERROR").items()))


# Invoices in German ---------------------------------------------------------------------------------

MONTHS_DE = (
    "Januar", "Februar", "März", "April", "Mai", "Juni",
    "Juli", "August", "September", "Oktober", "November", "Dezember",
)  # fmt: skip
_CUSTOMERS = ("Bäckerei Öztürk", "Müller & Söhne", "Gärtnerei Groß", "Café Übersee", "Jürgen Weiß")


class Invoice(NamedTuple):
    """Amounts in cents, the tax in percent."""

    number: str
    year: int
    month: int
    day: int
    customer: str
    net_cents: int
    tax_percent: int

    @property
    def gross_cents(self) -> int:
        """Net and tax, half a cent rounded up."""
        return (self.net_cents * (100 + self.tax_percent) + 50) // 100


@cache
def _invoices() -> tuple[Invoice, ...]:
    draw = Draw("invoices")
    return tuple(
        Invoice(
            f"2024-{n:03}",
            2024,
            draw.integer(1, 12),
            draw.integer(1, 28),
            draw.pick(_CUSTOMERS),
            # Every third one is a multiple of 50 cents, so that half a cent of tax occurs.
            draw.integer(20, 9000) * 50 if n % 3 == 0 else draw.integer(900, 480000),
            draw.pick([19, 19, 7]),
        )
        for n in range(1, 25)
    )


def invoices_txt() -> bytes:
    """A few lines for each invoice, in Windows-1252 and with German numbers and dates."""
    blocks = []
    for i in _invoices():
        euros = f"{i.net_cents // 100:,}".replace(",", ".")
        blocks.append(
            f"Rechnung Nr. {i.number} vom {i.day}. {MONTHS_DE[i.month - 1]} {i.year}\n"
            f"Kunde: {i.customer}\n"
            f"Nettobetrag: {euros},{i.net_cents % 100:02} €\n"
            f"zuzüglich {i.tax_percent} % MwSt.\n"
        )
    return "\n".join(Draw("invoice order").shuffled(blocks)).encode("cp1252")


def invoice_rows() -> Rows:
    """[number, date, net in EUR, gross in EUR], by number."""
    return [
        [i.number, f"{i.year}-{i.month:02}-{i.day:02}", i.net_cents / 100, i.gross_cents / 100]
        for i in _invoices()
    ]


# Reviews --------------------------------------------------------------------------------------------

_OPINIONS = {
    "kettle": "hot water quick loud lid handle steel",
    "lamp": "light bright warm switch cable shade dim",
    "tent": "rain dry pole light rope wind heavy",
    "radio": "sound loud station cable battery quick clear",
    "knife": "sharp steel handle blade heavy edge clear",
    "rucksack": "strap rain heavy pocket zip warm back",
    "clock": "loud battery hand tick bright late dim",
}
N_REVIEWS = len(_OPINIONS)


@cache
def _reviews() -> tuple[list[str], ...]:
    """The words of each review."""
    draw = Draw("reviews")
    reviews = []
    for product, opinions in _OPINIONS.items():
        own = [*opinions.split(), product]
        reviews.append([draw.pick(["the", "is", "and", "very", *own, *own]) for _ in range(45)] + ["the"] * 9)
    return tuple(draw.shuffled(review) for review in reviews)


def reviews_json() -> bytes:
    """A list of objects with a number and a text."""
    numbered = enumerate(_reviews(), start=1)
    return json_bytes([{"review": n, "text": " ".join(words).capitalize() + "."} for n, words in numbered])


def review_scores() -> list[list[tuple[str, float]]]:
    """For each review its words and their tf-idf, the highest first, then by the alphabet."""
    document_frequency = Counter(word for words in _reviews() for word in set(words))
    return [
        sorted(
            (
                (word, n * math.log(N_REVIEWS / document_frequency[word]))
                for word, n in Counter(words).items()
            ),
            key=lambda item: (-item[1], item[0]),
        )
        for words in _reviews()
    ]


def top_terms() -> Rows:
    """[review, term, tf-idf] of the highest term of each review."""
    return [[n, *scores[0]] for n, scores in enumerate(review_scores(), start=1)]
