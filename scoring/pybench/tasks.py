"""The checks of PyBench's 143 tasks, read from `tasks.yaml`: one in both profiles, and why they differ."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from bench_data.checks import CompoundCheck, FileCheck
from scoring.errors import ScoringError
from scoring.pybench.strict_checks import StrictCheck
from scoring.pybench.upstream_checks import UpstreamCheck

CHECKS = Path(__file__).with_name("tasks.yaml")

Profile = Literal["upstream", "strict"]

AnyCheck = Annotated[UpstreamCheck | StrictCheck | FileCheck, Field(discriminator="kind")]


class AllOf(CompoundCheck):
    """All of several checks pass."""

    kind: Literal["all_of"] = "all_of"
    checks: list[AnyCheck] = Field(min_length=1)


class AnyOf(CompoundCheck):
    """One of several checks passes."""

    needs_all = False

    kind: Literal["any_of"] = "any_of"
    checks: list[AnyCheck] = Field(min_length=1)


class TaskChecks(BaseModel):
    """How one task is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstream: UpstreamCheck
    strict: Annotated[AnyCheck | AllOf | AnyOf, Field(discriminator="kind")] | None = None
    """None: upstream's, unless the task is excluded."""

    excluded: str | None = None
    """Why `strict` leaves the task out."""

    flaw: str | None = None
    """What is wrong with upstream's check: the reason why the profiles differ."""

    needs_internet: bool = False

    is_solved_at_head: bool = False
    """Whether its input at head is what upstream's own agent made of it: copying that is no solution."""

    def check(self, profile: Profile) -> UpstreamCheck | AnyCheck | AllOf | AnyOf | None:
        """Return the check of a profile; None when that leaves the task out."""
        if profile == "upstream":
            return self.upstream
        return None if self.excluded else self.strict or self.upstream

    @property
    def differs(self) -> bool:
        """Whether the profiles judge it differently."""
        return self.strict is not None or self.excluded is not None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, TaskChecks]


@cache
def load_checks(path: Path = CHECKS) -> dict[str, TaskChecks]:
    """Return the checks of all tasks, by their index. Blocks. Raises ScoringError that names the key."""
    data = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    try:
        tasks = _File.model_validate(data).tasks
    except ValidationError as error:
        first = error.errors()[0]
        raise ScoringError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for index, task in tasks.items():
        if task.differs and not (task.flaw or task.excluded):
            raise ScoringError(f"{path}: tasks.{index}: the profiles differ, and `flaw` does not say why")
    return tasks
