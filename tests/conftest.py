"""What all tests share: strict JAX settings, several CPU devices, and the optional golden files."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens, data and weights that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}: goldens and data that are not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared):
    """Loads one golden archive by name: `golden("comp_iou")["iou"]`."""
    folder = shared / "goldens"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: what Detectron2 computes")
    return lambda name: np.load(folder / f"{name}.npz", allow_pickle=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=["cpu", "cuda", "default"])
def form(request, monkeypatch):
    """Makes `jax.lax.platform_dependent` choose the form for CPUs, for GPUs, or for everything else."""

    def choose(*args, default, **branches):
        return branches.get(request.param, default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return request.param
