"""Jitted functions that count their compilations and tell of those that come late, with the shapes."""

from collections.abc import Callable
from typing import Any

import jax


class CountedJit:
    """`jax.jit(function)` that knows how often it was compiled. Every new shape costs minutes, in silence.

    Attributes:
      compilations: how often so far.
    """

    def __init__(self, function: Callable, *, expected: int, tell: Callable[[str], None], **options: Any):
        """Compiles nothing yet.

        Args:
          function: what is jitted; its name is used in the message.
          expected: so many compilations are in order; of each further one `tell` is told.
          tell: gets a line of text, while the function is traced.
          options: of `jax.jit`.
        """
        self.compilations = 0
        self._shapes: dict[str, str] = {}

        def counted(*args):
            self.compilations += 1  # JAX runs this body when it compiles, and only then.
            shapes = _shapes(args)
            if self.compilations > expected:
                changes = [
                    f"{name} {shape} (before: {self._shapes.get(name, 'nothing')})"
                    for name, shape in shapes.items()
                    if self._shapes.get(name) != shape
                ]
                what = "; ".join(changes) or "the same shapes, but other types or devices"
                tell(f"{function.__name__} is compiled for the {_nth(self.compilations)} time: {what}")
            self._shapes = shapes
            return function(*args)

        self._jitted = jax.jit(counted, **options)

    def __call__(self, *args: Any) -> Any:
        return self._jitted(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """As `jax.jit(function).lower`."""
        return self._jitted.lower(*args)


def _shapes(args: Any) -> dict[str, str]:
    """Shape and type of each array, by its place among the arguments."""
    leaves = jax.tree_util.tree_leaves_with_path(args)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"
