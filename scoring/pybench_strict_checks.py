"""The kinds of PyBench's strict checks, as data: what a right result is like, beyond that a file exists."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench_data.checks import AnswerCheckModel, FileCheckModel


class AnswerHas(AnswerCheckModel):
    """The final reply has a word of each list, as a whole word and without case."""

    kind: Literal["answer_has"] = "answer_has"
    all_of: list[list[str]] = Field(min_length=1)


class PictureDrawn(FileCheckModel):
    """A picture that decodes, is large enough to be seen and is no single colour."""

    reader = "picture"

    kind: Literal["picture_drawn"] = "picture_drawn"
    min_side: int = 16
    """Pixels."""


StrictCheck = Annotated[AnswerHas | PictureDrawn, Field(discriminator="kind")]
