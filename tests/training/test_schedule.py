"""The learning rate against Detectron2's, and against what its definition says at each edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.training.schedule import warmup_steps_decay


def rates(schedule, steps):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


def test_equals_detectron2_to_the_last_bit(golden):
    expected = golden("comp_lr")["lr_linear"].astype(np.float32)
    schedule = warmup_steps_decay(0.01, warmup=72, milestones=(480, 1200, 1920, 2160), warmup_factor=1e-4)
    np.testing.assert_array_equal(rates(schedule, len(expected)), expected)


def test_after_a_warmup_of_another_kind_the_rates_are_the_same(golden):
    expected = golden("comp_lr")["lr_constant_warmup"].astype(np.float32)
    schedule = warmup_steps_decay(0.01, warmup=0, milestones=(480, 1200, 1920, 2160))
    np.testing.assert_array_equal(rates(schedule, len(expected))[72:], expected[72:])


def test_warmup_is_a_straight_line_from_nothing():
    found = rates(warmup_steps_decay(0.5, warmup=10, milestones=()), 14)
    np.testing.assert_allclose(found, 0.5 * np.minimum(np.arange(14) / 10, 1), rtol=1e-6)
    assert found[0] == 0 and (found[10:] == 0.5).all()


def test_each_milestone_is_the_first_step_after_its_drop():
    found = rates(warmup_steps_decay(0.8, warmup=0, milestones=(3, 5), factor=0.5), 8)
    np.testing.assert_allclose(found, [0.8] * 3 + [0.4] * 2 + [0.2] * 3, rtol=1e-6)


def test_a_milestone_inside_the_warmup_lowers_the_line():
    found = rates(warmup_steps_decay(1.0, warmup=4, milestones=(2,), factor=0.1), 6)
    np.testing.assert_allclose(found, [0, 0.25, 0.05, 0.075, 0.1, 0.1], rtol=1e-6)


def test_without_warmup_and_milestones_it_is_constant():
    assert (rates(warmup_steps_decay(0.3, warmup=0, milestones=()), 5) == np.float32(0.3)).all()


@pytest.mark.parametrize("milestones", [(5, 3), (3, 3)])
def test_milestones_that_do_not_rise_are_refused(milestones):
    with pytest.raises(ValueError, match=r"schedule\.milestones must rise"):
        warmup_steps_decay(0.1, warmup=0, milestones=milestones)
