"""A survey as text and as histograms."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # of itself it draws with Agg, without a screen

from maskrcnn_jax.data.check import Survey

_LISTED = 8  # names or sizes in one line before it says "and so on"
_EDGES = (0, 8, 16, 32, 64, 128, 256, np.inf)  # box sides in pixels


def fault_lines(found: Survey) -> list[str]:
    """Every fault and every doubt, each with its place and its remedy."""
    lines = []
    for title, faults in (
        ("faults: reading stops until they are put right", found.faults),
        ("doubts: read as they are, but probably not meant", found.doubts),
    ):
        if faults:
            lines += [f"{len(faults)} {title}", *(f"  {fault}" for fault in faults), ""]
    return lines


def summary_lines(found: Survey, anchors: str) -> list[str]:
    """The numbers of a data set.

    Args:
      found: what was counted.
      anchors: what to call the anchors that boxes were compared with.
    """
    images, counts = len(found.instances), found.instances
    lines = [f"images       {images} readable"]
    if not images:
        return lines
    sizes = [f"{h} x {w} ({n})" for (h, w), n in found.sizes.most_common()]
    lines.append(f"sizes        {_listed(sizes)} (height x width, images)")
    spread = f"{min(counts)} / {np.median(counts):g} / {max(counts)}"
    lines.append(f"instances    {sum(counts)}; an image has {spread} (min / median / max)")
    lines.append(f"overlaps     {found.overlapping} instances share pixels with another")
    near = f"; {found.near_duplicates} more are nearly so" if found.near_duplicates else ""
    lines.append(f"duplicates   {found.duplicates}{near}")
    names = f": {_listed(found.unlabelled)}" if found.unlabelled else ""
    lines.append(f"unlabelled   {len(found.unlabelled)} images{names}")
    return lines + _size_lines(found, anchors) if len(found.boxes) else lines


def write_histograms(found: Survey, path: Path, kind: str) -> None:
    """Draws instances per image, box sides and best anchor IoU into one file: `png`, `pdf` or `svg`."""
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = (
        ("instances of an image", np.array(found.instances), "images"),
        ("box side (square root of its area) in pixels", _sides(found), "instances"),
        ("IoU with the best anchor", found.anchor_iou, "instances"),
    )
    for axes, (title, values, unit) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.hist(values, bins=40, color="#4c5a9e")
        axes.set(xlabel=title, ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(0.5, color="#c2503d", linewidth=1)
    figure.savefig(path, dpi=120, format=kind)


def _size_lines(found: Survey, anchors: str) -> list[str]:
    sides, missed = _sides(found), found.anchor_iou < 0.5
    low, middle, high = np.quantile(sides, (0.05, 0.5, 0.95))
    lines = [
        f"box sides    {low:.1f} / {middle:.1f} / {high:.1f} px (5 % / median / 95 %; square roots of areas)",
        f"anchors      {missed.mean():.1%} of the boxes have no anchor with IoU 0.5 or more ({anchors})",
    ]
    for start, end in pairwise(_EDGES):
        here = (sides >= start) & (sides < end)
        if here.any():
            label = f"{start} to {end:g} px" if np.isfinite(end) else f"from {start} px"
            lines.append(
                f"  {label:<14} {here.mean():6.1%} of the boxes, {missed[here].mean():6.1%} of them without"
            )
    return lines


def _sides(found: Survey) -> np.ndarray:
    return np.sqrt((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1))


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
