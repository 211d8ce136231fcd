"""A study that adds seeds until its contrasts are resolved: what it needs, and what it says after each look."""

from normlab import datasets
from normlab.errors import UsageError
from normlab.plan import make_plan
from normlab.store import Store
from normlab.study import Study
from normlab.table import read_table
from normlab.terminal import flops_words
from normlab.wording import verdict_words


def require_contrasts(study: Study) -> None:
    """Raises UsageError where there is nothing that could be resolved."""
    if not study.contrasts:
        raise UsageError(
            f"{study.path}: adding seeds until contrasts are resolved needs contrasts that the study names before it "
            "runs, such as contrasts: [norm: [batch, none]]"
        )


def look_words(study: Study, store: Store) -> str:
    """What is resolved, what is open, and what the next look would cost, one line each."""
    table = read_table(study, store, datasets.fingerprint)
    progress = table.progress
    assert progress is not None
    lines = [f"  {r.contrast.label}: {verdict_words(r)}" for r in table.contrasts]
    missing = make_plan(study, store)
    cost = sum(missing.flops[trial.id] for trial in missing.missing())
    head = f"{len(progress.resolved)} of {len(table.contrasts)} contrasts are resolved"
    if progress.is_done:
        head += "" if not progress.open else f"; the others are not, with {study.looks[-1]} seeds an arm"
    else:
        head += f"; {progress.runs_now} seeds an arm come next: {len(missing.missing())} trials, {flops_words(cost)}"
    return "\n".join([head, *lines])
