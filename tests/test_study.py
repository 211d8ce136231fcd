"""Study files: what they mean, and every way they can be wrong said in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.errors import UsageError
from normlab.grid import arms, contrasts, trials_by_arm
from normlab.study import Study, parse_study, shipped_studies
from normlab.trial import SETTINGS

TEXT = """\
question: Does it matter?
base:
  data: digits
  split: fraction
  network: 8K-2C2B-10D
  epochs: 10
factors:
  norm: [none, batch]
  learning_rate: [1e-4, 0.01]
seeds: 2
contrasts:
  - norm: [batch, none]
scales:
  full: {}
  smoke: {epochs: 1, seeds: [5], learning_rate: 0.01}
"""


def study(text: str = TEXT, **given: object) -> Study:
    return parse_study(text.encode(), name="s", path="s.yaml", **given)


def test_a_grid_has_an_arm_for_every_combination() -> None:
    found = arms(study())
    assert [arm.label for arm in found] == [
        "norm none, learning_rate 0.0001",
        "norm none, learning_rate 0.01",
        "norm batch, learning_rate 0.0001",
        "norm batch, learning_rate 0.01",
    ]
    assert found[3].settings["norm"] == "batch"
    assert found[3].settings["learning_rate"] == 0.01


def test_one_at_a_time_changes_one_factor_around_the_first_levels() -> None:
    found = arms(study(TEXT + "vary: one-at-a-time\n"))
    assert [tuple(arm.levels.values()) for arm in found] == [("none", "0.0001"), ("batch", "0.0001"), ("none", "0.01")]


def test_an_arms_trials_differ_by_seed_alone() -> None:
    first = study()
    (_, pair), *_ = trials_by_arm(first, lambda name: "f" * 16)
    assert [trial.spec.seed for trial in pair] == [0, 1]
    assert pair[0].spec.model_copy(update={"seed": 1}) == pair[1].spec
    assert pair[0].id != pair[1].id


def test_a_contrast_stands_at_every_combination_of_the_other_factors() -> None:
    assert [c.label for c in contrasts(study())] == [
        "norm: batch − none at learning_rate 0.0001",
        "norm: batch − none at learning_rate 0.01",
    ]
    narrowed = study(TEXT.replace("[batch, none]\n", "[batch, none]\n    at: {learning_rate: 0.01}\n"))
    assert [c.label for c in contrasts(narrowed)] == ["norm: batch − none at learning_rate 0.01"]
    assert all(c.planned for c in contrasts(narrowed))


def test_contrasts_nobody_planned_are_exploratory() -> None:
    found = contrasts(study(TEXT.replace("contrasts:\n  - norm: [batch, none]\n", "")))
    assert len(found) == 4
    assert not any(c.planned for c in found)


def test_a_scale_overrides_settings_seeds_and_levels_and_the_first_is_the_default() -> None:
    assert study().scale == "full"
    smoke = study(scale="smoke")
    assert smoke.seeds == (5,)
    assert smoke.base["epochs"] == 1
    assert len(arms(smoke)) == 2


def test_overrides_by_hand_replace_settings_seeds_and_levels() -> None:
    changed = study(overrides=["epochs=3", "seeds=4", "norm=batch,renorm", "learning_rate=[1e-3]"])
    assert changed.base["epochs"] == 3
    assert changed.seeds == (0, 1, 2, 3)
    assert [arm.label for arm in arms(changed)] == [
        "norm batch, learning_rate 0.001",
        "norm renorm, learning_rate 0.001",
    ]


def test_a_factor_may_bundle_settings_under_names() -> None:
    text = TEXT.replace(
        "  norm: [none, batch]\n", "  recipe:\n    plain: {norm: none}\n    fancy: {norm: batch, norm_momentum: 0.1}\n"
    ).replace("  - norm: [batch, none]", "  - recipe: [fancy, plain]")
    found = arms(study(text))
    assert found[2].settings["norm_momentum"] == 0.1
    assert found[2].levels["recipe"] == "fancy"


@pytest.mark.fault(36)
def test_yaml_1_2_reads_1e_3_as_a_number_and_off_as_a_word() -> None:
    assert study(TEXT.replace("1e-4", "1e-3")).factors[1].levels[0].settings["learning_rate"] == 0.001
    with pytest.raises(UsageError, match="'off'"):
        study(TEXT.replace("[none, batch]", "[off, batch]"))


BAD = [  # what is replaced, by what, the line that must be named, words that must be said
    ("epochs: 10", "epochs: -1", 6, ["epochs", "-1", "whole number ≥ 1"]),
    ("epochs: 10", "epochs: 0", 6, ["epochs", "0", "≥ 1"]),
    ("epochs: 10", "epochs: true", 6, ["epochs", "given true", "whole number"]),
    ("epochs: 10", "epochs: 1:30", 6, ["epochs", "1:30", "whole number"]),
    ("epochs: 10", "epochs: 10\n  epochs: 20", 7, ["'epochs'", "twice"]),
    ("epochs: 10", "epochs: 10\n  batchsize: 8", 7, ["'batchsize'", "did you mean 'batch_size'?"]),
    ("epochs: 10", "epochs: 10\n  batch_size: 0", 7, ["batch_size", "0", "≥ 1"]),
    ("epochs: 10", "epochs: 10\n  optimizer: adamm", 7, ["'adamm'", "did you mean 'adam"]),
    ("epochs: 10", "epochs: 10\n  slope: .nan", 7, ["nan", "finite"]),
    ("epochs: 10", "epochs: 10\n  slope: .inf", 7, ["inf", "finite"]),
    ("epochs: 10", "epochs: 10\n  momentum: 0.5", 7, ["momentum", "no effect"]),
    ("epochs: 10", "epochs: 10\n  data_fingerprint: x", 7, ["data_fingerprint"]),
    ("epochs: 10", "epochs: !!python/object:os.system x", 6, ["tags (!)"]),
    ("epochs: 10", "epochs: 10\n  norm_dense: !!bool yes", 7, ["tags (!)"]),
    ("question: Does it matter?", "%YAML 1.1\n---\nquestion: Does it matter?", None, ["remove the line", "%"]),
    ("smoke: {epochs: 1,", "smoke: {momentum: 0.5, epochs: 1,", 15, ["momentum", "no effect"]),
    ("epochs: 10", "epochs: 2020-01-01", 6, ["2020-01-01"]),
    ("8K-2C2B-10D", "8K-2C2B-10", 5, ["'10'", "did you mean '10D'?"]),
    ("split: fraction", "split: fractoin", 4, ["fractoin", "fraction"]),
    ("[1e-4, 0.01]", "[1e-4, -1]", 9, ["learning_rate", "-1", "> 0"]),
    ("[1e-4, 0.01]", "[1e-4, 1e9]", 9, ["learning_rate", "≤ 100"]),
    ("[1e-4, 0.01]", "['1e-4', 0.01]", 9, ["'1e-4'", "quotes"]),
    ("[1e-4, 0.01]", "[1e-4, 1e-4]", 9, ["0.0001", "twice"]),
    ("[1e-4, 0.01]", "[]", 9, ["learning_rate", "levels"]),
    ("[none, batch]", "[none, bacth]", 8, ["'bacth'", "did you mean 'batch'?"]),
    ("norm: [none, batch]", "nrom: [none, batch]", 8, ["'nrom'", "did you mean 'norm'?"]),
    ("[none, batch]", "&a [none, batch]", 8, ["anchors"]),
    ("seeds: 2", "seeds: 0", 10, ["seeds", "from 1"]),
    ("seeds: 2", "seeds: [1, 1]", 10, ["seeds", "distinct"]),
    ("seeds: 2", "seed: 2", 10, ["'seed'", "did you mean 'seeds'?"]),
    ("seeds: 2", "batch_size: 2", 10, ["'batch_size' is a setting", "below base", "below factors"]),
    ("seeds: 2", "sedes: 2", 10, ["'sedes'", "did you mean 'seeds'?"]),
    ("  - norm: [batch, none]", "  - norm: [batch, nune]", 12, ["'nune'", "did you mean 'none'?"]),
    ("  - norm: [batch, none]", "  - norm: [batch]", 12, ["two levels"]),
    ("  - norm: [batch, none]", "  - nomr: [batch, none]", 12, ["'nomr'", "did you mean 'norm'?"]),
    ("smoke: {epochs: 1,", "smoke: {epochs: 0,", 15, ["epochs", "≥ 1"]),
    ("question: Does it matter?", "question: [1]", 1, ["question"]),
    ("question: Does it matter?\n", "", None, ["'question'", "missing"]),
    ("  smoke: {epochs: 1,", "  ../../out: {epochs: 1,", 13, ["'../../out'", "letters"]),
    ("  norm: [none, batch]", "  norm: [none, batch]\n  recipe: {a: {norm: none}}", 9, ["both set 'norm'"]),
    ("epochs: 10", "epochs: 10\n  seed: 3", 7, ["'seed'", "seeds: [3]"]),
    ("  norm: [none, batch]", "  norm: {}", 8, ["norm", "0 levels"]),
    ("  norm: [none, batch]", "  norm: {a: 3}", 8, ["factors.norm.a", "given 3"]),
    ("  norm: [none, batch]", "  norm: {a: {nrom: x}}", 8, ["'nrom'", "did you mean 'norm'?"]),
    ("  epochs: 10\n", "", None, ["'epochs' is missing"]),
    ("base:", "base: {{", 4, ["YAML"]),
    ("  full: {}", "  full: {}\n  other: {epochs: 0}", 15, ["epochs", "≥ 1"]),  # not the scale that is asked for
    ("  full: {}", "  full: {}\n  other: {eposch: 1}", 15, ["'eposch'", "did you mean 'epochs'?"]),
    ("  full: {}", "  full: {}\n  other: {norm: nune}", 15, ["'nune'", "did you mean 'none'?"]),
    ("question: Does it matter?", "question: which: a or b?", 1, ["colon", "quotes"]),
    ("question: Does it matter?", 'question: "Does it matter?', 1, ["quote that opens here"]),
    ("  data: digits", "\tdata: digits", 3, ["blanks", "tab"]),
    ("question: Does it matter?", "question:", 1, ["given nothing", "sentence"]),
    ("epochs: 10", "epochs: 10\n  lr: 0.1", 7, ["'lr'", "did you mean 'learning_rate'?"]),
    ("epochs: 10", "epochs: 10\n  test_fraction: '0,001'", 7, ["with a point: 0.001"]),
    ("norm: [none, batch]", "norm: none, batch", 8, ["in brackets", "[none, batch]"]),
    ("8K-2C2B-10D", "8K-2C2B-１0D", 5, ["plain letters and digits"]),
    ("8K-2C2B-10D", "8K-2C2B-1D", 5, ["'1D' is one class"]),
    ("epochs: 10", "epochs: 10\n  norm: batch", 7, ["base.norm", "varied by the factor 'norm'"]),
    ("learning_rate: [1e-4, 0.01]", "momentum: [0.1, 0.2]", 9, ["momentum has no effect in any arm"]),
    ("  - norm: [batch, none]", "  - norm: [batch, none]\n  - norm: [none, batch]", 13, ["compared twice"]),
    ("  norm: [none, batch]", "  norm: {' ': {norm: none}}", 8, ["write a name"]),
    ("  norm: [none, batch]", "  recipe:\n    plain:", 9, ["factors.recipe.plain", "given nothing"]),
    ("  norm: [none, batch]", '  norm: {"a\\nb": {norm: none}}', 8, ["write a name"]),
    ("  network: 8K-2C2B-10D\n", "", None, ["'network' is missing", "such as 16K"]),
]


@pytest.mark.fault(36)
@pytest.mark.fault(38)
@pytest.mark.parametrize(("old", "new", "line", "words"), BAD)
def test_a_bad_study_is_refused_in_one_line_that_names_the_place_and_the_remedy(
    old: str, new: str, line: int | None, words: list[str]
) -> None:
    assert old in TEXT
    with pytest.raises(UsageError) as caught:
        study(TEXT.replace(old, new, 1), **({"scale": "smoke"} if "smoke" in new else {}))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"s.yaml:{line}: " if line else "s.yaml"), message
    for word in words:
        assert word in message, message


def test_a_base_without_settings_is_refused_before_the_factors_are_read() -> None:
    with pytest.raises(UsageError, match=r"s\.yaml:2: base: given nothing"):
        study("question: q\nbase:\nfactors:\n  norm: [none, batch]\n")


@pytest.mark.fault(35)
def test_a_yaml_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(50))
    with pytest.raises(UsageError, match="aliases"):
        study(bomb)
    with pytest.raises(UsageError, match="nested"):
        study("question: " + "[" * 10_000)
    with pytest.raises(UsageError, match="nested or large"):
        study("question: [" + "1," * 30_000 + "]")
    with pytest.raises(UsageError, match="larger than"):
        study("#" * 1_000_001)


@pytest.mark.fault(35)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_study_or_refused_in_one_line(raw: bytes) -> None:
    try:
        parse_study(raw, name="s", path="s.yaml")
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.fault(38)
@given(st.sampled_from(SETTINGS), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_any_value_of_any_setting_is_accepted_or_refused_in_one_line(key: str, value: object) -> None:
    from normlab.trial import make_spec

    try:
        make_spec({"data": "digits", "network": "10D", "epochs": 1, key: value})
    except UsageError as error:
        assert "\n" not in str(error) or "\n" in str(value)


def test_a_scale_may_give_a_factor_other_levels_under_names() -> None:
    text = TEXT.replace(
        "learning_rate: 0.01}", "norm: {none: {norm: none}, slow: {norm: batch, norm_momentum: 0.001}}}"
    )
    found = arms(study(text, scale="smoke"))
    assert [arm.levels["norm"] for arm in found] == ["none", "none", "slow", "slow"]
    assert found[2].settings["norm_momentum"] == 0.001


def test_an_override_that_is_no_list_is_not_taken_apart_into_letters() -> None:
    with pytest.raises(UsageError, match=r"^overrides: they are a list; write \['epochs=3'\]$"):
        study(overrides="epochs=3")


@pytest.mark.parametrize(
    "override",
    [
        "seed=3",
        "epochs",
        "=3",
        "epochs=",
        "nrom=batch",
        "seeds=x",
        "scale=smoke",
        "epochs=0",
        "norm=batch,",
        "norm=[",
        "schedule=step step_at=7",
    ],
)
def test_a_bad_override_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(UsageError) as caught:
        study(overrides=[override])
    assert "override" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["seed=3"], ["'seed'", "seeds=[3]"]),
        (["epochs=3", "epochs=4"], ["'epochs'", "stands twice"]),
        (["schedule=step", "step_at=1/3"], ["override 'step_at'", "step_factors"]),
        (["warmup_epochs=11"], ["override 'warmup_epochs'", "exceeds epochs 10"]),
        (["epochs=full"], ["override 'epochs'", "'full'"]),
        (["momentum=0.5"], ["override 'momentum'", "no effect in any arm"]),
        (["margin=1"], ["override 'margin'", "into the study's file"]),
        (["learning_rate=1e-4,1e9"], ["override 'learning_rate'", "≤ 100"]),
    ],
)
def test_an_override_is_blamed_for_what_it_did(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        study(overrides=overrides)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_single_point_of_a_schedule_may_stand_without_brackets() -> None:
    stepped = study(overrides=["schedule=step", "step_at=1/3", "step_factors=0.1"])
    (one,) = {trial.spec.step_at for _, row in trials_by_arm(stepped, lambda name: "f") for trial in row}
    assert one == (1 / 3,)


def test_a_name_with_a_colon_may_stand_in_an_override() -> None:
    assert study(overrides=["data=folder:"]).base["data"] == "folder:"


def test_planned_contrasts_that_lost_their_levels_are_named_and_the_rest_is_exploratory() -> None:
    other = study(overrides=["norm=renorm,batch"])
    assert other.dropped_contrasts == ("norm: batch − none",)
    found = contrasts(other)
    assert "norm: batch − renorm at learning_rate 0.0001" in [c.label for c in found]
    assert not any(c.planned for c in found)
    assert study().dropped_contrasts == ()


def test_a_planned_contrast_whose_place_is_gone_is_named_with_its_place() -> None:
    at = TEXT.replace("norm: [batch, none]", "{norm: [batch, none], at: {learning_rate: 0.01}}")
    assert study(at).dropped_contrasts == ()
    assert study(at, overrides=["learning_rate=1e-4"]).dropped_contrasts == (
        "norm: batch − none at learning_rate 0.01",
    )


def test_where_two_contrasts_meet_in_the_same_arms_the_one_with_more_to_say_of_the_place_counts_once() -> None:
    both = TEXT.replace(
        "  - norm: [batch, none]",
        "  - {norm: [batch, none], at: {learning_rate: 0.01}, margin: 1}\n  - norm: [batch, none]",
    )
    assert [(c.label, c.margin) for c in contrasts(study(both))] == [
        ("norm: batch − none at learning_rate 0.01", 0.01),
        ("norm: batch − none at learning_rate 0.0001", None),
    ]
    turned = study(both.replace("  - norm: [batch, none]", "  - norm: [none, batch]"))
    assert [c.label for c in contrasts(turned)] == [
        "norm: batch − none at learning_rate 0.01",
        "norm: none − batch at learning_rate 0.0001",
    ]


def test_a_folder_or_a_missing_file_is_not_a_study(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder"):
        Study.load(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    with pytest.raises(UsageError, match=r"no such file \(did you mean 'mine.yaml'"):
        Study.load(tmp_path / "mine.yml")


def test_a_study_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'quickstart'"):
        Study.load("quikstart")


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_shipped_study_is_valid_at_every_scale_and_opens_with_its_command(name: str) -> None:
    loaded = Study.load(name)
    for scale in loaded.scales:
        assert arms(Study.load(name, scale=scale))
    text = Path(loaded.path).read_text()
    assert text.startswith("#")
    assert f"normlab run {name}" in text


@pytest.mark.parametrize("margin", ["-2", "0", "foo", "500", "true"])
def test_a_margin_counts_also_where_no_contrast_is_named(margin: str) -> None:
    plain = TEXT.partition("contrasts")[0]
    assert {c.margin for c in contrasts(study(plain + "margin: 1.5\n"))} == {0.015}
    with pytest.raises(UsageError, match=r"s\.yaml:\d+: margin: .* allowed: percentage points"):
        study(plain + f"margin: {margin}\n")
