"""Which of its exact forms an op takes."""

import jax
import pytest


@pytest.fixture(params=["cpu", "cuda", "default"])
def form(request, monkeypatch):
    """Makes `jax.lax.platform_dependent` choose the form for CPUs, for GPUs, or for everything else."""

    def choose(*args, default, **branches):
        return branches.get(request.param, default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return request.param
