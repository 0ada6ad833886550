"""Which of two exact forms an op takes."""

import jax
import pytest


@pytest.fixture(params=["cpu", "default"])
def form(request, monkeypatch):
    """Makes `jax.lax.platform_dependent` choose the form for CPUs, or the one for everything else."""

    def choose(*args, default, **branches):
        return {"default": default, **branches}[request.param](*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return request.param
