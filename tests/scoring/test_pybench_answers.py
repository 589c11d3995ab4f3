"""PyBench's answers: what upstream's tests pass by luck `strict` fails, and what is right it passes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from scoring.checks import judge
from scoring.pybench.answer_judges import STRICT_ANSWER_JUDGES
from scoring.pybench.strict_checks import StrictCheck
from scoring.pybench.tasks import load_checks

ADAPTER: TypeAdapter[Any] = TypeAdapter(StrictCheck)

REGIONS = {
    "Africa": 48,
    "Latin America": 38,
    "Asiatic Region": 32,
    "Western Europe": 26,
    "Eastern Europe": 23,
}
REGIONS |= {"Middle East": 15, "Pacific Region": 10, "Northern America": 2, "Africa/Middle East": 1}
POWER = str(2**1000)
FILMS = "Uncharted, Morbius, Firestarter, Nope, Beast, Barbarian, Hunt, Scream, Memory and The Black Phone"

WRONG = {
    "swapped regions": (
        "7",
        "\n".join(f"{n}: {c}" for n, c in zip(REGIONS, list(REGIONS.values())[::-1], strict=True)),
    ),
    "digits of another number": ("17", "There are 1142 of them."),
    "longer digits": ("18", "Average: 25267.0, Variance: 15066140.1"),
    "variance as average": ("18", "Average: 1506614.21, Variance: 2526.70"),
    "two of ten figures": ("19", "X: -346, Distance: 2504"),
    "half everywhere": ("21", "\n".join(f"{r}: Male: 50%, Female: 50%" for r in ("northeast", "southeast"))),
    "one digit": ("22", "There are 19 directors."),
    "a year": ("23", "I looked at the list of 1947."),
    "part of a word": ("25", "Mention of no such film was found."),
    "the network with fewer": ("27", "ABC."),
    "one of the two networks": ("27", "NBC, with 38."),
    "the year alone": ("28", "Order 120175."),
    "another size": ("29", "The size is XXL."),
    "one clinic": ("30", "3036 births and 237 deaths."),
    "rows, not games": ("32", "53"),
    "cut off, not rounded": ("33", "0.53"),
    "second in a list": ("35", "1. India 2. United States"),
    "last in a list": ("36", "Comedy, Gaming, Music"),
    "both decisions": ("37", "Should you hold or sell? Please upload the file."),
    "the other gender": ("39", "Female actors are more likely to win."),
    "the name alone": ("53", "重庆啤酒"),
    "both labels": ("56", "It may be positive or negative."),
    "the title": ("76", "I cannot read WizardMath_Paper.pdf."),
    "the file's name": ("77", "无法打开 如懿传.txt"),
    "the paper's name": ("130", "I could not read llama2.pdf"),
    "the company's name": ("131", "新希望.pdf 无法读取"),
    "another percentage": ("133", "7.16%"),
    "a longer number": ("134", f"9{POWER}"),
    "two decimals": ("135", "9.78"),
    "another fraction": ("136", r"$\frac{3}{2}$"),
    "one decimal": ("137", "8.1 kg"),
    "part of another word": ("138", "See the notebook: the maximum is at x = 1."),
    "another function": ("139", "-1/(x+1)^2"),
    "its negative": ("139", "-2/(x+1)^3"),
    "a sum": ("139", "2 + 2/(x+1)^3"),
}

RIGHT = {
    "regions": ("7", "\n".join(f"- {n}: {c}" for n, c in REGIONS.items())),
    "regions in brackets": ("7", ", ".join(f"{n} ({c})" for n, c in REGIONS.items())),
    "digits": ("17", "There are 142 movies."),
    "thousands": ("18", "Average: 2,526.70\nVariance: 1,506,614.21"),
    "of the population": ("18", "The mean is 2526.7, the variance 1412450.82."),
    "Chinese labels": ("18", "均值：2526.70；方差：1506614.21"),
    "shares": (
        "21",
        "- northeast: Male: 0.5, Female: 0.5\n- northwest: Male: 0.5, Female: 0.5\n"
        "- southeast: Male: 0.52, Female: 0.48\n- southwest: Male: 0.5, Female: 0.5",
    ),
    "percentages, the other first": (
        "21",
        "东北: 女: 49.69%, 男: 50.31%\n西北: 女: 50.46%, 男: 49.54%\n东南: 女: 48.08%, 男: 51.92%\n"
        "西南: 女: 49.85%, 男: 50.15%",
    ),
    "most titles": ("25", f"Yes: {FILMS}."),
    "a tie": ("27", "CBS and NBC, with 19 each"),
    "the film": ("28", "2017, directed by Christopher Nolan"),
    "the size": ("29", "尺码是XL。"),
    "a total": ("30", "5,478 births and 323 deaths"),
    "each clinic": ("30", "Clinic 1: 3036 and 237; clinic 2: 2442 and 86"),
    "games": ("32", "52 Super Bowls in 53 rows"),
    "rounded": ("33", "$0.54"),
    "first of a list": ("35", "1. 美国 2. 印度"),
    "the kind": ("36", "Create Music videos; Entertainment comes second."),
    "a decision": ("37", "You hold 10000 shares and could sell.\nFinished: 出售"),
    "a decision in words": ("37", "You should continue to hold your shares."),
    "men": ("39", "Male actors have won 1633 Oscars and are more likely to win than female actors."),
    "men, in Chinese": ("39", "男性演员获奖的可能性更高。"),
    "keywords": ("53", "啤酒、营业收入、净利润、成本、高端化、乌苏"),
    "in capitals": ("54", "Topic 1: Injection\nTopic 2: a\nTopic 3: b\nTopic 4: c\nTopic 5: Safety"),
    "a label": ("56", "The whole file is positive, with a polarity of 0.097."),
    "a contribution": ("76", "WizardMath applies Reinforced Evol-Instruct to mathematical reasoning."),
    "the story": ("77", "A concubine, Ruyi, in the imperial harem."),
    "a paper": ("130", "Llama 2: models up to 70B, tuned for dialogue."),
    "a report": ("131", "维持买入评级；饲料业务稳健增长，猪周期反转。"),
    "the percentage": ("133", "净利同比增长16.78%"),
    "the number": ("134", f"It is {POWER}."),
    "ten decimals": ("135", "约为 9.7876060360"),
    "a fraction": ("136", r"It is \( \frac{5}{2} \)."),
    "a quotient": ("136", "5/2"),
    "bold": ("137", "It is **8.17 kg**."),
    "none": ("138", "The function does not have any real maximum or minimum values."),
    "none, in Chinese": ("138", "该函数没有极大值和极小值。"),
    "complex": ("138", "No local maxima or minima, as the critical points are complex."),
    "LaTeX": ("139", r"It is \( \frac{2}{(x + 1)^3} \)."),
    "LaTeX, with all it has": ("139", r"$$y'' = \dfrac{2}{\left(x+1\right)^{3}}$$"),
    "Python": ("139", "The second derivative is **2/(x + 1)**3**."),
    "a superscript": ("139", "2/(x+1)³"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "answer"), WRONG.values(), ids=WRONG.keys())
def test_a_lucky_match_passes_upstream_alone(task: str, answer: str) -> None:
    """What upstream's test is content with is not enough."""
    checks = load_checks()[task]
    assert judge(checks.upstream, answer, {}).passed
    strict = checks.check("strict")
    assert strict is not None
    assert not judge(strict, answer, {}).passed
    assert checks.flaw


@pytest.mark.parametrize(("task", "answer"), RIGHT.values(), ids=RIGHT.keys())
def test_what_is_right_passes(task: str, answer: str) -> None:
    """In either language, and however numbers and formulas are written."""
    strict = load_checks()[task].check("strict")
    assert strict is not None
    assert judge(strict, answer, {}).reason == "as expected"


def test_every_kind_of_answer_is_tested_both_ways() -> None:
    """No kind is without a right and a wrong answer."""
    tasks = load_checks()
    kinds = {getattr(tasks[task].strict, "kind", None) for task, _ in RIGHT.values()}
    assert kinds & set(STRICT_ANSWER_JUDGES) == set(STRICT_ANSWER_JUDGES)
    assert {getattr(tasks[task].strict, "kind", None) for task, _ in WRONG.values()} >= set(
        STRICT_ANSWER_JUDGES
    )


@pytest.mark.parametrize(
    "answer", ["", "\\frac{" * 20_000, "1," * 50_000, "no " * 40_000, "(" * 90_000, "male " * 30_000]
)
def test_hostile_answers(answer: str) -> None:
    """Any text is judged, in no time."""
    for task in ("7", "19", "37", "39", "136", "138", "139"):
        strict = load_checks()[task].check("strict")
        assert strict is not None
        assert not judge(strict, answer, {}).passed


def test_labels_end_where_others_begin() -> None:
    """A number belongs to the label before it, not to one further away."""
    figure = {"values": [2], "after": [["b"]]}
    check = ADAPTER.validate_python(
        {"kind": "answer_figures", "any_of": [[figure, {"values": [1], "after": [["a"]]}]]}
    )
    assert judge(check, "a: 1, b: 2", {}).passed
    assert not judge(check, "b: 1, a: 2", {}).passed
    assert judge(check, "a and b: a 1, b 2", {}).passed
