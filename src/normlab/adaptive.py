"""A study that adds seeds until its contrasts are resolved: what it needs, and what it says after each look."""

from normlab import datasets
from normlab.plan import estimate_seconds, make_plan
from normlab.pool import default_workers, resolve_device
from normlab.rates import worker_rates
from normlab.store import Store
from normlab.study import Study
from normlab.table import read_table
from normlab.terminal import duration_words
from normlab.wording import resolved_words, verdict_words


def look_words(study: Study, store: Store, *, workers: int | None = None, device: str = "auto") -> str:
    """What is resolved, what is open, and what the next look and all further ones would cost, one line each."""
    table = read_table(study, store, datasets.fingerprint)
    progress = table.progress
    assert progress is not None
    lines = [f"  {r.contrast.label}: {verdict_words(r)}" for r in table.contrasts]
    head = resolved_words(table)
    if progress.is_done:
        head += f", with up to {study.looks[-1]} seeds an arm" if progress.open else ""
    else:
        plan = make_plan(study, store)
        device = resolve_device(device)
        rate, hands = worker_rates(store, plan.trials, device), workers or default_workers(device)
        missing = plan.missing()
        seconds = estimate_seconds(missing, plan.flops, rate, hands)
        rest = [arm for arm in table.arms if progress.runs[arm.arm.label] == progress.runs_now]
        further = (study.looks[-1] - progress.runs_now) * len(rest)
        each = sum(plan.flops[arm.trials[0].trial.id] / rate(arm.spec) for arm in rest) / hands
        most = seconds + (study.looks[-1] - progress.runs_now) * each
        head += (
            f"; {progress.runs_now} seeds an arm come next: {len(missing)} trials, about {duration_words(seconds)}; "
            f"at most {len(missing) + further} trials, about {duration_words(most)}, to {study.looks[-1]} seeds an arm"
        )
    return "\n".join([head, *lines])
