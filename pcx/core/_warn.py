"""Warnings at the line of the user's program."""

import sys
import warnings

_OURS = ("pcx", "jaxtyping", "beartype")  # the last two check annotations, where one asks for it


def warn(message: str) -> None:
    """Warn at the nearest line that is not of this library."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
