"""Software and website development: a command-line program and two web pages."""

from __future__ import annotations

from functools import partial

from bench_data.checks import CommandRun, CommandRuns, HtmlElement, HtmlFile
from bench_data.quickstart.inputs import json_bytes
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "software or website development"


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _top_words(),
        _menu_page(),
        _contact_form(),
    ]


TOP_WORDS = """\
Write a Python program output/top_words.py that reads text from standard input and prints its most frequent
words, one per line, as the word, a space and its count. A word is an unbroken run of the letters a to z and
A to Z; capitals count as small letters and words are printed in small letters. The most frequent word comes
first; words of the same count come in alphabetical order. The option -n N says how many words to print
(default 3); if the text has fewer different words, all are printed. If N is not a whole number of at least
1, the program prints nothing to standard output and ends with exit status 2."""

_TOP_WORDS_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

Path("output/top_words.py").write_text('''\\
import argparse
import re
import sys
from collections import Counter


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


parser = argparse.ArgumentParser()
parser.add_argument("-n", type=positive, default=3)
n = parser.parse_args().n
counts = Counter(re.findall("[a-z]+", sys.stdin.read().lower()))
for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]:
    print(word, count)
''')
""",
        """\
import subprocess
import sys

def run(text, *arguments):
    command = [sys.executable, "output/top_words.py", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True)

print(run("b a b c").stdout)
print(run("b a", "-n", "0").returncode)
""",
    ),
    answer="The program is output/top_words.py.",
)


def _top_words() -> Sample:
    rhyme = "The wren sang, the owl sang;\nan ant slept. THE END, an end\n"
    runs = [
        CommandRun(stdin=rhyme, stdout_lines=["the 3", "an 2", "end 2"]),
        CommandRun(
            stdin=rhyme, argv=["-n", "6"], stdout_lines=["the 3", "an 2", "end 2", "sang 2", "ant 1", "owl 1"]
        ),
        CommandRun(stdin="pear fig-pear 12 fig", argv=["-n", "9"], stdout_lines=["fig 2", "pear 2"]),
        CommandRun(stdin="b2b café a_b", argv=["-n", "9"], stdout_lines=["b 3", "a 1", "caf 1"]),
        CommandRun(stdin="", stdout_lines=[]),
        CommandRun(stdin="a b", argv=["-n", "0"], stdout_lines=[], exit_code=2),
        CommandRun(stdin="a b", argv=["-n", "1.5"], stdout_lines=[], exit_code=2),
        CommandRun(stdin="a b", argv=["-n", "many"], stdout_lines=[], exit_code=2),
    ]
    return Sample(
        id="software-top-words",
        category=CATEGORY,
        messages=({"role": "user", "content": TOP_WORDS},),
        check=CommandRuns(path="output/top_words.py", runs=runs),
        reference=_TOP_WORDS_REFERENCE,
        # Words of the same count come in the order of the text.
        decoy=with_mistake(
            _TOP_WORDS_REFERENCE,
            "sorted(counts.items(), key=lambda item: (-item[1], item[0]))",
            "counts.most_common()",
        ),
    )


_MENU = [
    {"name": "Lentil soup", "price_cents": 450, "sold_out": False},
    {"name": "Fish & chips", "price_cents": 1290, "sold_out": False},
    {"name": "Tarte <maison>", "price_cents": 605, "sold_out": False},
    {"name": "Käsespätzle", "price_cents": 980, "sold_out": True},
    {"name": "Crème brûlée", "price_cents": 70, "sold_out": False},
]


MENU_PAGE = """\
data/menu.json (UTF-8) lists dishes: name, price_cents (an integer) and sold_out (true or false). Make a web
page output/menu.html (HTML5, UTF-8) with the title "Menu", one h1 heading "Today's menu" and one table with
the id "dishes". The table has one row for each dish that is not sold out, in the order of the file, and no
other row. A row (tr, class "dish") has two cells: a td of class "name" with the dish's name, exactly as it
is to be read on the page, and a td of class "price" with the price in euros, with two decimals and a
decimal point, a space and "EUR": 450 cents are "4.50 EUR". After the table comes a p with the id "count"
that holds the number of dishes in the table and nothing else."""

_MENU_PAGE_REFERENCE = Solution(
    cells=(
        """\
import html
import json
from pathlib import Path

dishes = [dish for dish in json.loads(Path("data/menu.json").read_text("utf-8")) if not dish["sold_out"]]
print(len(dishes), dishes)
""",
        """\
rows = "".join(
    f'<tr class="dish"><td class="name">{html.escape(dish["name"])}</td>'
    f'<td class="price">{dish["price_cents"] / 100:.2f} EUR</td></tr>\\n'
    for dish in dishes
)
print(rows)
""",
        """\
Path("output/menu.html").write_text(f'''<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Menu</title></head>
<body>
<h1>Today's menu</h1>
<table id="dishes">
{rows}</table>
<p id="count">{len(dishes)}</p>
</body>
</html>
''', "utf-8")
""",
    ),
    answer="The page is output/menu.html.",
)


def _menu_page() -> Sample:
    names = ("Lentil soup", "Fish & chips", "Tarte <maison>", "Crème brûlée")
    prices = ("4.50 EUR", "12.90 EUR", "6.05 EUR", "0.70 EUR")
    elements = [
        HtmlElement(tag="title", text="Menu", count=1),
        HtmlElement(tag="h1", text="Today's menu", count=1),
        HtmlElement(tag="table", count=1),
        HtmlElement(tag="table", attributes={"id": "dishes"}, count=1),
        HtmlElement(tag="tr", count=len(names)),
        HtmlElement(tag="tr", attributes={"class": "dish"}, within="table", count=len(names)),
        HtmlElement(tag="td", within="tr", count=2 * len(names)),
        *(
            HtmlElement(tag="td", attributes={"class": kind}, text=text, count=1)
            for dish in zip(names, prices, strict=True)
            for kind, text in zip(("name", "price"), dish, strict=True)
        ),
        HtmlElement(tag="p", attributes={"id": "count"}, text="4", count=1),
    ]
    return Sample(
        id="software-menu-page",
        category=CATEGORY,
        messages=({"role": "user", "content": MENU_PAGE},),
        files=(SampleFile("data/menu.json", partial(json_bytes, _MENU)),),
        check=HtmlFile(path="output/menu.html", elements=elements, ordered=True),
        reference=_MENU_PAGE_REFERENCE,
        # A browser takes "<maison>" for a tag.
        decoy=with_mistake(_MENU_PAGE_REFERENCE, 'html.escape(dish["name"])', 'dish["name"]'),
    )


CONTACT_FORM = """\
Write a web page output/contact.html (HTML5, UTF-8) with the h1 heading "Contact us" and one form, which
sends its fields to /contact by POST (method="post"). Each field has the same id and name (given here first)
and a label that belongs to it by its for attribute:
- fullname: a text field (input), label "Your name"
- email: an input of the type for e-mail addresses, label "E-mail"
- topic: a select, label "Topic", with three options whose values and texts are: order, "An order"; bill,
  "A bill"; other, "Something else"
- message: a textarea of at most 500 characters (maxlength), label "Message"
At its end the form has one button (type="submit") with the text "Send". There are no other labels, options
and buttons."""

_CONTACT_FORM_REFERENCE = Solution(
    cells=(
        """\
page = '''<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Contact us</title></head>
<body>
<h1>Contact us</h1>
<form action="/contact" method="post">
  <label for="fullname">Your name</label> <input type="text" id="fullname" name="fullname">
  <label for="email">E-mail</label> <input type="email" id="email" name="email">
  <label for="topic">Topic</label>
  <select id="topic" name="topic">
    <option value="order">An order</option>
    <option value="bill">A bill</option>
    <option value="other">Something else</option>
  </select>
  <label for="message">Message</label> <textarea id="message" name="message" maxlength="500"></textarea>
  <button type="submit">Send</button>
</form>
</body>
</html>
'''
with open("output/contact.html", "w", encoding="utf-8") as file:
    file.write(page)
""",
    ),
    answer="The page is output/contact.html.",
)


def _contact_form() -> Sample:
    labels = {"fullname": "Your name", "email": "E-mail", "topic": "Topic", "message": "Message"}
    options = {"order": "An order", "bill": "A bill", "other": "Something else"}
    elements = [
        HtmlElement(tag="h1", text="Contact us", count=1),
        HtmlElement(tag="form", count=1),
        HtmlElement(tag="form", attributes={"action": "/contact", "method": "post"}, count=1),
        *(HtmlElement(tag="label", attributes={"for": key}, text=text) for key, text in labels.items()),
        HtmlElement(tag="label", count=len(labels)),
        HtmlElement(tag="input", attributes={"id": "fullname", "name": "fullname"}, within="form", count=1),
        HtmlElement(
            tag="input", attributes={"id": "email", "name": "email", "type": "email"}, within="form", count=1
        ),
        HtmlElement(tag="select", attributes={"id": "topic", "name": "topic"}, within="form", count=1),
        *(
            HtmlElement(tag="option", attributes={"value": key}, within="select", text=text)
            for key, text in options.items()
        ),
        HtmlElement(tag="option", count=len(options)),
        HtmlElement(
            tag="textarea",
            attributes={"id": "message", "name": "message", "maxlength": "500"},
            within="form",
            count=1,
        ),
        HtmlElement(tag="button", attributes={"type": "submit"}, within="form", text="Send", count=1),
        HtmlElement(tag="button", count=1),
    ]
    return Sample(
        id="software-contact-form",
        category=CATEGORY,
        messages=({"role": "user", "content": CONTACT_FORM},),
        check=HtmlFile(path="output/contact.html", elements=elements),
        reference=_CONTACT_FORM_REFERENCE,
        # One label belongs to no field.
        decoy=with_mistake(_CONTACT_FORM_REFERENCE, '<label for="email">', "<label>"),
    )
