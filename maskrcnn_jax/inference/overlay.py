"""Pictures for people: instances as thin outlines on their image, and ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle

from maskrcnn_jax.rle import crop_of_rle
from maskrcnn_jax.structures import Result

# Bright, far from each other and from the pinks and purples of stained tissue.
PALETTE = np.array(
    [
        (255, 230, 0),
        (0, 240, 255),
        (70, 255, 70),
        (255, 140, 0),
        (120, 185, 255),
        (255, 105, 95),
        (170, 255, 205),
    ],
    np.uint8,
)
_TARGET_SIDE = 1000  # Small images are enlarged to about this many pixels,
_MAX_SCALE = 4  # but not beyond this factor.


def draw_overlay(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[dict[str, Any]],
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
      ValueError: lists the arguments that do not fit the image or each other.
    """
    _check(image, masks, boxes=boxes, scores=scores, colors=colors)
    height, width = image.shape[:2]
    scale = scale or max(1, min(_MAX_SCALE, round(_TARGET_SIDE / max(height, width))))
    thickness = thickness or min(scale, 3)
    large = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    canvas = np.array(large)
    colors = _neighbour_colors(masks) if colors is None else colors
    hues = PALETTE[np.asarray(colors, int) % len(PALETTE)]
    corners = []
    for mask, hue in zip(masks, hues, strict=True):
        crop, top, left = crop_of_rle(mask)
        corners.append((left * scale, top * scale))
        line = _outline(_enlarge(crop, scale), thickness)
        canvas[top * scale :, left * scale :][: line.shape[0], : line.shape[1]][line] = hue
    picture = Image.fromarray(canvas)
    if boxes is not None:
        _draw_boxes(picture, np.asarray(boxes) * scale, hues)
    if scores is not None:
        _write_scores(picture, corners, scores, hues)
    return np.array(picture)


def side_by_side(
    image: UInt8[np.ndarray, "H W 3"],
    ground_truth: Sequence[dict[str, Any]],
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
      ValueError: lists the masks that do not have the image's size.
    """
    shown = np.flatnonzero(result.scores >= min_score)
    masks = [result.masks[d] for d in shown]
    colors = _neighbour_colors(ground_truth)
    left = draw_overlay(image, ground_truth, colors=colors, scale=scale)
    right = draw_overlay(image, masks, colors=_matching_colors(ground_truth, colors, masks), scale=scale)
    captions = [f"{titles[0]}: {len(ground_truth)} {noun}", f"{titles[1]}: {len(masks)} {noun}"]
    if ap50 is not None:
        captions[1] += f"   AP50 {ap50:.3f}"
    panels = [_captioned(panel, text) for panel, text in zip((left, right), captions, strict=True)]
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _neighbour_colors(masks: Sequence[dict[str, Any]]) -> list[int]:
    """In turn, but skipping the colours of earlier instances nearby as long as there are others."""
    if not masks:
        return []
    boxes = rle.toBbox(list(masks)) + np.array([-1, -1, 2, 2])  # so that those which touch overlap
    near = rle.iou(boxes, boxes, [0] * len(boxes)) > 0
    colors: list[int] = []
    for n in range(len(masks)):
        taken = {colors[m] for m in np.flatnonzero(near[n, :n])}
        turns = ((n + step) % len(PALETTE) for step in range(len(PALETTE)))
        colors.append(next((color for color in turns if color not in taken), n % len(PALETTE)))
    return colors


def _matching_colors(
    ground_truth: Sequence[dict[str, Any]], colors: Sequence[int], masks: Sequence[dict[str, Any]]
) -> list[int]:
    """The colour of the ground truth that a mask overlaps most, at IoU 0.5 or more; else its own."""
    matching = _neighbour_colors(masks)
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


def _outline(mask: Bool[np.ndarray, "h w"], thickness: int) -> Bool[np.ndarray, "h w"]:
    """The mask's pixels at most `thickness` steps (up, down, left, right) from its outside."""
    inner = mask
    for _ in range(thickness):
        framed = np.pad(inner, 1)
        inner = inner & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return mask & ~inner


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


def _check(image: np.ndarray, masks: Sequence[dict[str, Any]], **per_mask: Any) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be RGB uint8 (H, W, 3), found {image.dtype} {image.shape}")
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
        raise ValueError("this overlay cannot be drawn:\n  " + "\n  ".join(faults))
