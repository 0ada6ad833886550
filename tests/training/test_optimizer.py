"""SGD against Detectron2's and against a slow loop; what is frozen, clipped and averaged, by closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig, RoIConfig
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest
from maskrcnn_jax.training.optimizer import averaged_params, make_optimizer, trainable

LEARNING = MaskRCNNConfig(backbone=BackboneConfig(freeze_at=0, norm="group"), roi=RoIConfig(norm="group"))


def one_layer(values, name="rpn/conv/kernel"):
    return nest({name: jnp.asarray(values, jnp.float32)})


def compiled(optimizer):
    """One step, compiled as one, as in training: parameters and state after a gradient."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(optimizer, params, gradients):
    """The parameters after each gradient, and the last state of the optimiser."""
    state, history, step = optimizer.init(params), [], compiled(optimizer)
    for gradient in gradients:
        params, state = step(params, state, gradient)
        history.append(params)
    return history, state


def constant(rate):
    return lambda step: jnp.float32(rate)


def test_equals_torchs_sgd_to_float32(golden):
    """One step at a time from torch's own parameters, to one unit in the last place of the largest summand.

    torch rounds p - rate v once, as one fused multiply-add. XLA fuses where the processor can (there it
    is equal bit for bit) and else rounds the product too.
    """
    case = golden("comp_sgd")
    rates = jnp.asarray(case["lr"], jnp.float32)
    optimizer = make_optimizer(LEARNING, lambda step: rates[step], momentum=0.9, weight_decay=1e-4)
    state, before, step = optimizer.init(one_layer(case["p0"])), case["p0"], compiled(optimizer)
    for gradient, after in zip(case["grads"], case["p"], strict=True):
        params, state = step(one_layer(before), state, one_layer(gradient))
        found = flatten(params)["rpn/conv/kernel"]
        largest = np.maximum(np.maximum(abs(before), abs(after)), abs(after - before))
        assert (abs(found - after) <= np.spacing(largest)).all()
        before = after


def test_equals_a_slow_loop_without_decay_on_norms(rng):
    shapes = {"rpn/conv/kernel": (3, 2), "rpn/conv/bias": (2,), "roi_heads/res5/conv1/norm/scale": (4,)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    steps = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(5)]

    def as_tree(flat):
        return nest({name: jnp.asarray(array, jnp.float32) for name, array in flat.items()})

    optimizer = make_optimizer(
        LEARNING, lambda step: 0.1 / (1.0 + step.astype(jnp.float32)), momentum=0.8, weight_decay=0.05
    )
    history, _ = run(optimizer, as_tree(start), [as_tree(step) for step in steps])
    for name, value in start.items():
        velocity = np.zeros_like(value)
        for k, gradients in enumerate(steps):
            decay = 0.0 if "norm" in name else 0.05
            velocity = 0.8 * velocity + gradients[name] + decay * value
            value = value - 0.1 / (1 + k) * velocity
        np.testing.assert_allclose(flatten(history[-1])[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [(0, ()), (1, ("stem",)), (2, ("stem", "res2")), (4, ("stem", "res2", "res3", "res4"))],
)
def test_frozen_stages_and_frozen_norms_are_not_trainable(freeze_at, frozen):
    config = MaskRCNNConfig(
        backbone=BackboneConfig(freeze_at=freeze_at, norm="frozen_bn"), roi=RoIConfig(norm="group")
    )
    params = nest({name: np.zeros(1) for name in expected_shapes(config)})
    learns = {name for name, flag in flatten(trainable(config, params)).items() if flag}
    assert learns == {
        name
        for name in expected_shapes(config)
        if not name.startswith("backbone/") or (name.split("/")[1] not in frozen and "/norm/" not in name)
    }
    assert any("roi_heads/res5" in name and name.endswith("norm/scale") for name in learns)


def test_frozen_parameters_never_move(rng):
    """Not by their gradient, not by weight decay, not by clipping, and their average stays exact."""
    config = MaskRCNNConfig(backbone=BackboneConfig(freeze_at=2))
    names = ("backbone/res2/block0/conv1/kernel", "backbone/res3/block0/conv1/norm/mean", "rpn/conv/kernel")
    params = nest({name: jnp.asarray(rng.normal(size=5), jnp.float32) for name in names})
    optimizer = make_optimizer(config, constant(0.5), weight_decay=0.1, clip_norm=1.0, ema=0.9)
    history, state = run(optimizer, params, [jax.tree.map(jnp.ones_like, params)] * 4)
    before, after = flatten(params), flatten(history[-1])
    average = flatten(averaged_params(history[-1], state))
    for name in names[:2]:
        np.testing.assert_array_equal(after[name], before[name])
        np.testing.assert_array_equal(average[name], before[name])
    assert (after[names[2]] != before[names[2]]).all()


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.1, 0.1)])
def test_clipping_scales_the_whole_gradient_of_what_learns(scale, expected):
    """(3, 4) has norm 5; the huge gradient of a frozen stage does not count."""
    config = MaskRCNNConfig(backbone=BackboneConfig(freeze_at=2))
    params = nest({"rpn/a": jnp.zeros(1), "rpn/b": jnp.zeros(1), "backbone/stem/conv1/kernel": jnp.zeros(1)})
    gradients = nest(
        {"rpn/a": jnp.full(1, 3.0), "rpn/b": jnp.full(1, 4.0), "backbone/stem/conv1/kernel": jnp.full(1, 1e6)}
    )
    optimizer = make_optimizer(config, constant(1.0), weight_decay=0.0, clip_norm=5 * scale)
    after = flatten(run(optimizer, params, [gradients])[0][0])
    np.testing.assert_allclose(
        [after["rpn/a"][0], after["rpn/b"][0]], [-3 * expected, -4 * expected], rtol=1e-6
    )


def test_small_gradients_are_not_clipped():
    params = one_layer([1.0])
    plain, clipped = (
        run(make_optimizer(LEARNING, constant(0.1), clip_norm=norm), params, [one_layer([0.3])])[0]
        for norm in (0.0, 10.0)
    )
    np.testing.assert_allclose(
        flatten(plain[0])["rpn/conv/kernel"], flatten(clipped[0])["rpn/conv/kernel"], rtol=1e-6
    )


def test_clipping_can_be_switched_on_for_a_run_that_goes_on():
    params = one_layer([1.0])
    structures = [
        jax.tree.structure(make_optimizer(LEARNING, constant(0.1), clip_norm=norm).init(params))
        for norm in (0.0, 10.0)
    ]
    assert structures[0] == structures[1]


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_the_average_after_one_jump(decay):
    """Parameters that jump from 0 to 1 and stay: what is left of the 0 is the product of the decays.

    While the decay grows, that is the product of (1 + k) / (10 + k) for k < n: 1 / binomial(n + 9, 9).
    """
    optimizer = make_optimizer(LEARNING, constant(1.0), momentum=0.0, weight_decay=0.0, ema=decay)
    jump, rest = one_layer([-1.0]), one_layer([0.0])
    history, state = run(optimizer, one_layer([0.0]), [jump] + [rest] * 5)
    left = 1 - flatten(averaged_params(history[-1], state))["rpn/conv/kernel"][0]
    growing = [k for k in range(6) if (1 + k) / (10 + k) < decay]
    expected = decay ** (6 - len(growing)) / math.comb(len(growing) + 9, 9)
    np.testing.assert_allclose(left, expected, rtol=1e-4)


def test_averaging_does_not_change_the_updates(rng):
    gradients = [one_layer(rng.normal(size=3)) for _ in range(3)]
    plain, averaged = (
        run(make_optimizer(LEARNING, constant(0.1), ema=ema), one_layer(np.ones(3)), gradients)[0]
        for ema in (0.0, 0.9)
    )
    for a, b in zip(plain, averaged, strict=True):
        # Two programs, whose multiply-adds a compiler may fuse differently.
        np.testing.assert_allclose(
            flatten(a)["rpn/conv/kernel"], flatten(b)["rpn/conv/kernel"], rtol=1e-6, atol=1e-7
        )


def test_without_an_average_the_parameters_are_given():
    params = one_layer([1.0])
    assert averaged_params(params, make_optimizer(LEARNING, constant(0.1)).init(params)) is params
