"""What a field of a config may be: type and range stand in its annotation, `Annotated[int, Range(1, 8)]`."""

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, which both belong to it; with `above`, `low` does not.

    NaN is in no range, and every range ends: what is out of all proportion is a slip.
    """

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return value <= self.high and (self.low < value if self.above else self.low <= value)

    def __str__(self) -> str:
        return f"above {_plain(self.low)}, up to {_plain(self.high)}" if self.above else self._between()

    def _between(self) -> str:
        return f"from {_plain(self.low)} to {_plain(self.high)}"


@dataclass(frozen=True)
class Length:
    """Of a list or a text: from `low` to `high` values or characters."""

    low: int
    high: int

    def __contains__(self, value: tuple | str) -> bool:
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"of {self.low} to {self.high}"


# A part of a whole; an IoU; a score.
Share = Annotated[float, Range(0, 1)]
# Factors, weights and decays that may be 0, and those that may not.
Weight = Annotated[float, Range(0, 1e6)]
PositiveWeight = Annotated[float, Range(0, 1e6, above=True)]
# A side or distance in pixels.
Pixels = Annotated[int, Range(1, 100_000)]
# How many boxes, samples or instances.
Count = Annotated[int, Range(1, 1_000_000)]
# Outputs of a layer.
Channels = Annotated[int, Range(1, 16_384)]
# What random draws start from.
Seed = Annotated[int, Range(0, 2**31 - 1)]


def _plain(number: float) -> str:
    """As people write it: 1000000 in groups of three digits, 0.5, 1e-06."""
    whole = math.isfinite(number) and number == int(number) and abs(number) < 1e15
    return f"{int(number):,}" if whole else repr(number)
