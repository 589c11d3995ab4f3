"""Complex mathematics: areas, primes and paths, to be found exactly."""

from __future__ import annotations

from bench_data.checks import AnswerJson, AnswerNumber, AnswerText
from bench_data.quickstart import mathematics_data as data
from bench_data.quickstart import mathematics_models
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = mathematics_models.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _tangent_area(),
        _prime_gap(),
        _grid_paths(),
        *mathematics_models.samples(),
    ]


TANGENT_AREA = """\
The line that touches the curve y = x^3 - 4x at x = 1 meets the curve in one more point. What is the area \
between the curve and that line, from the one point to the other?

End your final reply with a line `Answer: <area>`: the exact area as a reduced fraction `p/q`."""

_TANGENT_AREA_REFERENCE = Solution(
    cells=(
        """\
import sympy as sp

x = sp.symbols("x")
curve = x**3 - 4 * x
line = curve.subs(x, 1) + sp.diff(curve, x).subs(x, 1) * (x - 1)
points = sorted(sp.solve(sp.Eq(curve, line), x))
print(sp.expand(line), points)
""",
        """\
area = abs(sp.integrate(curve - line, (x, points[0], points[-1])))
print(area)
""",
    ),
    answer="Answer: {last_line}",
)


def _tangent_area() -> Sample:
    return Sample(
        id="math-tangent-area",
        messages=({"role": "user", "content": TANGENT_AREA},),
        category=CATEGORY,
        # The line is y = -x - 2, so the difference is (x - 1)^2 (x + 2), from -2 to 1.
        check=AnswerText(accept=["27/4"]),
        reference=_TANGENT_AREA_REFERENCE,
        decoy=with_mistake(_TANGENT_AREA_REFERENCE, "sp.integrate(curve - line,", "sp.integrate(curve,"),
        metadata={"mistake": "takes the area between the curve and the axis"},
    )


PRIME_GAP = """\
Look at all pairs of consecutive prime numbers p < q with q below 300000. The gap of a pair is q - p. Which \
pair has the largest gap? If several have, take the one with the smallest p.

End your final reply with a line `Answer: <JSON>`, where the JSON is a list of p and the gap, for example \
`[7, 4]` for the pair 7 and 11."""

_PRIME_GAP_REFERENCE = Solution(
    cells=(
        """\
limit = 300_000
is_prime = bytearray([1]) * limit
is_prime[0] = is_prime[1] = 0
for n in range(2, int(limit**0.5) + 1):
    if is_prime[n]:
        is_prime[n * n :: n] = bytes(len(range(n * n, limit, n)))
primes = [n for n in range(limit) if is_prime[n]]
gap, p = max((q - p, -p) for p, q in zip(primes, primes[1:]))
print([-p, gap])
""",
    ),
    answer="The pair is given by its smaller prime and the gap.\nAnswer: {last_line}",
)


def _prime_gap() -> Sample:
    return Sample(
        id="math-prime-gap",
        messages=({"role": "user", "content": PRIME_GAP},),
        category=CATEGORY,
        # A maximal gap of the tables; the next one is 96, after 360653.
        check=AnswerJson(value=[155921, 86]),
        reference=_PRIME_GAP_REFERENCE,
        decoy=with_mistake(_PRIME_GAP_REFERENCE, "(q - p, -p)", "(q - p - 1, -p)"),
        metadata={"mistake": "counts the numbers in between"},
    )


GRID_PATHS = """\
data/grid.txt is a square grid, a row on each line: `.` is a free field and `#` a wall. How many paths lead \
from the top left to the bottom right field, if each step goes one field to the right or one field down, and \
never onto a wall?

End your final reply with a line `Answer: <number>`."""

_GRID_PATHS_REFERENCE = Solution(
    cells=(
        """\
with open("data/grid.txt") as file:
    grid = file.read().split()
n = len(grid)
print(n, sum(row.count("#") for row in grid))
""",
        """\
paths = [[0] * n for _ in range(n)]
for y in range(n):
    for x in range(n):
        if grid[y][x] == "#":
            continue
        above = paths[y - 1][x] if y else 0
        left = paths[y][x - 1] if x else 0
        paths[y][x] = above + left if x or y else 1
print(paths[-1][-1])
""",
    ),
    answer="Counted row by row.\nAnswer: {last_line}",
)


def _grid_paths() -> Sample:
    return Sample(
        id="math-grid-paths",
        messages=({"role": "user", "content": GRID_PATHS},),
        category=CATEGORY,
        files=(SampleFile("data/grid.txt", data.grid_txt),),
        check=AnswerNumber(value=data.n_paths(), rel_tol=0),
        reference=_GRID_PATHS_REFERENCE,
        decoy=with_mistake(
            _GRID_PATHS_REFERENCE, "above + left if x or y else 1", "above + left if x and y else 1"
        ),
        metadata={"mistake": "goes on along the edges behind a wall"},
    )
