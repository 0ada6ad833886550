"""Layers against sums written out, Flax and Detectron2, and that the padding of a canvas never matters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from maskrcnn_jax.models.layers import (
    Conv,
    Deconv,
    Dense,
    Fill,
    FrozenBatchNorm,
    GroupNorm,
    inside,
    msra_fill,
    normal_fill,
    relu,
    shrink,
    transposed_msra_fill,
    xavier_fill,
)


def slow_conv(x, kernel, stride):
    """A patch at a time, zeros around the image."""
    size, reach = kernel.shape[0], kernel.shape[0] // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    rows, cols = (range(0, x.shape[axis] - size + 1, stride) for axis in (1, 2))
    patches = [
        [np.einsum("bhwc,hwco->bo", x[:, i : i + size, j : j + size], kernel) for j in cols] for i in rows
    ]
    return np.array(patches).transpose(2, 0, 1, 3)


def kernel_and_bias(rng, *shape):
    return {
        "kernel": rng.normal(size=shape).astype(np.float32),
        "bias": rng.normal(size=shape[-1:]).astype(np.float32),
    }


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("extent", [None, (6, 5), (7, 8), (0, 0)])
def test_convolution(rng, kernel, stride, extent):
    """Odd sides; where an extent is given, the canvas beyond it holds rubbish that must count as zeros."""
    x, params = rng.normal(size=(1, 9, 10, 3)).astype(np.float32), kernel_and_bias(rng, kernel, kernel, 3, 4)
    height, width = (9, 10) if extent is None else extent
    limits = None if extent is None else jnp.array([extent], jnp.int32)
    out = Conv(4, kernel, stride).apply({"params": params}, x, limits)
    expected = (
        slow_conv(x[:, :height, :width], params["kernel"], stride) if height else np.zeros((1, 0, 0, 4))
    )
    rows, cols = (-(-side // stride) for side in (height, width))
    assert out.shape[1:3] == (-(-9 // stride), -(-10 // stride))
    np.testing.assert_allclose(out[:, :rows, :cols], expected + params["bias"], atol=1e-4)


def test_deconvolution(rng):
    """JAX's own transposed convolution, which reads its kernel backwards."""
    x, params = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), kernel_and_bias(rng, 2, 2, 5, 6)
    out = Deconv(6).apply({"params": params}, x)
    expected = jax.lax.conv_transpose(
        x, params["kernel"][::-1, ::-1], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(out, expected + params["bias"].reshape(1, 1, 1, -1), atol=1e-5)


def test_dense(rng):
    x, params = rng.normal(size=(4, 5)).astype(np.float32), kernel_and_bias(rng, 5, 6)
    np.testing.assert_allclose(
        Dense(6).apply({"params": params}, x), x @ params["kernel"] + params["bias"], atol=1e-5
    )


@pytest.mark.parametrize("channels", [32, 64, 48, 3])
def test_group_norm_equals_flaxs(rng, channels):
    """32 groups, or the most of their divisors that divide the channels: 16 of 48, 1 of 3."""
    groups = {32: 32, 64: 32, 48: 16, 3: 1}[channels]
    x = (rng.normal(size=(2, 5, 6, channels)) * 3 + 2).astype(np.float32)
    params = {name: rng.normal(size=channels).astype(np.float32) for name in ("scale", "bias")}
    expected = nn.GroupNorm(num_groups=groups, epsilon=1e-5).apply({"params": params}, x)
    np.testing.assert_allclose(GroupNorm().apply({"params": params}, x), expected, atol=1e-4)


def test_group_norm_leaves_the_padding_out(rng):
    """Images of several extents in one batch, each as it would be alone; none at all stays finite."""
    x = rng.normal(size=(3, 7, 8, 6)).astype(np.float32)
    params = {name: rng.normal(size=6).astype(np.float32) for name in ("scale", "bias")}
    extents = [(7, 8), (4, 3), (0, 0)]
    norm = GroupNorm()
    out = norm.apply({"params": params}, x, jnp.array(extents, jnp.int32))
    for i, (height, width) in enumerate(extents[:2]):
        alone = norm.apply({"params": params}, x[i : i + 1, :height, :width])
        np.testing.assert_allclose(out[i : i + 1, :height, :width], alone, atol=1e-5)
    assert np.isfinite(out).all()


@pytest.mark.parametrize(("mean", "atol"), [(0, 1e-5), (3000, 2e-3)])
def test_group_norm_and_its_gradient_equal_float64(rng, mean, atol):
    """However far from zero the values lie: at three thousand deviations float32 still has four digits."""
    height, width, groups = 5, 6, 32
    channels = rng.normal(size=64)  # the two of a group differ in their means
    x = (rng.normal(size=(2, 7, 7, 64)) + channels + mean).astype(np.float32)
    upstream = rng.normal(size=x.shape).astype(np.float32)
    upstream[:, height:], upstream[:, :, width:] = 0, 0
    params = {name: rng.uniform(0.5, 2, 64).astype(np.float32) for name in ("scale", "bias")}
    extent = jnp.array([(height, width)] * 2, jnp.int32)

    @jax.jit
    def both(x, upstream):
        out, pull = jax.vjp(lambda x: GroupNorm().apply({"params": params}, x, extent), x)
        return out, pull(upstream)[0]

    out, gradient = (np.asarray(v)[:, :height, :width] for v in both(x, upstream))
    grouped = (2, height, width, groups, -1)
    inner, pulled = (v[:, :height, :width].astype(np.float64).reshape(grouped) for v in (x, upstream))
    scale, bias = (params[name].reshape(groups, -1) for name in ("scale", "bias"))
    average = functools.partial(np.mean, axis=(1, 2, 4), keepdims=True)
    centred = inner - average(inner)
    deviation = np.sqrt(average(centred**2) + 1e-5)
    unit, pulled = centred / deviation, pulled * scale
    expected = (pulled - average(pulled) - unit * average(pulled * unit)) / deviation
    np.testing.assert_allclose(out, (unit * scale + bias).reshape(out.shape), atol=atol)
    np.testing.assert_allclose(gradient, expected.reshape(out.shape), atol=atol)


def test_group_norm_computes_in_float32(rng):
    """Values far from zero, whose variance bfloat16 could not hold."""
    x = (rng.normal(size=(1, 8, 8, 4)) + 50).astype(np.float32)
    params = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    out = GroupNorm().apply({"params": params}, jnp.asarray(x, jnp.bfloat16))
    exact = GroupNorm().apply({"params": params}, jnp.asarray(x, jnp.bfloat16).astype(jnp.float32))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.5)  # 50 / 256 is what is lost


def test_frozen_batch_norm(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    params = {name: rng.uniform(0.5, 2, 5).astype(np.float32) for name in ("scale", "bias", "mean", "var")}

    def total(params, x):
        return FrozenBatchNorm().apply({"params": params}, x).sum()

    out = FrozenBatchNorm().apply({"params": params}, x)
    slope = params["scale"] / np.sqrt(params["var"] + 1e-5)
    np.testing.assert_allclose(out, (x - params["mean"]) * slope + params["bias"], atol=1e-5)
    of_params, of_x = jax.grad(total, argnums=(0, 1))(params, x)
    assert not any(gradient.any() for gradient in of_params.values())
    np.testing.assert_allclose(of_x, np.broadcast_to(slope, x.shape), rtol=1e-5)


def test_frozen_batch_norm_equals_detectron2s(golden):
    data = golden("comp_frozen_bn")
    ours = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    params = {name: data[theirs] for name, theirs in ours.items()}
    out = FrozenBatchNorm().apply({"params": params}, data["x"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(out.transpose(0, 3, 1, 2), data["y"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("norm", [None, "frozen_bn", "group"])
def test_a_convolution_has_a_bias_or_a_norm(norm):
    """And it starts neutral: what is no kernel is 1 if it multiplies, else 0."""
    params = Conv(4, 3, norm=norm).init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))["params"]
    leaves = {None: {"bias"}, "frozen_bn": {"scale", "bias", "mean", "var"}, "group": {"scale", "bias"}}[norm]
    found = params.pop("norm") if norm else params
    kernel = params.pop("kernel")
    assert kernel.shape == (3, 3, 2, 4) and found.keys() == leaves
    for name, value in found.items():
        np.testing.assert_array_equal(value, np.full(4, name in ("scale", "var")))


@pytest.mark.parametrize(
    "layer", [Conv(4, 3, dtype=jnp.bfloat16), Conv(4, dtype=jnp.bfloat16), Deconv(4, jnp.bfloat16)]
)
def test_bfloat16_layers_keep_float32_parameters(layer):
    out, variables = jax.eval_shape(
        lambda x: layer.init_with_output(jax.random.key(0), x), jnp.zeros((1, 4, 4, 2))
    )
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("fill", "shape", "deviation", "bound"),
    [
        (msra_fill, (3, 3, 40, 80), np.sqrt(2 / (9 * 80)), np.inf),
        (transposed_msra_fill, (2, 2, 80, 40), np.sqrt(2 / (4 * 80)), np.inf),
        (xavier_fill, (200, 50), np.sqrt(1 / 200), np.sqrt(3 / 200)),
        (normal_fill(0.01), (1, 1, 100, 60), 0.01, np.inf),
    ],
)
def test_kernels_start_as_in_detectron2(fill: Fill, shape, deviation, bound):
    kernel = np.asarray(fill(jax.random.key(1), shape))
    assert kernel.shape == shape and kernel.dtype == np.float32
    np.testing.assert_allclose([kernel.std(), np.abs(kernel.mean())], [deviation, 0], atol=0.05 * deviation)
    assert np.abs(kernel).max() <= bound
    if np.isfinite(bound):  # Uniform: as many values in the outer half as in the inner one.
        np.testing.assert_allclose((np.abs(kernel) > bound / 2).mean(), 0.5, atol=0.02)


def test_extents_are_of_whole_cells():
    extent = jnp.array([[5, 8], [0, 1]], jnp.int32)
    assert shrink(extent, 2).tolist() == [[3, 4], [0, 1]] and shrink(None, 2) is None
    mask = inside(extent, 6, 9)
    assert mask.shape == (2, 6, 9, 1) and mask.sum(axis=(1, 2, 3)).tolist() == [40, 0]


def test_relu_and_its_gradient_are_the_usual_ones(rng):
    """Zeros, and what has no sign, too."""
    x = jnp.concatenate([jnp.asarray(rng.normal(size=20), jnp.float32), jnp.array([0.0, -0.0, jnp.inf])])
    for dtype in (jnp.float32, jnp.bfloat16):
        ours, usual = (jax.vmap(jax.value_and_grad(f))(x.astype(dtype)) for f in (relu, nn.relu))
        jax.tree.map(np.testing.assert_array_equal, ours, usual)
