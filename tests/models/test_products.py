"""Matrix products of layers against float64, in every form that a platform may take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.models import products
from maskrcnn_jax.models.products import product, summed_over_rows, summed_turned

SIZES = [(1, 1, 1), (3, 1, 5), (1, 8, 1), (70, 9, 33), (33, 64, 9), (256, 128, 64), (640, 64, 256)]


@pytest.fixture
def always(monkeypatch):
    """Products of any size take the form of large ones."""
    monkeypatch.setattr(products, "_LEAST", 0)


def draw(rng, dtype, *shapes):
    """Arrays, and what they hold after rounding in float64."""
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    return arrays, [np.asarray(array, np.float64) for array in arrays]


def close(ours, wanted):
    """To the rounding of the result's type."""
    rounding = {"bfloat16": 2**-8, "float32": 1e-5}[ours.dtype.name]
    ours = np.asarray(ours, np.float64)
    np.testing.assert_allclose(ours, wanted, rtol=rounding, atol=rounding * 0.1 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_products_and_gradients(rows, inputs, outputs, dtype, rng, form, always):
    (x, kernel, gradient), exact = draw(rng, dtype, (rows, inputs), (inputs, outputs), (rows, outputs))
    # A function of its own: JAX would give the trace of one form to the next.
    found, back = jax.vjp(jax.jit(lambda x, kernel: product(x, kernel)), x, kernel)
    by_x, by_kernel = jax.jit(back)(gradient)
    assert {v.dtype.name for v in (found, by_x, by_kernel)} == {dtype}
    x, kernel, gradient = exact
    close(found, x @ kernel)
    close(by_x, gradient @ kernel.T)
    close(by_kernel, x.T @ gradient)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "left", "right"), SIZES)
def test_sums_are_float32(rows, left, right, dtype, rng):
    (x, y, z), exact = draw(rng, dtype, (rows, left), (rows, right), (right, left))
    over_rows, turned = jax.jit(summed_over_rows)(x, y), jax.jit(summed_turned)(x, z)
    assert over_rows.dtype == turned.dtype == jnp.float32
    close(over_rows, exact[0].T @ exact[1])
    close(turned, exact[0] @ exact[2].T)


def test_large_products_of_bfloat16_add_up_in_float32_on_cpu():
    """Which is what XLA's CPU backend needs to multiply bfloat16; others choose for themselves."""

    def lowered(rows, dtype, platform):
        x, kernel = jax.ShapeDtypeStruct((rows, 512), dtype), jax.ShapeDtypeStruct((512, 512), dtype)
        return jax.jit(product).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

    wide = "tensor<512x512xbf16>) -> tensor<{}x512xf32>"
    assert wide.format(512) in lowered(512, "bfloat16", "cpu")
    assert wide.format(512) not in lowered(512, "bfloat16", "cuda")
    assert wide.format(8) not in lowered(8, "bfloat16", "cpu")
