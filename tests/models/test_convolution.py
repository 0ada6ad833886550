"""Convolution in all its forms: against a sum written out, against float64, and which form is taken when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.models import convolution
from maskrcnn_jax.models.convolution import (
    convolve,
    direct,
    winograd,
    winograd_gradients,
)

SHAPES = [(1, 8, 8, 4, 3), (2, 7, 5, 3, 6), (3, 1, 1, 2, 2), (1, 2, 9, 5, 1), (2, 6, 3, 1, 4)]


def written_out(x, kernel, stride=1):
    """float64, one tap of the kernel after the other."""
    reach = kernel.shape[0] // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height : stride, j : j + width : stride] @ kernel[i, j].astype(np.float64)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def draw(rng, shape):
    batch, height, width, inputs, outputs = shape
    sizes = (batch, height, width, inputs), (3, 3, inputs, outputs), (batch, height, width, outputs)
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


@pytest.fixture
def always(monkeypatch):
    """Layers of any size may take Winograd's form."""
    monkeypatch.setattr(convolution, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(convolution, "_LEAST_FOR_WINOGRAD", 0)


@pytest.fixture
def taps(monkeypatch):
    """The kernel's gradient of layers of any size goes tap by tap."""
    monkeypatch.setattr(convolution, "_LEAST_FOR_TAPS", 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_written_out(shape, rng, form, always):
    x, kernel, _ = draw(rng, shape)
    np.testing.assert_allclose(convolve(x, kernel), written_out(x, kernel), atol=2e-5)


@pytest.mark.parametrize(("side", "stride"), [(3, 2), (7, 2), (5, 1), (1, 1)])
def test_other_kernels_and_strides(side, stride, rng, always):
    x = rng.normal(size=(2, 9, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(convolve(x, kernel, stride), written_out(x, kernel, stride), atol=5e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_in_float64(shape, rng, form, always):
    """The gradients are sums too: by the input with the kernel turned, by the kernel over all positions."""
    x, kernel, gradient = draw(rng, shape)
    by_x, by_kernel = jax.vjp(convolve, jnp.asarray(x), jnp.asarray(kernel))[1](jnp.asarray(gradient))
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    np.testing.assert_allclose(by_x, written_out(gradient, turned), atol=2e-5)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = x.shape
    for i in range(3):
        for j in range(3):
            expected = np.einsum("bhwc,bhwd->cd", padded[:, i : i + height, j : j + width], gradient)
            np.testing.assert_allclose(by_kernel[i, j], expected, atol=5e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_by_taps(shape, stride, rng, form, taps):
    """Of a sum of outputs with random weights, which is linear in the kernel: the sum at each unit kernel."""
    x, kernel, weights = draw(rng, shape)
    weights = weights[:, ::stride, ::stride]
    by_x, by_kernel = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)[1](weights)
    for place in np.ndindex(kernel.shape):
        unit = np.zeros_like(kernel)
        unit[place] = 1
        np.testing.assert_allclose(
            by_kernel[place], (written_out(x, unit, stride) * weights).sum(), atol=5e-5
        )
    assert np.vdot(by_x, x) == pytest.approx(np.vdot(by_kernel, kernel), rel=1e-4, abs=1e-3)


def test_many_layers_learn_tap_by_tap(rng):
    """A layer of res4 in an image of 800 pixels does; one of a few RoIs does not, on CPU."""

    def gradient(rows):
        x = jax.ShapeDtypeStruct((1, rows, rows, 256), "float32")
        kernel = jax.ShapeDtypeStruct((3, 3, 256, 256), "float32")
        loss = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=1)
        return jax.jit(loss).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()

    assert gradient(50).count("stablehlo.dot_general") == 9
    assert gradient(14).count("stablehlo.dot_general") == 0


def test_winograd_rounds_like_the_compilers_form(rng):
    """At the size of a mask head, against float64: its error is at most three times the direct form's."""
    x = rng.normal(size=(2, 14, 14, 256)).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, 256, 256)) / 48).astype(np.float32)
    exact = written_out(x, kernel)
    error, usual = (np.abs(np.asarray(jax.jit(f)(x, kernel)) - exact).max() for f in (winograd, direct))
    assert error < 3 * max(usual, 1e-6)


def test_winograd_gradients_are_those_of_automatic_differentiation(rng):
    x, kernel, gradient = (jnp.asarray(v) for v in draw(rng, (2, 7, 6, 5, 4)))
    expected = jax.vjp(winograd, x, kernel)[1](gradient)
    for ours, theirs in zip(winograd_gradients(x, kernel, gradient), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("size", ["large", "taps"])
def test_half_precision_rounds_little_more_than_its_inputs(size, rng, request):
    """Filtered or by taps, with its gradients, beside the float64 of the same rounded inputs."""
    request.getfixturevalue({"large": "always", "taps": "taps"}[size])
    x, kernel, gradient = (jnp.asarray(v, jnp.bfloat16) for v in draw(rng, (2, 12, 9, 48, 32)))
    # A function of its own: JAX would give the trace of one form to the next.
    found, back = jax.vjp(jax.jit(lambda x, kernel: convolve(x, kernel)), x, kernel)
    by_x, by_kernel = jax.jit(back)(gradient)
    x, kernel, gradient = (np.asarray(v, np.float64) for v in (x, kernel, gradient))
    assert found.dtype == by_x.dtype == by_kernel.dtype == jnp.bfloat16
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact_by_kernel = [
        [np.einsum("bhwc,bhwd->cd", padded[:, i : i + 12, j : j + 9], gradient) for j in range(3)]
        for i in range(3)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    exact = written_out(x, kernel), written_out(gradient, turned), np.array(exact_by_kernel)
    for ours, wanted in zip((found, by_x, by_kernel), exact, strict=True):
        assert np.abs(np.asarray(ours, np.float64) - wanted).mean() < 0.01 * wanted.std()


def test_an_empty_batch_is_legal():
    out = convolve(jnp.zeros((0, 7, 7, 4)), jnp.ones((3, 3, 4, 2)))
    assert out.shape == (0, 7, 7, 2)


@pytest.mark.parametrize(
    ("shape", "dtype", "filtered"),
    [
        ((512, 7, 7, 512, 512), "float32", True),  # res5 over RoIs
        ((1, 200, 200, 256, 256), "float32", True),  # the finest level of a pyramid
        ((512, 7, 7, 512, 512), "bfloat16", True),
        ((512, 7, 7, 512, 512), "float16", False),
        ((1, 400, 400, 64, 64), "float32", False),  # few channels
        ((1, 25, 25, 256, 256), "float32", False),  # little work
    ],
)
def test_large_layers_are_filtered(shape, dtype, filtered):
    batch, height, width, inputs, outputs = shape
    x = jax.ShapeDtypeStruct((batch, height, width, inputs), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, inputs, outputs), dtype)
    text = jax.jit(convolve).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" not in text) == filtered
    assert (text.count("stablehlo.dot_general") > 15) == filtered


@pytest.mark.parametrize(("groups", "dilation", "stride"), [(3, 1, 1), (1, 2, 1), (2, 3, 2), (6, 1, 2)])
def test_groups_and_dilation_are_small_convolutions(groups, dilation, stride, rng):
    """Each group by itself, with a kernel that has zeros between its taps."""
    x = rng.normal(size=(2, 9, 7, 6)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 6 // groups, 12)).astype(np.float32)
    spread = np.zeros((2 * dilation + 1, 2 * dilation + 1, 6 // groups, 12), np.float32)
    spread[::dilation, ::dilation] = kernel
    parts = zip(np.split(x, groups, axis=3), np.split(spread, groups, axis=3), strict=True)
    expected = np.concatenate([written_out(*part, stride) for part in parts], axis=3)
    found = convolve(x, kernel, stride, dilation=dilation, groups=groups)
    np.testing.assert_allclose(found, expected, atol=3e-5)
