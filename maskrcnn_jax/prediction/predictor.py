"""Prediction: images of any size in, boxes and masks at that size out, with few compilations."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Shaped, UInt8

from maskrcnn_jax.compilations import CountedJit
from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.intensity import stretch_grey
from maskrcnn_jax.images.pixels import as_rgb, fault_of
from maskrcnn_jax.masks.containment import not_contained
from maskrcnn_jax.masks.pasting import paste
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.ops.boxes import grow
from maskrcnn_jax.ops.platforms import traced_for
from maskrcnn_jax.prediction.resize import enlargement, interpolate, resize, scaled
from maskrcnn_jax.structures import Detections

# Sides beyond the largest bucket are padded to a multiple of this.
_BUCKET_STEP = 256
_MANY_SHAPES = 12  # Compilations that pass without a word.

Size = tuple[int, int]


class Predictor:
    """A model with its parameters on the device, ready for images.

    Images are padded to a *bucket*, one of a few shapes, each of which is compiled when it first comes
    up and never again; where many shapes come up, a warning is logged. The model's results do not depend on
    the padding.

    Attributes:
      config: of the model.
      stretch_grey: whether images without colour are stretched before they are predicted.
    """

    def __init__(
        self,
        config: MaskRCNNConfig,
        params: dict,
        *,
        buckets: Sequence[int] = (256, 512, 768, 1024, 1280, 1536, 2048),
    ):
        """Puts the parameters on the device; compiles nothing yet.

        Args:
          config: of the model.
          params: of the model, as `load_bundle` and the checkpoints give them.
          buckets: sides that images are padded to, in pixels after `config.test_resize`. Fewer mean fewer
            compilations, closer ones less work on padding. Larger sides become a multiple of 256.
        """
        if not buckets or min(buckets) < 1:
            raise UserError(f"buckets must be one or more positive numbers of pixels, found {tuple(buckets)}")
        model = MaskRCNN(config)

        def detect(params, images, sizes):
            with traced_for(platform):
                return model.apply({"params": params}, images, sizes, method="detect")

        self.config = config
        self.stretch_grey = config.stretch_grey
        self._options = {
            "mask_margin": config.roi.mask_margin,
            "containment": config.detection.containment,
            "whole_pixels": config.detection.pasting == "whole_pixels",
        }
        self._unrounded = config.test_resize_method == "bilinear"
        self._resize = interpolate if self._unrounded else resize
        self._buckets = sorted(buckets)
        self._params = jax.device_put(params)
        devices = {device for leaf in jax.tree.leaves(self._params) for device in leaf.devices()}
        platform = next((device.platform for device in devices), None)
        self._detect = CountedJit(detect, expected=_MANY_SHAPES, tell=_warn_of_shapes)

    def replace_params(self, params: dict) -> None:
        """Goes on with other parameters of the same model; nothing is compiled anew."""
        self._params = jax.device_put(params)
        self.__dict__.pop("fingerprint", None)

    def __call__(self, image: Shaped[np.ndarray, "H W *C"]) -> Result:
        """Finds the objects in one image; see `batch`."""
        return self.batch([image])[0]

    def batch(
        self,
        images: Sequence[Shaped[np.ndarray, "H W *C"]],
        *,
        frame: Size | None = None,
        zoom: float = 1.0,
        shapes: Sequence[Size] | None = None,
        offset: tuple[float, float] | None = None,
    ) -> list[Result]:
        """Finds the objects in several images, which may differ in size.

        Images of one bucket run together, in groups of 1, 2, 4, 8, ... so that a new number of images
        does not mean a new compilation. All images are on the device at once: hand in what fits.
        While the device works on a group, the masks of the one before are pasted.

        Args:
          images: RGB, RGBA (alpha is ignored) or grey, 8 or 16 bits (of which the high byte is read, unless
            the model stretches grey images: then all).
          frame: height and width. If the images are parts of a larger one, smaller ones at its border
            among them: all are resized as an image of this size would be, and share its bucket. Their grey
            is not stretched, which only whoever has the whole image can do: `ImageSource.stretched`.
          zoom: the model sees the images enlarged by this, on top of what its config says.
          shapes: height and width of each image, where it is given in fewer pixels, as from a pyramid.
            `frame`, `zoom` and the results are those of images of these sizes.
          offset: in place of `config.detection.offset`.

        Returns:
          One result for each image, in order, in its own pixels.

        Raises:
          UserError: lists every image that has another shape or type.
        """
        return self.start(images, frame=frame, zoom=zoom, shapes=shapes, offset=offset)()

    def start(
        self,
        images: Sequence[Shaped[np.ndarray, "H W *C"]],
        *,
        frame: Size | None = None,
        zoom: float = 1.0,
        shapes: Sequence[Size] | None = None,
        offset: tuple[float, float] | None = None,
    ) -> Callable[[], list[Result]]:
        """Hands images to the device, as `batch` does, and returns at once.

        Returns:
          What waits for the device, pastes the masks and gives the results; another thread may call it.
        """
        faults = [f"image {i}: {fault}" for i, image in enumerate(images) if (fault := fault_of(image))]
        if faults:
            raise UserError("these images cannot be read:\n  " + "\n  ".join(faults))
        shapes = list(shapes or (image.shape[:2] for image in images))
        plans = [self._plan(shape, frame, zoom) for shape in shapes]
        pending = []
        for group, bucket in _groups([bucket for _, bucket in plans]):
            canvas = np.zeros((len(group), *bucket, 3), np.float32 if self._unrounded else np.uint8)
            sizes = np.array([plans[i][0] for i in group], np.int32)
            for slot, i in zip(canvas, group, strict=True):
                pixels = self._pixels(images[i], whole=frame is None)
                slot[: plans[i][0][0], : plans[i][0][1]] = self._resize(pixels, plans[i][0])
            pending.append((group, sizes, self._detect(self._params, *jax.device_put((canvas, sizes)))))

        options = self._options | {"offset": self.config.detection.offset if offset is None else offset}

        def finish() -> list[Result]:
            results = {}
            for group, sizes, detections in pending:
                detections = jax.device_get(detections)
                for row, i in enumerate(group):
                    one = Detections(*(field[row] for field in detections))
                    results[i] = to_result(one, tuple(sizes[row].tolist()), shapes[i], **options)
            return [results[i] for i in range(len(shapes))]

        return finish

    @property
    def compilations(self) -> int:
        """How often the model has been compiled: once for each bucket and number of images that came up."""
        return self._detect.compilations

    @cached_property
    def fingerprint(self) -> str:
        """What tells this model from others: a hash of its config and parameters."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()

    def _pixels(self, image: Shaped[np.ndarray, "H W *C"], *, whole: bool) -> UInt8[np.ndarray, "H W 3"]:
        return as_rgb(stretch_grey(image) if whole and self.stretch_grey else image)

    def _plan(self, shape: Size, frame: Size | None, zoom: float) -> tuple[Size, Size]:
        """The height and width at which the model sees an image, and those of its bucket."""
        frame = frame or shape
        factors = enlargement(self.config, frame, zoom)
        size, room = scaled(shape, factors), scaled(frame, factors)
        return size, tuple(self._bucket(max(sides)) for sides in zip(size, room, strict=True))

    def _bucket(self, side: int) -> int:
        """The padded length of a side."""
        fitting = [bucket for bucket in self._buckets if bucket >= side]
        return fitting[0] if fitting else -(-side // _BUCKET_STEP) * _BUCKET_STEP


def _warn_of_shapes(message: str) -> None:
    logging.getLogger(__name__).warning("%s. Fewer `buckets` mean fewer compilations.", message)


def to_result(
    detections: Detections,
    size: Size,
    original: Size,
    *,
    mask_margin: float = 0.0,
    offset: tuple[float, float] = (0.0, 0.0),
    containment: float = 1.0,
    whole_pixels: bool = False,
) -> Result:
    """One image's detections on the host, from the model's frame to the image's own.

    Args:
      detections: arrays without a batch axis; padding and boxes that are empty after clipping are dropped.
      size: height and width that the model saw, in pixels.
      original: height and width of the image.
      mask_margin: by which share of its length the mask of a box reaches beyond it at each side.
      offset, containment: see `DetectionConfig`.
      whole_pixels: how masks are pasted, see `masks.pasting`.
    """
    height, width = (int(side) for side in original)
    valid = np.asarray(detections.valid)
    scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
    boxes = np.asarray(detections.boxes, np.float32)[valid] * scale + np.array([*offset, *offset], np.float32)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    scores, classes, masks = (
        np.asarray(field)[valid][solid] for field in (detections.scores, detections.classes, detections.masks)
    )
    boxes = boxes[solid]
    result = Result(
        boxes=boxes,
        scores=scores.astype(np.float32),
        classes=classes.astype(np.int32),
        crops=paste(masks, grow(boxes, mask_margin), (height, width), whole_pixels=whole_pixels),
        size=(height, width),
    )
    return without_parts(result, containment)


def without_parts(result: Result, containment: float) -> Result:
    """The detections that `masks.containment` keeps."""
    if containment >= 1:
        return result
    return result.take(not_contained(result.crops, result.scores, result.classes, containment))


def _groups(shapes: Sequence[tuple[int, int]]) -> list[tuple[list[int], tuple[int, int]]]:
    """Indices of equal shapes in groups whose sizes are powers of two, each with its shape."""
    groups = []
    for shape in dict.fromkeys(shapes):
        left = [i for i, other in enumerate(shapes) if other == shape]
        while left:
            count = 1 << (len(left).bit_length() - 1)
            groups.append((left[:count], shape))
            left = left[count:]
    return groups
