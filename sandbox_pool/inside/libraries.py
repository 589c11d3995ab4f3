"""What libraries decide once, when the zygote imports them, and every kernel has to have otherwise."""

from __future__ import annotations

import os
import random
import sys
from contextlib import suppress


def unsettle() -> None:
    """Undo, before the first fork, what would be wrong or shared in kernels."""
    fit_pandas()
    close_fonts()
    forget_folders()


def fit_pandas() -> None:
    """Let pandas print as many columns as in a notebook.

    It decides so when it is imported, by whether there is a shell with a kernel (is_terminal in
    pandas/core/config_init.py); the zygote has imported it before.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and pandas.get_option("display.max_columns") == 0:
        pandas.set_option("display.max_columns", 20)


def close_fonts() -> None:
    """Close the fonts that matplotlib keeps open: the offsets of their descriptors would be shared."""
    fonts = sys.modules.get("matplotlib.font_manager")
    if fonts is not None:
        getattr(fonts, "_get_font", fonts.get_font).cache_clear()


def forget_folders() -> None:
    """Let matplotlib look again where it keeps things, when it next needs to know.

    It remembers the folders in variables of a closure (_logged_cached in matplotlib/__init__.py). Of a
    version that does it otherwise nothing is changed: it then looks for styles in the zygote's folder.
    """
    matplotlib = sys.modules.get("matplotlib")
    for name in ("get_configdir", "get_cachedir"):
        with suppress(AttributeError, KeyError):
            function = getattr(matplotlib, name)
            names = function.__code__.co_freevars
            cells = dict(zip(names, function.__closure__))  # noqa: B905 - Python 3.9 knows no strict=
            cells["called"].cell_contents = False


def reseed(seed: int | None) -> None:
    """Seed `random`, and numpy and torch where they are loaded; None takes the system's randomness."""
    number = int.from_bytes(os.urandom(8), "big") if seed is None else seed
    random.seed(number)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(number % 2**32)
    if torch is not None:
        torch.manual_seed(number % 2**63)
