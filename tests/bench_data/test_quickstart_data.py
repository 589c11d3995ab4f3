"""That each task has one right answer: the made-up data holds no case that could be read two ways."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from bench_data.quickstart import chart_data, chart_statistics_data, image_layout, mathematics_data, text_data
from bench_data.quickstart import text_records_data as records


def test_one_month_leads() -> None:
    """No two months share the highest revenue."""
    revenue = sorted(row[1] for row in chart_data.monthly_revenue())
    assert len(revenue) == 12
    assert revenue[-1] - revenue[-2] > 1


def test_one_month_has_the_widest_gap() -> None:
    """The means of the stations differ most in one month, and not by a hair."""
    gaps = sorted(abs(row[1] - row[2]) for row in chart_data.monthly_temperatures())
    assert gaps[-1] - gaps[-2] > 0.05


def test_no_reading_is_on_the_fence() -> None:
    """No pressure is on the limit of an outlier, where rounding could decide; every sensor has some."""
    n = chart_statistics_data.N_READINGS
    for readings in chart_statistics_data._sensors().values():
        ordered = sorted(readings)
        q1, q3 = ordered[n // 4], ordered[3 * (n // 4)]
        assert not {5 * q1 - 3 * q3, 5 * q3 - 3 * q1} & {2 * reading for reading in readings}
    assert all(chart_statistics_data.outlier_minutes().values())


def test_the_edges_of_the_bins_are_hit() -> None:
    """Many people say a whole quarter of an hour, or the edges would not matter."""
    said = chart_statistics_data._commute_min()
    assert sum(n is not None and n % 15 == 0 for n in said) > 20
    assert None in said
    assert any(n is not None and n >= 105 for n in said), "the last bin is no wider than the others"


def test_equals_among_the_genres_occur() -> None:
    """The alphabet decides within the five genres, and not which they are or which is first."""
    counts = [n for _, n in chart_data.loans_by_genre("2023")]
    assert len(set(counts[:5])) < 5
    assert counts[0] > counts[1]
    assert counts[4] > counts[5]


def test_the_ends_of_the_growth_phase_matter() -> None:
    """Without the first or the last count of the phase, the doubling time is another."""
    points = dict(chart_statistics_data._growth())

    def doubling_time(first: int, last: int) -> float:
        minutes = range(first, last + 1, 20)
        return 1 / float(np.polyfit(minutes, [math.log2(points[m]) for m in minutes], 1)[0])

    right = chart_statistics_data.doubling_time_min()
    assert math.isclose(doubling_time(120, 500), right, rel_tol=1e-9)
    assert min(abs(doubling_time(*ends) - right) for ends in ((140, 500), (120, 480), (140, 480))) > 0.02


def test_stains_touch_at_a_corner() -> None:
    """Whoever takes a corner for contact finds a larger stain."""
    (_, _, right, bottom), *_ = image_layout._STAINS["square"]
    assert any((left, top) == (right, bottom) for left, top, _, _ in image_layout._STAINS["dots"])


def test_the_chinese_text_needs_its_encoding() -> None:
    """The older encoding, GB 2312, lacks one of its characters."""
    text = text_data.chinese_txt()
    assert len(text.decode("gb2312", "ignore")) < len(text.decode("gb18030"))


def test_no_bean_has_a_tie_for_the_fifth_neighbour() -> None:
    """The fifth and the sixth nearest known bean are of one variety, or clearly not equally far."""
    known, new = chart_statistics_data._beans()
    scale_length = chart_statistics_data._spread([b.length for b in known])
    scale_mass = chart_statistics_data._spread([b.mass for b in known])
    for bean in new:
        near = sorted(
            (
                math.hypot((k.length - bean.length) / scale_length, (k.mass - bean.mass) / scale_mass),
                k.variety,
            )
            for k in known
        )
        assert near[5][0] - near[4][0] > 1e-6 or near[5][1] == near[4][1]


def test_top_words_need_their_tie_rule_or_none() -> None:
    """The most frequent word is alone at the top."""
    rows = text_data.top_words(10)
    assert rows[0][1] > rows[1][1]


def test_no_term_wins_by_a_rounding_error() -> None:
    """The highest weight of a review equals the next exactly (the alphabet decides) or is clearly above."""
    for scores in records.review_scores():
        assert scores[0][1] == scores[1][1] or scores[0][1] - scores[1][1] > 1e-6
    best = sorted(row[2] for row in records.top_terms())
    assert best[-1] - best[-2] > 1e-3


def test_half_cents_of_tax_occur() -> None:
    """Some invoice needs the rule for half a cent, and rounding to even would get it wrong."""
    exact = [Fraction(i.net_cents * (100 + i.tax_percent), 100) for i in records._invoices()]
    assert any(amount.denominator == 2 and math.floor(amount) % 2 == 0 for amount in exact)


def test_the_log_has_the_traps_that_the_task_names() -> None:
    """Other levels talk about errors, and offsets move lines to other hours."""
    lines = records._log()
    assert any(line.level != "ERROR" and "ERROR" in line.text for line in lines)
    assert {line.offset_h for line in lines if line.level == "ERROR"} == {0, 2, -3}


def test_the_largest_prime_gap_below_300000() -> None:
    """The literal in the check is what trial division by the primes found so far gives."""
    primes = [2]
    best = (0, 0)
    for n in range(3, 300_000, 2):
        root = math.isqrt(n)
        for p in primes:
            if p > root:
                best = max(best, (n - primes[-1], -primes[-1]))
                primes.append(n)
                break
            if n % p == 0:
                break
    assert best == (86, -155921)


def test_the_area_under_the_tangent() -> None:
    """The literal in the check is what exact integration of (x - 1)^2 (x + 2) from -2 to 1 gives."""

    def antiderivative(x: int) -> Fraction:
        return Fraction(x**4, 4) - Fraction(3 * x**2, 2) + 2 * x

    assert antiderivative(1) - antiderivative(-2) == Fraction(27, 4)


def test_the_loan_is_paid_off_by_a_smaller_last_payment() -> None:
    """Principal adds up to the loan, payments are equal but the last, and the balance ends at zero."""
    rows = mathematics_data.loan_schedule()
    payments = [round(interest + principal, 2) for _, interest, principal, _ in rows]
    assert set(payments[:-1]) == {820.0}
    assert 0 < payments[-1] < 820
    assert round(math.fsum(row[2] for row in rows), 2) == 18500
    assert rows[-1][3] == 0


def test_the_stationary_distribution_is_one() -> None:
    """A day more changes nothing, and the shares sum to one."""
    shares = list(mathematics_data.stationary().values())
    tomorrow = [
        math.fsum(share * row[j] / 100 for share, row in zip(shares, mathematics_data._PERCENT, strict=True))
        for j in range(5)
    ]
    assert all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(shares, tomorrow, strict=True))
    assert math.isclose(math.fsum(shares), 1)
