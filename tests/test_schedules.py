"""Schedules as the paper and the papers they come from state them."""

import numpy as np
import pytest

from normlab.schedules import learning_rates
from normlab.trial import make_spec


def rates(steps_per_epoch: int, **settings: object) -> np.ndarray:
    return learning_rates(make_spec({"data": "x", "network": "10D", **settings}), steps_per_epoch)


PAPER = {1: 1e-4, 20: 1e-4, 21: 5e-5, 30: 5e-5, 31: 1e-5, 40: 1e-5, 41: 5e-6, 50: 5e-6, 51: 1e-6, 60: 1e-6}


@pytest.mark.parametrize("step_at", [(20, 30, 40, 50), ("1/3", "1/2", "2/3", "5/6"), None])
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 2813])
def test_the_papers_step_schedule_in_epochs_and_as_fractions(step_at: object, steps_per_epoch: int) -> None:
    given = {"step_at": step_at} if step_at else {}
    by_step = rates(steps_per_epoch, epochs=60, schedule="step", learning_rate=1e-4, **given)
    by_epoch = by_step.reshape(60, steps_per_epoch)
    assert (by_epoch == by_epoch[:, :1]).all()
    for epoch, rate in PAPER.items():
        assert by_epoch[epoch - 1, 0] == pytest.approx(rate), epoch


def test_a_shorter_training_keeps_the_schedules_shape() -> None:
    short = rates(5, epochs=6, schedule="step", learning_rate=1.0)
    assert short[::5].tolist() == pytest.approx([1, 1, 0.5, 0.1, 0.05, 0.01])


def test_constant_stays_and_cosine_falls_to_nothing() -> None:
    assert set(rates(4, epochs=3, learning_rate=0.1)) == {0.1}
    cosine = rates(10, epochs=10, schedule="cosine", learning_rate=2.0)
    assert cosine[0] == 2.0
    assert cosine[50] == pytest.approx(1.0)
    assert 0 < cosine[-1] < 0.001
    assert (np.diff(cosine) < 0).all()


def test_warm_up_rises_linearly_to_the_full_rate_and_then_hands_over() -> None:
    warm = rates(10, epochs=4, warmup_epochs=1.0, learning_rate=1.0)
    assert warm[:10].tolist() == pytest.approx([0.1 * k for k in range(1, 11)])
    assert set(warm[10:]) == {1.0}
    cosine = rates(10, epochs=4, warmup_epochs=1.0, schedule="cosine", learning_rate=1.0)
    assert cosine[9] == cosine[10] == 1.0
