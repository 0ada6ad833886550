"""What the tests of tiles and views share: images whose objects have a colour each, and who finds them."""

from __future__ import annotations

import numpy as np

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop


class Painted:
    """A predictor that finds exactly the pixels of each colour, as far as the image shows them.

    A colour (r, g, b) is an object of class b with the score r / 255; g tells objects apart.
    """

    fingerprint = "painted"
    config = MaskRCNNConfig()

    def __init__(self):
        self.shapes = []

    def __call__(self, image):
        return self.batch([image])[0]

    def batch(self, images, *, frame=None, zoom=1.0):
        self.shapes.append((len(images), *(image.shape[:2] for image in images), frame, zoom))
        return [find(image) for image in images]

    def start(self, images, **options):
        results = self.batch(images, **options)
        return lambda: results


def find(image):
    rows = []
    for colour in np.unique(image.reshape(-1, 3), axis=0):
        mask = (image == colour).all(axis=-1)
        if not (colour == 255).all():
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            rows.append((box, colour[0] / 255, colour[2], rle_of_crop(mask, 0, 0, mask.shape)))
    rows.sort(key=lambda row: -row[1])
    return Result(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        classes=np.array([row[2] for row in rows], np.int32),
        crops=crops_of([row[3] for row in rows]),
        size=image.shape[:2],
    )


def paint(size, objects):
    """White, with each object (its mask, or slices) in a colour of its own."""
    image = np.full((*size, 3), 255, np.uint8)
    for n, where in enumerate(objects):
        image[where] = (20 + n // 100 * 7, n % 100, n % 2)
    return image


def discs(rng, size, count, radius):
    """Masks of discs at random places; later ones cover earlier ones."""
    y, x = np.mgrid[: size[0], : size[1]]
    for _ in range(count):
        cy, cx, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(2, radius)
        yield (y - cy) ** 2 + (x - cx) ** 2 <= r**2


def contents(result):
    """A result as a set, to be compared with another in whatever order."""
    return {
        (tuple(box), score, label, mask["counts"], tuple(mask["size"]))
        for box, score, label, mask in zip(
            result.boxes.tolist(), result.scores.tolist(), result.classes.tolist(), result.masks, strict=True
        )
    }
