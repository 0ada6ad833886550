"""Prediction: images of any size in, boxes and masks at that size out, with few compilations."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Shaped, UInt8

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.inference.paste import paste_rle
from maskrcnn_jax.inference.resize import resize_shortest_edge
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.structures import Detections, Result

# Sides beyond the largest bucket are padded to a multiple of this.
_BUCKET_STEP = 256


class Predictor:
    """A model with its parameters on the device, ready for images.

    Images are padded to a *bucket*, one of a few shapes, each of which is compiled when it first comes
    up and never again. The model's results do not depend on the padding.
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
            raise ValueError(
                f"buckets must be one or more positive numbers of pixels, found {tuple(buckets)}"
            )
        model = MaskRCNN(config)

        def detect(params, images, sizes):
            return model.apply({"params": params}, images, sizes, method="detect")

        self._test_resize = config.test_resize
        self._buckets = sorted(buckets)
        self._params = jax.device_put(params)
        self._detect = jax.jit(detect)

    def __call__(self, image: Shaped[np.ndarray, "H W *C"]) -> Result:
        """Finds the objects in one image; see `batch`."""
        return self.batch([image])[0]

    def batch(self, images: Sequence[Shaped[np.ndarray, "H W *C"]]) -> list[Result]:
        """Finds the objects in several images, which may differ in size.

        Images of one bucket run together, in groups of 1, 2, 4, 8, ... so that a new number of images
        does not mean a new compilation. All images are on the device at once: hand in what fits.

        Args:
          images: RGB, RGBA (alpha is ignored) or grey, 8 or 16 bits.

        Returns:
          One result for each image, in order, in its own pixels.

        Raises:
          ValueError: lists every image that has another shape or type.
        """
        inputs = [self._prepare(image) for image in _as_rgb(images)]
        pending = []
        for group, shape in _groups([self._bucket(image.shape) for image in inputs]):
            canvas = np.zeros((len(group), *shape, 3), np.uint8)
            for slot, i in zip(canvas, group, strict=True):
                slot[: inputs[i].shape[0], : inputs[i].shape[1]] = inputs[i]
            sizes = np.array([inputs[i].shape[:2] for i in group], np.int32)
            pending.append((group, sizes, self._detect(self._params, *jax.device_put((canvas, sizes)))))

        results = {}
        for group, sizes, detections in pending:  # The device works on the next group while masks are pasted.
            detections = jax.device_get(detections)
            for row, i in enumerate(group):
                one = Detections(*(field[row] for field in detections))
                results[i] = to_result(one, tuple(sizes[row].tolist()), images[i].shape[:2])
        return [results[i] for i in range(len(images))]

    def _prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        return image if self._test_resize is None else resize_shortest_edge(image, *self._test_resize)

    def _bucket(self, shape: Sequence[int]) -> tuple[int, int]:
        """The padded height and width of an image."""
        largest = self._buckets[-1]
        return tuple(
            next(b for b in self._buckets if b >= side)
            if side <= largest
            else -(-side // _BUCKET_STEP) * _BUCKET_STEP
            for side in shape[:2]
        )


def to_result(detections: Detections, size: tuple[int, int], original: tuple[int, int]) -> Result:
    """One image's detections on the host, from the model's frame to the image's own.

    Args:
      detections: arrays without a batch axis; padding and boxes that are empty after clipping are dropped.
      size: height and width that the model saw, in pixels.
      original: height and width of the image.
    """
    height, width = (int(side) for side in original)
    valid = np.asarray(detections.valid)
    scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
    boxes = np.asarray(detections.boxes, np.float32)[valid] * scale
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    scores, classes, masks = (
        np.asarray(field)[valid][solid] for field in (detections.scores, detections.classes, detections.masks)
    )
    boxes = boxes[solid]
    return Result(
        boxes=boxes,
        scores=scores.astype(np.float32),
        classes=classes.astype(np.int32),
        masks=paste_rle(masks, boxes, (height, width)),
        size=(height, width),
    )


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


def _as_rgb(images: Sequence[Shaped[np.ndarray, "H W *C"]]) -> list[UInt8[np.ndarray, "H W 3"]]:
    faults = [f"image {i}: {fault}" for i, image in enumerate(images) if (fault := _fault(image))]
    if faults:
        raise ValueError("these images cannot be read:\n  " + "\n  ".join(faults))
    return [_one_as_rgb(image) for image in images]


def _fault(image: object) -> str | None:
    if not isinstance(image, np.ndarray):
        return f"expected a NumPy array, found {type(image).__name__}"
    if image.dtype not in (np.uint8, np.uint16):
        return f"expected uint8 or uint16 pixels, found {image.dtype}: scale them to 0..255 and convert"
    channels = image.shape[2:]
    if image.ndim not in (2, 3) or channels not in ((), (1,), (3,), (4,)):
        return f"expected (H, W) or (H, W, C) with C = 1, 3 or 4, found {image.shape}"
    return "it has no pixels" if image.size == 0 else None


def _one_as_rgb(image: Shaped[np.ndarray, "H W *C"]) -> UInt8[np.ndarray, "H W 3"]:
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 257 = 255
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
