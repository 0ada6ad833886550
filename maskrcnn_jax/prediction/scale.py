"""At which scale an image is shown to the model: that of its training, as far as both say theirs."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.image_source import ImageSource

_SAME = 1.1  # Scanners call 0.22 to 0.28 µm one magnification; a model bears such differences.


@dataclass(frozen=True)
class Scale:
    """What is known of pixels' lengths.

    Attributes:
      model: µm a pixel in the images that the model was trained on; None if it does not say.
      mpp: µm a pixel in the images that are predicted, whatever they say themselves; None where they do.
      zoom: by how much images are enlarged for the model, whatever anybody says; None where it follows.
      objects: the median size of the objects that the model was trained on, in pixels; None if it does not
        say. For people, who can see whether theirs are as large.

    Raises:
      UserError: `mpp` is given and says nothing, since the model does not say its own.
    """

    model: float | None = None
    mpp: float | None = None
    zoom: float | None = None
    objects: float | None = None

    def __post_init__(self):
        if self.mpp is not None and self.model is None:
            raise UserError(
                f"--mpp {self.mpp:g}: the model does not say at how many µm a pixel it was trained; "
                "give --zoom, by how much images are to be enlarged for it" + self._objects
            )

    def of(self, source: ImageSource) -> tuple[float, str | None]:
        """By how much an image is enlarged for the model, and what people should know of it."""
        if self.zoom is not None:
            return self.zoom, None
        if self.model is None:
            return 1.0, None
        mpp = self.mpp or source.mpp
        if mpp is None:
            note = f"the file has no µm a pixel, so taken for the model's {self.model:g} (else: --mpp)"
            return 1.0, note + self._objects
        zoom = mpp / self.model
        if 1 / _SAME <= zoom <= _SAME:
            return 1.0, None
        note = f"{mpp:.3g} µm a pixel, shown {zoom:.3g} times as large: the model's {self.model:g} µm"
        return zoom, note + self._objects

    @property
    def _objects(self) -> str:
        """To end a message with."""
        return f"; it has learnt objects of {self.objects:g} px (median)" if self.objects else ""
