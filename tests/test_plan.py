"""Plans: what a study costs, what can be trained at all, and which trials share a cohort."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.errors import UsageError
from normlab.grid import Trial
from normlab.norms.renorm import RampedClip
from normlab.plan import RENORM_START, cohort_key, cohorts, estimate_seconds, make_plan, training_flops
from normlab.store import Store
from normlab.study import Study, single_trial
from normlab.trial import TrialSpec, make_spec, trial_id
from tests.conftest import Run
from tests.test_store import make_result


def spec(**settings: Any) -> TrialSpec:
    return make_spec({"data": "digits", "split": "fraction", "network": "4K-1C1B-10D", "epochs": 1} | settings)


def trial(**settings: Any) -> Trial:
    made = spec(**settings)
    return Trial(id=trial_id(made), spec=made)


def test_the_papers_base_run_costs_six_petaflop() -> None:
    base = spec(network="64K-4C3B-256D-Dropout0.5-10D", epochs=60)
    assert training_flops(base, 45_000, 3, 32) == pytest.approx(6.16e15, rel=1e-3)
    final = spec(network="256K-4C3B-1024D-Dropout0.5-10D", epochs=60, augment="copies")
    assert training_flops(final, 45_000, 3, 32) == pytest.approx(3 * 60 * 45_000 * 36.4e9, rel=1e-3)


def test_one_seed_of_every_arm_comes_before_the_second_of_any(tmp_path: Any) -> None:
    plan = make_plan(Study.load("quickstart"), Store(tmp_path))
    assert [t.spec.seed for t in plan.trials] == [seed for seed in range(5) for _ in range(10)]
    assert len(plan.missing()) == 50


def test_a_plan_says_what_so_short_a_training_will_not_show(tmp_path: Path, here: Run) -> None:
    assert RampedClip().start == RENORM_START
    study = tmp_path / "study.yaml"
    study.write_text(
        "question: any\nbase: {data: digits, split: fraction, train_images: 100, batch_size: 20, network: 4K-1C1B-10D, "
        "epochs: 2}\nfactors: {norm: [none, renorm]}\nseeds: 1\n"
    )
    ramp, averages = make_plan(Study.load(study), Store(tmp_path / "store")).said()
    assert ramp.startswith("norm renorm: it is batch norm until step 5,000, and a training has 10; write renorm")
    assert averages.startswith("norm_momentum 0.01: after the 10 steps of a training 90% of a moving average is still")
    assert [line for line in here("plan", study).stdout.splitlines() if line.startswith("note: ")] == [
        f"note: {ramp}", f"note: {averages}",
    ]  # fmt: skip
    assert averages.endswith("write at least 0.26, or train longer")
    mended = Study.load(study, overrides=["renorm_schedule=fraction", "norm_momentum=0.26"])
    assert make_plan(mended, Store(tmp_path / "store")).said() == ()


def test_arms_whose_levels_have_no_effect_share_their_trials(tmp_path: Any) -> None:
    study = Study.load("quickstart", overrides=["learning_rate=1e-3"])
    base = {**study.base, "norm": "none"}
    ids = {trial_id(make_spec({**base, "norm_position": p})) for p in ("before_activation", "after_activation")}
    assert len(ids) == 1


def test_a_finished_trial_is_not_missing_and_a_damaged_one_is(tmp_path: Any) -> None:
    store = Store(tmp_path)
    store.require_writable()
    study = single_trial(["data=digits", "split=fraction", "network=4K-1C1B-10D", "epochs=1"])
    (only,) = make_plan(study, store).trials
    done = make_result()
    store.save(type(done)(**{**vars(done), "id": only.id, "spec": only.spec}))
    assert make_plan(study, store).missing() == ()
    path = tmp_path / "trials" / only.id / "result.json"
    path.write_text("{")
    plan = make_plan(study, store)
    assert plan.missing() == (only,)
    assert "damaged" in plan.reasons[only.id]


shared = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["none", "batch"]),
        "batch_size": st.sampled_from([8, 16]),
        "learning_rate": st.sampled_from([1e-3, 1e-2]),
        "seed": st.integers(0, 30),
    }
)


@given(st.lists(shared, max_size=30), st.integers(1, 8))
def test_cohorts_hold_every_trial_once_and_only_trials_of_one_shape(settings: list[dict[str, Any]], size: int) -> None:
    missing = list({t.id: t for t in (trial(**s) for s in settings)}.values())
    made = cohorts(missing, lambda spec: size)
    assert Counter(t.id for chunk in made for t in chunk) == Counter(t.id for t in missing)
    for chunk in made:
        assert 1 <= len(chunk) <= size
        assert len({cohort_key(t.spec) for t in chunk}) == 1
    assert made == cohorts(missing, lambda spec: size)
    if size == 1:
        assert [chunk[0] for chunk in made] == missing


def test_seeds_rates_and_slopes_may_share_a_cohort_and_norms_may_not() -> None:
    base = cohort_key(spec())
    for free in (
        {"seed": 3},
        {"learning_rate": 0.1},
        {"slope": 0.3},
        {"schedule": "cosine"},
        {"weight_decay": 0.1},
        {"norm_momentum": 0.1},
        {"momentum": 0.5, "nesterov": True},
        {"rotation_degrees": 10, "horizontal_flip": False},
    ):
        assert cohort_key(spec(**free)) == base
    for own in (
        {"norm": "batch"},
        {"norm_position": "after_activation"},
        {"activation": "relu"},
        {"optimizer": "sgd"},
        {"batch_size": 8},
        {"precision": "bfloat16"},
        {"epochs": 2},
        {"network": "8K-1C1B-10D"},
    ):
        assert cohort_key(spec(**own)) != base
    rates = [cohort_key(spec(network=f"4K-1C1B-8D-Dropout{rate}-10D")) for rate in (0, 0.2, 0.5)]
    assert rates == 3 * [rates[0]]
    assert rates[0] != cohort_key(spec(network="4K-1C1B-8D-10D"))


def test_the_estimate_is_never_shorter_than_the_longest_trial() -> None:
    pair = [trial(seed=0), trial(seed=1)]
    flops = {pair[0].id: 10.0, pair[1].id: 2.0}
    assert estimate_seconds(pair, flops, lambda s: 1.0, 1) == 12
    assert estimate_seconds(pair, flops, lambda s: 1.0, 8) == 10
    assert estimate_seconds([], {}, lambda s: 1.0, 8) == 0


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("data: digits", "data: digitz", 6),
        ("split: fraction", "split: official", 7),
        ("network: 8K-2C2B-32D-10D", "network: 8K-2C2B-32D-9D", 8),
        ("network: 8K-2C2B-32D-10D", "network: 8K-2C9B-32D-10D", 8),
        ("batch_size: 16", "batch_size: 16000", 10),
        ("batch_size: 16", "batch_size: 16\n  image_size: 32", 11),
        ("batch_size: 16", "batch_size: 16\n  train_images: 99999", 11),
    ],
)
def test_what_the_data_do_not_allow_names_the_line_of_the_study(tmp_path: Any, old: str, new: str, line: int) -> None:
    text = Path(Study.load("quickstart").path).read_text()
    assert old in text
    path = tmp_path / "s.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError) as caught:
        make_plan(Study.load(path), Store(tmp_path))
    assert str(caught.value).startswith(f"{path}:{line}: "), str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["norm=batch", "norm_dense=true", "network=4K-1C1B-8D-10D", "train_images=33"], "dense1.*batch of 1"),
        (["norm=renorm", "network=4K-1C3B-10D", "batch_size=1", "norm_dense=true"], None),
        (["norm=batch", "network=4K-1C1B-8D-10D", "batch_size=1", "norm_dense=true"], "dense1.*each batch"),
        (["norm=mean_only", "norm_dense=true", "network=4K-1C1B-8D-10D", "train_images=33"], None),
        (["norm=none", "batch_size=1"], None),
    ],
)
def test_a_batch_that_leaves_one_value_a_channel_is_reported_before_training(
    settings: list[str], message: str | None, tmp_path: Any
) -> None:
    base = ["data=digits", "split=fraction", "epochs=1"]
    study = single_trial([*base, *(settings if any("network" in s for s in settings) else [*settings, "network=10D"])])
    if message is None:
        assert make_plan(study, Store(tmp_path)).missing()
    else:
        with pytest.raises(UsageError, match=message):
            make_plan(study, Store(tmp_path))
