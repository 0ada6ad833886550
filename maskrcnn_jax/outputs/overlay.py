"""Pictures for people: instances as thin outlines on their image, and ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import RLE
from maskrcnn_jax.outputs.colours import PALETTE, neighbour_colors

_SMALL_SIDE = 1000  # Smaller images are enlarged to about this many pixels,
_SMALL_OBJECT = 48  # those with mostly smaller objects to twice their size,
_MAX_SCALE, _MAX_SIDE = 4, 4000  # but not beyond this factor, nor to a larger picture.


def draw_overlay(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[RLE],
    *,
    boxes: Float[np.ndarray, "D 4"] | None = None,
    scores: Float[np.ndarray, "D"] | None = None,
    colors: Sequence[int] | None = None,
    scale: int | None = None,
    thickness: int | None = None,
) -> UInt8[np.ndarray, "sH sW 3"]:
    """Outlines every instance just inside its border, so that touching ones keep theirs.

    Args:
      image: RGB.
      masks: COCO run-length encodings at the image's size.
      boxes: XYXY pixels; drawn too if given.
      scores: written at the upper left of each instance if given.
      colors: each instance's entry of the palette; by default neighbours differ.
      scale: by which whole factor the picture is larger than the image; None chooses.
      thickness: of the outlines, in pixels of the picture; None chooses 1 to 3.

    Returns:
      The picture, `scale` times as large as the image.

    Raises:
      UserError: lists the arguments that do not fit the image or each other.
    """
    _check(image, masks, boxes=boxes, scores=scores, colors=colors)
    height, width = image.shape[:2]
    crops = crops_of(masks)
    scale = scale or _readable_scale((height, width), crops.rectangles)
    thickness = thickness or min(scale, 3)
    large = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    canvas = np.array(large)
    colors = neighbour_colors(crops.rectangles) if colors is None else colors
    hues = PALETTE[np.asarray(colors, int) % len(PALETTE)]
    corners = crops.rectangles[:, 1::-1] * scale
    for n in reversed(range(len(masks))):  # The first, mostly the best, end on top.
        (left, top), line = corners[n], outline(_enlarge(crops.pixels(n), scale), thickness)
        canvas[top:, left:][: line.shape[0], : line.shape[1]][line] = hues[n]
    picture = Image.fromarray(canvas)
    if boxes is not None:
        _draw_boxes(picture, np.asarray(boxes) * scale, hues)
    if scores is not None:
        _write_scores(picture, corners.tolist(), scores, hues)
    return np.array(picture)


def side_by_side(
    image: UInt8[np.ndarray, "H W 3"],
    ground_truth: Sequence[RLE],
    result: Result,
    *,
    titles: tuple[str, str] = ("ground truth", "prediction"),
    noun: str = "nuclei",
    min_score: float = 0.5,
    ap50: float | None = None,
    scale: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Ground truth beside prediction, with captions; an instance that was found has one colour in both.

    Args:
      image: RGB.
      ground_truth: COCO run-length encodings at the image's size.
      result: the detections of this image.
      titles: of the two panels.
      noun: what the captions call the instances.
      min_score: detections below are not drawn.
      ap50: written into the caption if given.
      scale: as for `draw_overlay`.

    Raises:
      UserError: lists the masks that do not have the image's size.
    """
    shown = np.flatnonzero(result.scores >= min_score)
    masks = [result.masks[d] for d in shown]
    truth, found = crops_of(ground_truth).rectangles, result.crops.rectangles[shown]
    scale = scale or _readable_scale(image.shape[:2], np.concatenate([truth, found]))
    colors = neighbour_colors(truth)
    matching = _matching_colors(ground_truth, colors, masks, neighbour_colors(found))
    left = draw_overlay(image, ground_truth, colors=colors, scale=scale)
    right = draw_overlay(image, masks, colors=matching, scale=scale)
    captions = [f"{titles[0]}: {len(ground_truth)} {noun}", f"{titles[1]}: {len(masks)} {noun}"]
    if ap50 is not None:
        captions[1] += f"   AP50 {ap50:.3f}"
    panels = [_captioned(panel, text) for panel, text in zip((left, right), captions, strict=True)]
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def outline(mask: Bool[np.ndarray, "h w"], thickness: int = 1) -> Bool[np.ndarray, "h w"]:
    """The mask's pixels at most `thickness` steps (up, down, left, right) from its outside."""
    inner = mask
    for _ in range(thickness):
        framed = np.pad(inner, 1)
        inner = inner & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return mask & ~inner


def _readable_scale(size: tuple[int, int], rectangles: Int[np.ndarray, "N 4"]) -> int:
    side = max(size)
    wanted = max(1, round(_SMALL_SIDE / side))
    if len(rectangles) and np.median(rectangles[:, 2:] - rectangles[:, :2]) < _SMALL_OBJECT:
        wanted = max(2, wanted)
    return max(1, min(wanted, _MAX_SCALE, _MAX_SIDE // side))


def _matching_colors(
    ground_truth: Sequence[RLE], colors: Sequence[int], masks: Sequence[RLE], others: Sequence[int]
) -> list[int]:
    """The colour of the ground truth that a mask overlaps most, at IoU 0.5 or more; else its other one."""
    matching = list(others)
    if ground_truth and masks:
        iou = rle.iou(list(masks), list(ground_truth), [0] * len(ground_truth))
        for d in np.flatnonzero(iou.max(axis=1) >= 0.5):
            matching[d] = colors[iou[d].argmax()]
    return matching


def _draw_boxes(
    picture: Image.Image, boxes: Float[np.ndarray, "D 4"], hues: UInt8[np.ndarray, "D 3"]
) -> None:
    pen = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), hue in zip(boxes.tolist(), hues.tolist(), strict=True):
        # Pillow draws the last row and column too; our boxes end before them.
        pen.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=tuple(hue))


def _write_scores(
    picture: Image.Image,
    corners: Sequence[tuple[int, int]],
    scores: Float[np.ndarray, "D"],
    hues: UInt8[np.ndarray, "D 3"],
) -> None:
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    for (x, y), score, hue in zip(corners, scores, hues.tolist(), strict=True):
        # Above the instance, or inside it where the picture ends.
        pen.text((x, max(y, 12)), f"{score:.2f}", fill=tuple(hue), font=font, anchor="ld")


def _enlarge(mask: Bool[np.ndarray, "h w"], scale: int) -> Bool[np.ndarray, "sh sw"]:
    """A smooth larger mask: interpolated, then cut at one half, so that outlines show no stairs."""
    if scale == 1 or not mask.size:
        return mask
    framed = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255)
    large = framed.resize((framed.width * scale, framed.height * scale), Image.Resampling.BILINEAR)
    return np.asarray(large)[scale:-scale, scale:-scale] >= 128


def _captioned(panel: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "h+bar w 3"]:
    """The panel below a white bar with the text, which shrinks until it fits."""
    width = panel.shape[1]
    size = max(12, min(28, width // 28))
    font = ImageFont.load_default(size)
    while size > 6 and font.getlength(text) > width - 8:
        size -= 1
        font = ImageFont.load_default(size)
    bar = Image.new("RGB", (width, 2 * size), "white")
    ImageDraw.Draw(bar).text((4, size), text, fill="black", font=font, anchor="lm")
    return np.concatenate([np.asarray(bar), panel])


def _check(image: np.ndarray, masks: Sequence[RLE], **per_mask: Any) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"the image must be RGB uint8 (H, W, 3), found {image.dtype} {image.shape}")
    faults = [
        f"{name}: {len(values)} for {len(masks)} masks"
        for name, values in per_mask.items()
        if values is not None and len(values) != len(masks)
    ]
    size = image.shape[:2]
    odd = [n for n, mask in enumerate(masks) if tuple(mask["size"]) != size]
    if odd:
        faults.append(
            f"masks {odd} are not of the image's size {size}; mask {odd[0]}: {masks[odd[0]]['size']}"
        )
    if faults:
        raise UserError("this overlay cannot be drawn:\n  " + "\n  ".join(faults))
