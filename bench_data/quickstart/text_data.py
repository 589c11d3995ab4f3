"""What the text samples are about: texts in three languages, and the right results.

The results are worked out in plain Python from what the texts were made of, not by reading the texts, where
that is possible.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from bench_data.quickstart.inputs import Draw

Rows = list[list[Any]]

# A story in English ---------------------------------------------------------------------------------

STOP_WORDS = ("a", "and", "at", "in", "of", "on", "s", "t", "the", "to", "was", "with")
_NOUNS = ("keeper", "lamp", "storm", "boat", "harbour", "sister", "letter", "gull", "stair", "window")
_VERBS = ("climbed", "watched", "lit", "heard", "carried", "didn't leave", "painted", "found")
_PLACES = ("in the storm", "at the window", "on the stair", "with the keeper's lamp", "to the boat's stern")


@cache
def _story() -> str:
    draw = Draw("story")
    sentences = []
    for _ in range(70):
        who, verb, what = draw.pick(_NOUNS), draw.pick(_VERBS), draw.pick(_NOUNS)
        sentence = f"{draw.pick(['the', 'a'])} {who} {verb} the {what} {draw.pick(_PLACES)}"
        end = draw.pick([".", ".", "!", " -- and the lamp was lit."])
        # A heading in capitals now and then: words are to be counted whatever their case.
        sentences.append((sentence.upper() if draw.chance(0.1) else sentence.capitalize()) + end)
    lines = [" ".join(sentences[n : n + 3]) for n in range(0, len(sentences), 3)]
    return "\n".join(lines) + "\n"


def story_txt() -> bytes:
    """A few hundred words."""
    return _story().encode()


def stop_words_txt() -> bytes:
    """A word on each line."""
    return ("\n".join(STOP_WORDS) + "\n").encode()


def top_words(n: int) -> Rows:
    """[word, count], most first, then by the alphabet; a word is an unbroken run of letters a to z."""
    letters = "".join(c if "a" <= c <= "z" else " " for c in _story().lower())
    counts = Counter(word for word in letters.split() if word not in STOP_WORDS)
    return [[word, count] for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]]


# German surnames ------------------------------------------------------------------------------------

SORTED_SURNAMES = (
    "Abel", "Ackermann", "Ädler", "Ahlers", "Ärmel", "Arndt", "Bauer", "Bäumer", "Böhm", "Bohne",
    "Gross", "Groß", "Grossert", "Jäger", "Jagler", "Muller", "Müller", "Mullner", "Öhler", "Ohnsorg",
    "Strasser", "Straßmann", "Strauß", "Übel", "Uhl", "Weiss", "Weiß", "Weißbach", "Wolf", "Wölfel",
)  # fmt: skip
"""In the order of a German dictionary (DIN 5007-1)."""


def surnames_txt() -> bytes:
    """The names in another order."""
    return ("\n".join(Draw("surnames").shuffled(SORTED_SURNAMES)) + "\n").encode()


# A text in Chinese ----------------------------------------------------------------------------------

_CHINESE = (
    "山下有一条小河", "河水从山上流下来", "每天早上7点", "老人在河边钓鱼", "孩子们在山上放风筝",
    "春天的花开了", "他坐上Z19次火车", "火车从北京开往西安", "雨下了3天", "山里的夜很安静",
    "李喆在桥上等朋友",
)  # fmt: skip


@cache
def _chinese() -> str:
    draw = Draw("chinese")
    return "".join(draw.pick(_CHINESE) + draw.pick(["，", "。\n", "；", "！\n"]) for _ in range(48))


def chinese_txt() -> bytes:
    """A text in GB 18030, with punctuation, digits and Latin letters in it."""
    return _chinese().encode("gb18030")


def chinese_counts() -> dict[str, Any]:
    """How many Chinese characters there are, and which is the most frequent."""
    counts = Counter(c for c in _chinese() if 0x4E00 <= ord(c) <= 0x9FFF)
    (most, n_most), (_, n_second) = counts.most_common(2)
    assert n_most > n_second, "the task must have one answer"
    return {"n_characters": counts.total(), "most_frequent": most, "n_most_frequent": n_most}


# A parallel text ------------------------------------------------------------------------------------

_PAIRS = (
    ("The bank opens at nine.", "Die Bank öffnet um neun.", "Bank"),
    ("She went to the bank to pay.", "Sie ging zur Bank, um zu zahlen.", "Bank"),
    ("Our bank, alas, is closed.", "Unsere Bank ist leider geschlossen.", "Bank"),
    ("They sat on the bank of the river.", "Sie saßen am Ufer des Flusses.", "Ufer"),
    ("Reeds grow along the bank.", "Schilf wächst am Ufer.", "Ufer"),
    ("A bench stands on the bank.", "Am Ufer steht eine Bank.", "Bank"),
    ("The road follows the bank.", "Die Uferstraße folgt dem Fluss.", "other"),
    ("Bank robbery in broad daylight!", "Banküberfall am helllichten Tag!", "other"),
    ("The plane began to bank left.", "Das Flugzeug legte sich in die linke Kurve.", "other"),
    ("The bankers met at the banquet.", "Die Banker trafen sich beim Bankett.", None),
    ("An embankment protects the town.", "Ein Damm schützt die Stadt am Ufer.", None),
    ("He sat down on the bench.", "Er setzte sich auf die Bank.", None),
    ("It rained all day.", "Es regnete den ganzen Tag.", None),
)
"""English, German, and which group the line belongs to; None where the English has no word `bank`."""


@cache
def _parallel() -> tuple[tuple[str, str, str | None], ...]:
    draw = Draw("parallel")
    return tuple(draw.pick(_PAIRS) for _ in range(90))


def parallel_tsv() -> bytes:
    """An English sentence, a tab and its German translation on each line."""
    return "".join(f"{english}\t{german}\n" for english, german, _ in _parallel()).encode()


def bank_renderings() -> dict[str, int]:
    """How many of the lines with `bank` have `Bank` in German, how many else `Ufer`, how many neither."""
    counts = Counter(rendering for _, _, rendering in _parallel() if rendering)
    return {name: counts[name] for name in ("Bank", "Ufer", "other")}
