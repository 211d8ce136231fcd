"""The one error a user is meant to see, and the nearest valid spelling of a word they mistyped."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Bad input: one line with what was given, what is allowed and what to write. The command line exits with 2."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A phrase like ` (did you mean 'batch'?)`, or nothing where no choice is close."""
    matches = difflib.get_close_matches(word.lower(), list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def unknown(kind: str, word: str, choices: Iterable[str]) -> str:
    """One line for a word that is not in a closed list, with the nearest valid spelling and the list."""
    known = list(choices)
    return f"unknown {kind} '{word}'{nearest(word, known)}; allowed: {', '.join(known)}"
