"""What can go wrong in scoring.

ScoringError
├── RunDirError (ValueError)  what was given cannot be scored: names the thing and the remedy
├── ArtifactChanged           a file of the run is not the one that the journal describes
└── ExtractionFault           our sandbox failed to read a file, twice; not the file's doing

A wrong answer or a hostile file is none of these: it is a Verdict.
"""

from __future__ import annotations


class ScoringError(Exception):
    """Base of all errors of scoring; its message is fit to show to a user."""


class RunDirError(ScoringError, ValueError):
    """Not a run directory, or one that holds what cannot be scored."""


class ArtifactChanged(ScoringError):  # noqa: N818 - named for the state, as in anyio
    """An artifact is missing or differs from the size and digest in its trajectory's line."""


class ExtractionFault(ScoringError):  # noqa: N818 - ours, as SandboxFault is
    """The sandbox that reads the files broke by our fault."""
