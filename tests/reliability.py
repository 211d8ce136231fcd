"""docs/reliability.md, made from the faults and what the tests that cause them said."""

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

from normlab.provenance import source_commit
from tests.faults import FAULTS, FUZZED, PROMISES

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"


def page(results: Mapping[tuple[int, str], Iterable[str]]) -> str:
    """The page, from the outcomes of a run by fault and test."""
    lines = [
        "# What normlab survives",
        "",
        "Written by `make reliability`, which causes these faults for real and notes what came of it; do not edit. Last run: "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {source_commit() or 'unknown'}.",
        "",
        "## Promises",
        "",
        *(f"- **{name}**: {words}." for name, words in PROMISES.items()),
        "",
        "What a crash may cost is set by `--checkpoint-seconds`, 60 by default.",
        "",
        "## Faults",
        "",
        "| | fault | promise | what happens | tests | last result |",
        "|---|---|---|---|---|---|",
    ]
    for number, fault in FAULTS.items():
        found = {name: set(outcomes) for (one, name), outcomes in results.items() if one == number}
        tests = "<br>".join(f"`{name}`" for name in sorted(found)) or "not applicable"
        outcome = " ".join(sorted(set().union(*found.values()))) if found else "–"
        lines.append(f"| {number} | {fault.fault} | {fault.promise} | {fault.happens} | {tests} | {outcome} |")
    return "\n".join([*lines, "", *_fuzzed(), *NOTES, ""])


def _fuzzed() -> list[str]:
    total = sum(fuzzed.inputs for fuzzed in FUZZED.values())
    return [
        "## Fuzzing",
        "",
        f"{total:,} inputs, fed by coverage (Atheris: `python -m tests.fuzz TARGET --runs N`); by Hypothesis in every run of the "
        "tests, too. Each is read, or refused in one line. What reached something new is kept in `tests/fuzz/corpus` and "
        "replayed by `tests/test_fuzz.py`.",
        "",
        "| target | what is fed | inputs | found |",
        "|---|---|---|---|",
        *(f"| `{name}` | {one.what} | {one.inputs:,} | {one.found} |" for name, one in FUZZED.items()),
        "",
    ]


NOTES = [
    "## Supply chain",
    "",
    "- `requirements.lock` names every package that `make` installs, for every platform, with its version and SHA-256; pip refuses "
    "what differs, and `tests/test_supply_chain.py` that the tests run on anything else. torch is held by version alone: which "
    "build of it is right depends on the machine.",
    "- `make audit` asks the package index for known vulnerabilities of what is locked; it needs one that has them. `make lock` "
    "resolves anew.",
    "- Nothing listens and nothing is sent anywhere: a test writes down every connection of a run, its workers and its report. "
    "`normlab export` turns the telemetry of MLflow and Weights & Biases off.",
    "",
    "## Limits",
    "",
    "- A machine that sleeps longer than a minute while another shares its store may find that the other has taken its trials "
    "over: both train them, the first result stays.",
    "- Results of one trial from two machines differ by rounding. Merging stores keeps the one that is there and names the other.",
    "- On Windows there is no lock between runners of one store, and a claim is free a minute after its last heartbeat.",
]
