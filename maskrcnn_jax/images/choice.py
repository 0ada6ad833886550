"""Which part of a file is the image: a series, a plane of a stack, one or three of its channels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.pixels import as_colours

_ACROSS = {"max": np.maximum, "mean": np.add}  # how several planes become one


class ChoiceError(UserError):
    """A file holds more than one image and none is chosen, or what is chosen is not there."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


@dataclass(frozen=True)
class Choice:
    """What to read of files that hold more than one image; all numbers are from 0.

    Attributes:
      channels: one, which becomes grey, or three for red, green and blue; None where there is no choice.
      plane: of a stack, over all its axes but channels; or `max` or `mean` of all.
      series: of a file with several.
      stretch_grey: whether an image of more than 8 bits and no colour is brought to 8 as
        `images.intensity.stretch_grey` does it, rather than by its high byte alone.
    """

    channels: tuple[int, ...] | None = None
    plane: int | str | None = None
    series: int | None = None
    stretch_grey: bool = False

    @classmethod
    def parse(cls, *, channel: str = "", plane: str = "", series: str = "") -> Choice:
        """From what people write: `2` or `0,1,2`, `2`, `max` or `mean`, `2`; empty for no choice.

        Raises:
          UserError: it is something else.
        """
        if channel and not re.fullmatch(r"\d{1,6}(,\d{1,6},\d{1,6})?", channel.replace(" ", "")):
            raise UserError(f"channel {channel!r} is neither a number from 0 nor three, as 0,1,2")
        if plane and plane not in _ACROSS and not re.fullmatch(r"\d{1,9}", plane):
            raise UserError(f"plane {plane!r} is neither a number from 0 nor max nor mean")
        if series and not re.fullmatch(r"\d{1,6}", series):
            raise UserError(f"series {series!r} is no number from 0")
        return cls(
            tuple(map(int, channel.split(","))) if channel else None,
            plane if plane in _ACROSS else int(plane) if plane else None,
            int(series) if series else None,
        )

    def of_plain(self, image: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "H W *C"]:
        """Of an image that has one plane and nothing but grey, or red, green and blue.

        Raises:
          ChoiceError: another plane or series than the first is chosen, or a channel past the third.
        """
        if self.series or (self.plane not in (0, None) and self.plane not in _ACROSS):
            raise ChoiceError("holds one image alone", "leave out --series and --plane, or choose 0")
        if self.channels is None:
            return image
        _require_below(self.channels, 3, "channels", "channel")
        return as_colours(image)[..., self.channels if len(self.channels) == 3 else self.channels * 3]


ALL = Choice()


class View:
    """One image in an array of many axes; it is cut out when a window is read.

    Attributes:
      size: height and width in pixels.
      colour: whether the channels are red, green and blue of one picture.
    """

    def __init__(self, pixels: Any, axes: str, choice: Choice = ALL):
        """Finds the image.

        Args:
          pixels: an array, or what can be indexed as one.
          axes: a letter for each of its axes, as tifffile has them: Y, X, S for samples, C for channels; all
            others are planes.
          choice: which of them.

        Raises:
          ChoiceError: it is ambiguous, or not there.
        """
        self._pixels, self._choice = pixels, choice
        shape = pixels.shape
        self._y, self._x = axes.index("Y"), axes.index("X")
        wide = [n for n, count in enumerate(shape) if count > 1 and n not in (self._y, self._x)]
        samples = next((n for n in wide if axes[n] == "S"), None)
        self._colour = samples if samples is not None and shape[samples] in (3, 4) else None
        channels = [n for n in wide if axes[n] == "C"] if self._colour is None else []
        channels = channels or [n for n in wide if n == samples and self._colour is None]
        self._planes = [n for n in wide if n not in (self._colour, *channels)]
        if choice.channels is not None and not channels:
            channels = self._channels_elsewhere()
        self._channels = channels
        self.size = (shape[self._y], shape[self._x])
        self.colour = self._colour is not None
        described = " x ".join(map(str, shape))
        self._require_choice(f"axes {axes}, {described}", [shape[n] for n in channels])

    def _channels_elsewhere(self) -> list[int]:
        """A channel is chosen and no axis is called so: red, green and blue, or the axis of a plain stack."""
        if self._colour is not None:
            axis, self._colour = self._colour, None
            return [axis]
        if self._choice.plane is None:
            axes, self._planes = self._planes, []
            return axes
        return []

    def _require_choice(self, described: str, channels: Sequence[int]) -> None:
        shape = self._pixels.shape
        count, planes = math.prod(channels), math.prod(shape[n] for n in self._planes)
        what, remedies = [], []
        if count > 1 and self._choice.channels is None:
            what.append(f"{count} channels")
            remedies.append(f"--channel N, or N,N,N as red, green and blue, N from 0 to {count - 1}")
        if planes > 1 and self._choice.plane is None:
            what.append(f"{planes} planes")
            remedies.append(f"--plane N from 0 to {planes - 1}, max or mean")
        if what:
            where = "in a config: data.channel, data.plane"
            raise ChoiceError(
                f"holds {' and '.join(what)} ({described})", f"choose {' and '.join(remedies)} ({where})"
            )
        _require_below(self._choice.channels or (), count, "channels", "channel")
        if isinstance(self._choice.plane, int):
            _require_below((self._choice.plane,), planes, "planes", "plane")

    def read(self, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        """The values of a window: one channel, or three in a last axis."""
        window = {self._y: slice(top, top + height), self._x: slice(left, left + width)}
        if self._colour is not None:
            return self._across(window | {self._colour: slice(3)})
        shape = [self._pixels.shape[n] for n in self._channels]
        places = [np.unravel_index(channel, shape) for channel in self._choice.channels or (0,)]
        found = [self._across(window | dict(zip(self._channels, place, strict=True))) for place in places]
        return found[0] if len(found) == 1 else np.stack(found, axis=-1)

    def _across(self, index: dict[int, Any]) -> Shaped[np.ndarray, "h w *C"]:
        """The chosen plane, or all of them made one."""
        shape = [self._pixels.shape[n] for n in self._planes]
        plane, count = self._choice.plane, math.prod(shape)
        if plane not in _ACROSS:
            return self._plane(index, np.unravel_index(plane or 0, shape))
        first = self._plane(index, np.unravel_index(0, shape))
        together = first.astype(np.float64) if plane == "mean" else first
        for n in range(1, count):
            together = _ACROSS[plane](together, self._plane(index, np.unravel_index(n, shape)))
        if plane == "max":
            return together
        together = together / count
        return (together if first.dtype.kind in "fc" else np.rint(together)).astype(first.dtype)

    def _plane(self, index: dict[int, Any], place: tuple) -> Shaped[np.ndarray, "h w *C"]:
        index = index | dict(zip(self._planes, place, strict=True))
        axes = range(len(self._pixels.shape))
        values = np.asarray(self._pixels[tuple(_whole(index.get(n, 0)) for n in axes)])
        kept = sorted(n for n in (self._y, self._x, self._colour) if n is not None)
        order = [kept.index(n) for n in (self._y, self._x, self._colour) if n is not None]
        return values.transpose(order)


def _whole(index: Any) -> Any:
    return index if isinstance(index, slice) else int(index)


def _require_below(numbers: Sequence[int], count: int, many: str, one: str) -> None:
    if any(number >= count for number in numbers):
        held = f"holds {count} {many if count > 1 else one}"
        raise ChoiceError(f"{held}, {one} {max(numbers)} is chosen", f"choose from 0 to {count - 1}")
