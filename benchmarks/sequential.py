"""What adding seeds look by look saves, against a number of seeds fixed beforehand that finds as much.

    python -m benchmarks.sequential [--studies 1000]

Simulated studies: a base arm and others that differ from it by so many standard deviations between runs. One side adds
seeds until all contrasts are resolved or there are 20; the other runs the smallest number an arm, the same for all,
with which t tests corrected after Holm find as large a share of the true differences. Prints a Markdown table.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from normlab.sequential import follow
from normlab.stats import compare, holm, t_test_p

LOOKS = (3, 5, 8, 13, 20)
MOST = 60
SCENARIOS: dict[str, Sequence[float]] = {
    "one contrast of 1.5 sd": (1.5,),
    "one contrast of 2 sd": (2.0,),
    "five contrasts of 1.5 sd": (1.5,) * 5,
    "five contrasts of 2 sd": (2.0,) * 5,
    "five of 1, 1.5, 2, 3 and 5 sd": (1.0, 1.5, 2.0, 3.0, 5.0),
    "five of 3 to 10 sd, as learning rates": (3.0, 4.0, 5.0, 8.0, 10.0),
    "three of 2 sd, two without any": (2.0, 2.0, 2.0, 0.0, 0.0),
    "five without any difference": (0.0,) * 5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    count = parser.parse_args().studies
    head = ["found", "runs, look by look", "fixed n that finds as much", "its runs", "saved", "wrong in any contrast"]
    print(f"| {count:,} simulated studies each | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for name, shifts in SCENARIOS.items():
        studies = np.random.default_rng(len(name)).normal(size=(count, len(shifts) + 1, MOST))
        studies[:, 1:] += np.array(shifts)[None, :, None]
        found, runs, wrong = look_by_look(studies, shifts)
        if not any(shifts):
            print(f"| {name} | – | {runs:.0f} | – | – | – | {wrong:.1%} |")
            continue
        fixed = smallest(studies, shifts, found)
        cost = fixed * (len(shifts) + 1)
        print(f"| {name} | {found:.0%} | {runs:.0f} | {fixed} | {cost} | {1 - runs / cost:.0%} | {wrong:.1%} |")


def look_by_look(studies: np.ndarray, shifts: Sequence[float]) -> tuple[float, float, float]:
    """The share of true differences found, the mean number of runs, and the share of studies with a false verdict."""
    found, runs, wrong = 0, 0, 0
    for study in studies:
        scores = {str(arm): row[: LOOKS[-1]].tolist() for arm, row in enumerate(study)}
        progress = follow(LOOKS, {str(arm): (str(arm), "0") for arm in range(1, len(study))}, scores)
        right = [name for name, one in progress.resolved.items() if shifts[int(name) - 1] > 0 and one.higher]
        found, runs = found + len(right), runs + sum(progress.runs.values())
        wrong += len(right) < len(progress.resolved)
    return found / max(np.count_nonzero(shifts) * len(studies), 1), runs / len(studies), wrong / len(studies)


def smallest(studies: np.ndarray, shifts: Sequence[float], power: float) -> int:
    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fixed_power(studies, shifts, middle) >= power else (middle + 1, high)
    return low


def fixed_power(studies: np.ndarray, shifts: Sequence[float], runs: int) -> float:
    found = 0
    for study in studies:
        arms = [dict(enumerate(row[:runs].tolist())) for row in study]
        differences = [compare(arm, arms[0]) for arm in arms[1:]]
        p_values = holm([t_test_p(difference) for difference in differences])
        found += sum(
            p is not None and p < 0.05 and one.difference > 0 and shift > 0
            for p, one, shift in zip(p_values, differences, shifts, strict=True)
        )
    return found / (np.count_nonzero(shifts) * len(studies))


if __name__ == "__main__":
    main()
