"""Test-time augmentation: several views of an image are predicted, and their detections become one result."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.masks.crops import Crops, crops_of_pixels, join
from maskrcnn_jax.masks.overlaps import overlapping, shared_pixels, vote
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.prediction.predictor import Predictor, Size, without_parts

_SAME = 0.5  # Masks of two views with at least this IoU are one object.


class View(NamedTuple):
    """How an image is shown to the model: rows as columns, then upside down, mirrored, enlarged."""

    transpose: bool
    flip_y: bool
    flip_x: bool
    zoom: float


class Augmented:
    """A predictor that asks another one about several views of each image; used in its place.

    It takes as many times as long as there are views.

    Attributes:
      views: what each image is shown as.
      fingerprint: tells this model with these views from others.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        flips: bool = True,
        turns: bool = False,
        scales: Sequence[float] = (1.0,),
    ):
        """Keeps the predictor; nothing is compiled yet.

        Args:
          predictor: of one view.
          flips: show each image as it is, upside down, mirrored, and both.
          turns: show each of these by a quarter turn, too.
          scales: by how much the images are enlarged, on top of `config.test_resize`.
        """
        if not scales or min(scales) <= 0:
            raise UserError(f"scales must be one or more positive factors, found {tuple(scales)}")
        turned, flipped = ((False, True) if wanted else (False,) for wanted in (turns, flips))
        views = itertools.product(turned, flipped, flipped, map(float, scales))
        self.views = [View(*view) for view in views]
        self._predictor = predictor

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._predictor.fingerprint} {self.views}".encode()).hexdigest()

    @property
    def stretch_grey(self) -> bool:
        """Whether images without colour are stretched before they are predicted."""
        return self._predictor.stretch_grey

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
    ) -> list[Result]:
        """As `Predictor.batch`; see `fuse` for what becomes of the views."""
        return self.start(images, frame=frame, zoom=zoom, shapes=shapes)()

    def start(
        self,
        images: Sequence[Shaped[np.ndarray, "H W *C"]],
        *,
        frame: Size | None = None,
        zoom: float = 1.0,
        shapes: Sequence[Size] | None = None,
    ) -> Callable[[], list[Result]]:
        """As `Predictor.start`, but each view is fetched as it ends, before the next one starts."""
        seen, limits = [], self._predictor.config.detection
        for view in self.views:
            shown = [_show(image, view) for image in images]
            shown_frame = frame[::-1] if frame and view.transpose else frame
            options = {"frame": shown_frame, "zoom": zoom * view.zoom}
            if shapes:
                options["shapes"] = [shape[::-1] if view.transpose else shape for shape in shapes]
            if any(limits.offset):
                options["offset"] = _turned(limits.offset, view)
            results = self._predictor.batch(shown, **options)
            seen.append([_back(result, view) for result in results])

        def finish() -> list[Result]:
            fused = (
                fuse(of_image, threshold=limits.score_threshold, most=limits.max_detections)
                for of_image in zip(*seen, strict=True)
            )
            return [without_parts(result, limits.containment) for result in fused]

        return finish


def fuse(views: Sequence[Result], *, threshold: float = 0.0, most: int | None = None) -> Result:
    """What several views of one image agree on, in the image's own frame, best first.

    From the best score down, a detection takes from each other view the one of its class whose mask
    overlaps its own most, at IoU 0.5 or more. Such a group becomes one detection: its score is the mean over
    all views, 0 for those that found nothing; box and mask are means by score, the mask cut at one half.
    Of groups that still overlap that much, the best stays.

    Args:
      views: of the same image.
      threshold: detections must score more than this.
      most: how many detections are kept.
    """
    everything = concatenate(views, views[0].size)
    origin = np.repeat(np.arange(len(views)), [len(view) for view in views])
    crops = everything.crops
    pairs, iou = _same_objects(crops, everything.classes)
    apart = origin[pairs[:, 0]] != origin[pairs[:, 1]]
    groups = _groups(everything.scores, origin, pairs[apart], iou[apart])
    scores = np.array([everything.scores[rows].sum() / len(views) for rows in groups], np.float32)
    fused = Result(
        boxes=np.array([_mean_box(everything, rows) for rows in groups], np.float32).reshape(-1, 4),
        scores=scores,
        classes=np.array([everything.classes[rows[0]] for rows in groups], np.int32),
        crops=join([vote(crops, rows, everything.scores[rows].tolist(), 0.5) for rows in groups]),
        size=everything.size,
    )
    fused = fused.take(np.flatnonzero(scores > threshold))
    return fused.take(_best_of_each(fused)[:most])


def _same_objects(
    crops: Crops, classes: Int[np.ndarray, "D"]
) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    """Pairs of one class whose masks are much alike, and their IoU."""
    pairs = overlapping(crops.rectangles)
    pairs = pairs[classes[pairs[:, 0]] == classes[pairs[:, 1]]]
    shared = shared_pixels(crops, pairs)
    iou = shared / np.maximum(crops.areas[pairs].sum(axis=1) - shared, 1)
    return pairs[iou >= _SAME], iou[iou >= _SAME]


def _groups(
    scores: Float[np.ndarray, "D"],
    origin: Int[np.ndarray, "D"],
    pairs: Int[np.ndarray, "P 2"],
    iou: Float[np.ndarray, "P"],
) -> list[list[int]]:
    """The rows of each group, the one that began it first."""
    similar: dict[int, list[int]] = {}
    for p in np.argsort(-iou, kind="stable").tolist():
        a, b = pairs[p].tolist()
        similar.setdefault(a, []).append(b)
        similar.setdefault(b, []).append(a)
    groups, taken = [], set()
    for first in np.argsort(-scores, kind="stable").tolist():
        if first in taken:
            continue
        members = {int(origin[first]): first}
        for row in similar.get(first, ()):  # the most similar first
            if row not in taken:
                members.setdefault(int(origin[row]), row)
        taken.update(members.values())
        groups.append(list(members.values()))
    return groups


def _best_of_each(result: Result) -> Int[np.ndarray, "D"]:
    """Rows by falling score, without those that are the same object as a better one."""
    pairs, _ = _same_objects(result.crops, result.classes)
    order = np.argsort(-result.scores, kind="stable")
    rank = np.argsort(order)
    worse_of: dict[int, list[int]] = {}
    for pair in rank[pairs].tolist():
        worse_of.setdefault(min(pair), []).append(max(pair))
    gone: set[int] = set()
    for better in sorted(worse_of):
        if better not in gone:
            gone.update(worse_of[better])
    return order[[n not in gone for n in range(len(order))]]


def _mean_box(result: Result, rows: Sequence[int]) -> Float[np.ndarray, "4"]:
    return np.average(result.boxes[rows], axis=0, weights=result.scores[rows] + np.float32(1e-9))


def _show(image: Shaped[np.ndarray, "H W *C"], view: View) -> Shaped[np.ndarray, "h w *C"]:
    return _flip(image.swapaxes(0, 1) if view.transpose else image, view)


def _flip(image: Shaped[np.ndarray, "H W *C"], view: View) -> Shaped[np.ndarray, "H W *C"]:
    return image[:: -1 if view.flip_y else 1, :: -1 if view.flip_x else 1]


def _turned(offset: tuple[float, float], view: View) -> tuple[float, float]:
    """What moves objects by `offset` (x, y) in the frame of the image, in that of the view."""
    x, y = reversed(offset) if view.transpose else offset
    return -x if view.flip_x else x, -y if view.flip_y else y


def _back(result: Result, view: View) -> Result:
    """What was found in a view, in the frame of the image."""
    height, width = result.size
    x0, y0, x1, y1 = result.boxes.T
    if view.flip_x:
        x0, x1 = width - x1, width - x0
    if view.flip_y:
        y0, y1 = height - y1, height - y0
    columns = (y0, x0, y1, x1) if view.transpose else (x0, y0, x1, y1)
    return Result(
        boxes=np.stack(columns, axis=1),
        scores=result.scores,
        classes=result.classes,
        crops=_crops_back(result.crops, view, result.size),
        size=(width, height) if view.transpose else (height, width),
    )


def _crops_back(crops: Crops, view: View, size: Size) -> Crops:
    top, left, bottom, right = crops.rectangles.T
    corners = np.stack(
        [size[0] - bottom if view.flip_y else top, size[1] - right if view.flip_x else left], 1
    )
    pixels = [_flip(crops.pixels(n), view) for n in range(len(crops))]
    if view.transpose:
        return crops_of_pixels([mask.T for mask in pixels], corners[:, ::-1])
    return crops_of_pixels(pixels, corners)
