"""One function in several forms, each for a platform, of which no more are traced than may run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

_KNOWN: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def traced_for(platform: str | None) -> Iterator[None]:
    """What is traced inside runs on this platform alone, as `jax.Device.platform` names it; None is any.

    On a CPU a third of the time that a first prediction takes would go into forms that no CPU runs.
    """
    token = _KNOWN.set(platform)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def on_cpu_alone() -> bool:
    """Whether what is traced now runs on no other platform, and what only those need can be left out."""
    return _KNOWN.get() == "cpu"


def by_platform(*args: Any, default: Callable, **forms: Callable) -> Any:
    """`jax.lax.platform_dependent`, which traces all forms, since code may be compiled for another machine.

    Inside `traced_for("cpu")` only the form for CPUs is. GPUs have one name there and others here: for them
    all forms are traced.
    """
    if on_cpu_alone():
        return forms.get("cpu", default)(*args)
    return jax.lax.platform_dependent(*args, default=default, **forms)
