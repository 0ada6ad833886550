"""Every form is traced, unless the platform is known to be the CPU."""

import jax
import numpy as np
import pytest

from maskrcnn_jax.ops.platforms import by_platform, traced_for


@pytest.fixture
def traced():
    return []


@pytest.fixture
def function(traced):
    def form(name, value):
        return lambda x: traced.append(name) or x + value

    return lambda x: by_platform(x, cpu=form("cpu", 1), cuda=form("cuda", 2), default=form("default", 3))


@pytest.mark.parametrize("platform", [None, "gpu", "cpu"])
def test_forms_that_are_traced(function, traced, platform):
    def known(x):
        with traced_for(platform):
            return function(x)

    every = {"cpu", "cuda", "default"}
    assert jax.jit(known)(np.float32(0)) == 1
    assert set(traced) == ({"cpu"} if platform == "cpu" else every)
    assert jax.jit(lambda x: function(x))(np.float32(0)) == 1
    assert set(traced) == every, "what is traced afterwards knows nothing of it"


def test_an_export_for_gpus_has_their_form(function):
    exported = jax.export.export(jax.jit(function), platforms=["cuda"])(np.float32(0))
    assert "2.0" in exported.mlir_module() and "1.0" not in exported.mlir_module()
