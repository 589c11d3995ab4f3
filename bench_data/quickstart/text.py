"""Text analysis: words, names and characters, in English, German and Chinese."""

from __future__ import annotations

from bench_data.checks import AllOf, AnswerJson, AnswerText, TableFile, TextFile
from bench_data.quickstart import text_data as data
from bench_data.quickstart import text_records
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = text_records.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _story_words(),
        _german_surnames(),
        _chinese_characters(),
        _parallel_bank(),
        *text_records.samples(),
    ]


STORY_WORDS = """\
Count the words of data/story.txt (English, UTF-8). Make all letters lower case first; a word is then an \
unbroken run of the letters a to z, so that `keeper's` is the two words `keeper` and `s`. Leave out the \
words listed in data/stop_words.txt, one on each line.

Write output/top_words.csv with the columns word and count: the ten most frequent words, most frequent \
first, and among equals in alphabetical order.

End your final reply with a line `Answer: <word>`: the most frequent word."""

_STORY_WORDS_REFERENCE = Solution(
    cells=(
        """\
import re
from collections import Counter

with open("data/story.txt", encoding="utf-8") as file:
    words = re.findall("[a-z]+", file.read().lower())
with open("data/stop_words.txt", encoding="utf-8") as file:
    stop_words = set(file.read().split())
counts = Counter(word for word in words if word not in stop_words)
print(len(words), len(counts))
""",
        """\
import csv

top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
with open("output/top_words.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["word", "count"])
    writer.writerows(top)
print(top[0][0])
""",
    ),
    answer="The ten words are in output/top_words.csv.\nAnswer: {last_line}",
)


def _story_words() -> Sample:
    rows = data.top_words(10)
    return Sample(
        id="text-story-words",
        messages=({"role": "user", "content": STORY_WORDS},),
        category=CATEGORY,
        files=(
            SampleFile("data/story.txt", data.story_txt),
            SampleFile("data/stop_words.txt", data.stop_words_txt),
        ),
        check=AllOf(
            checks=[
                TableFile(path="output/top_words.csv", columns=["word", "count"], rows=rows),
                AnswerText(accept=[str(rows[0][0])]),
            ]
        ),
        reference=_STORY_WORDS_REFERENCE,
        decoy=with_mistake(_STORY_WORDS_REFERENCE, "file.read().lower()", "file.read()"),
        metadata={"mistake": "drops capital letters instead of making them lower case", "language": "en"},
    )


GERMAN_SURNAMES = """\
data/namen.txt (UTF-8) has a German surname on each line. Sort them as a German dictionary does \
(DIN 5007-1): ä counts as a, ö as o, ü as u, and ß as ss; capital letters count like small ones. Where two \
names are equal by that, the one without ä, ö, ü and ß comes first.

Write the sorted names to output/namen_sortiert.txt (UTF-8), one on each line, spelled as before.

End your final reply with a line `Answer: <name>`: the last name of the sorted list."""

_GERMAN_SURNAMES_REFERENCE = Solution(
    cells=(
        """\
with open("data/namen.txt", encoding="utf-8") as file:
    names = file.read().split()
plain = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "ss"})
# All of ä, ö, ü and ß have higher code points than a to z, so the name itself settles a tie.
names.sort(key=lambda name: (name.lower().translate(plain), name.lower()))
with open("output/namen_sortiert.txt", "w", encoding="utf-8") as file:
    file.write("\\n".join(names) + "\\n")
print(names[-1])
""",
    ),
    answer="Sorted.\nAnswer: {last_line}",
)


def _german_surnames() -> Sample:
    return Sample(
        id="text-german-surnames",
        messages=({"role": "user", "content": GERMAN_SURNAMES},),
        category=CATEGORY,
        files=(SampleFile("data/namen.txt", data.surnames_txt),),
        check=AllOf(
            checks=[
                TextFile(path="output/namen_sortiert.txt", lines=[*data.SORTED_SURNAMES]),
                AnswerText(accept=[data.SORTED_SURNAMES[-1]]),
            ]
        ),
        reference=_GERMAN_SURNAMES_REFERENCE,
        decoy=with_mistake(
            _GERMAN_SURNAMES_REFERENCE, "key=lambda name: (name.lower().translate(plain), name.lower())", ""
        ),
        metadata={"mistake": "sorts by code point", "language": "de"},
    )


CHINESE_CHARACTERS = """\
data/text_zh.txt is a Chinese text in the encoding GB 18030. Count its Chinese characters, that is, those \
from U+4E00 to U+9FFF; punctuation, digits, Latin letters and white space do not count.

End your final reply with a line `Answer: <JSON>`, where the JSON is an object on one line with the keys \
`n_characters` (how many Chinese characters the text has), `most_frequent` (the most frequent one of them, \
as a string) and `n_most_frequent` (how often that one occurs)."""

_CHINESE_CHARACTERS_REFERENCE = Solution(
    cells=(
        """\
import json
from collections import Counter

with open("data/text_zh.txt", encoding="gb18030") as file:
    characters = [c for c in file.read() if "\\u4e00" <= c <= "\\u9fff"]
most, n_most = Counter(characters).most_common(1)[0]
result = {"n_characters": len(characters), "most_frequent": most, "n_most_frequent": n_most}
print(json.dumps(result, ensure_ascii=False))
""",
    ),
    answer="Answer: {last_line}",
)


def _chinese_characters() -> Sample:
    return Sample(
        id="text-chinese-characters",
        messages=({"role": "user", "content": CHINESE_CHARACTERS},),
        category=CATEGORY,
        files=(SampleFile("data/text_zh.txt", data.chinese_txt),),
        check=AnswerJson(value=data.chinese_counts()),
        reference=_CHINESE_CHARACTERS_REFERENCE,
        decoy=with_mistake(
            _CHINESE_CHARACTERS_REFERENCE, 'if "\\u4e00" <= c <= "\\u9fff"', "if not c.isspace()"
        ),
        metadata={"mistake": "counts punctuation, digits and letters", "language": "zh"},
    )


PARALLEL_BANK = """\
Each line of data/parallel.tsv (UTF-8, no header) has an English sentence, a tab and its German translation. \
Take the lines whose English sentence has `bank` as a word of its own (capital or small letters; `bankers` \
and `embankment` are other words). Sort them into three groups by the German sentence: it has `Bank` as a \
word of its own; else it has `Ufer` as a word of its own; else neither (`other`).

End your final reply with a line `Answer: <JSON>`, where the JSON is an object on one line with the keys \
`Bank`, `Ufer` and `other` and the number of lines in each group (repeated lines count each time)."""

_PARALLEL_BANK_REFERENCE = Solution(
    cells=(
        """\
import re

with open("data/parallel.tsv", encoding="utf-8") as file:
    pairs = [line.rstrip("\\n").split("\\t") for line in file]
german = [de for en, de in pairs if re.search(r"\\bbank\\b", en, re.IGNORECASE)]
print(len(pairs), len(german))
""",
        """\
import json

groups = {"Bank": 0, "Ufer": 0, "other": 0}
for sentence in german:
    words = re.findall(r"\\w+", sentence)
    groups[next((name for name in ("Bank", "Ufer") if name in words), "other")] += 1
print(json.dumps(groups))
""",
    ),
    answer="The German sentences fall into these groups.\nAnswer: {last_line}",
)


def _parallel_bank() -> Sample:
    return Sample(
        id="text-parallel-bank",
        messages=({"role": "user", "content": PARALLEL_BANK},),
        category=CATEGORY,
        files=(SampleFile("data/parallel.tsv", data.parallel_tsv),),
        check=AnswerJson(value={**data.bank_renderings()}),
        reference=_PARALLEL_BANK_REFERENCE,
        decoy=with_mistake(_PARALLEL_BANK_REFERENCE, 'r"\\bbank\\b"', 'r"bank"'),
        metadata={"mistake": "finds the word inside other words", "language": "en, de"},
    )
