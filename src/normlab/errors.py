"""The one error a user is meant to see, and the nearest valid spelling of a word they mistyped."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Bad input: one line with what was given, what is allowed and what to write. The command line exits with 2.

    Whatever was given, the line is one that a terminal can show: other characters stand as their escapes.
    """

    def __init__(self, line: str) -> None:
        whole = printable(line)
        super().__init__(whole if len(whole) <= MAX_LINE else f"{whole[: MAX_LINE - 1]}…")


def printable(text: str) -> str:
    """A text that a terminal can show and none obeys: control characters and halves of characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


MAX_LINE = 2_000  # characters: all that is said, and not all of what was given


# What people write who come from elsewhere.
SYNONYMS = {
    "arch": "network", "architecture": "network", "model": "network", "dataset": "data", "lr": "learning_rate",
    "bs": "batch_size", "wd": "weight_decay", "num_epochs": "epochs", "act": "activation", "normalization": "norm",
    "dtype": "precision", "opt": "optimizer", "random_seed": "seeds", "resolution": "image_size",
}  # fmt: skip


def nearest(word: str, choices: Iterable[str]) -> str:
    """A phrase like ` (did you mean 'batch'?)`, or nothing where no choice is close."""
    known = list(choices)
    synonym = SYNONYMS.get(word.lower())
    matches = [synonym] if synonym in known else difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    matches = [match for match in matches if match != word]
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def unknown(kind: str, word: str, choices: Iterable[str]) -> str:
    """One line for a word that is not in a closed list, with the nearest valid spelling and the list."""
    known = list(choices)
    return f"unknown {kind} '{word}'{nearest(word, known)}; allowed: {', '.join(known)}"
