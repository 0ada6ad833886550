"""The curves of an evaluation as one picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # of itself it draws with Agg, without a screen

from maskrcnn_jax.evaluation.curves import Curves, best_from_here_on, f1_of

_COLORS = ("#2f4b9e", "#d9822b", "#3d8f6a")  # of the IoU thresholds
_RIGHT, _WRONG = "#2f4b9e", "#c2503d"
_INK = "#444444"
_DOT = {"marker": "o", "markersize": 8, "markeredgecolor": "white", "linestyle": "none", "clip_on": False}
_BINS = np.linspace(0, 1, 41)


def draw_curves(curves: Curves, *, min_score: float = 0.5, title: str = "") -> Figure:
    """Precision by recall, F1 by the least score that counts, and scores of right and wrong detections.

    Precision is drawn as AP sees it: the best that is reached at this recall or beyond.

    Args:
      curves: the detections.
      min_score: marked in all panels.
      title: above the picture.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for threshold, color in zip(curves.thresholds, _COLORS, strict=False):
        _draw_precision(left, curves, threshold, min_score, color)
        _draw_f1(middle, curves, threshold, color)
    left.plot([], [], color=_INK, label=f"score ≥ {min_score:g}", **_DOT | {"clip_on": True})
    _draw_scores(right, curves)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="precision by recall")
    middle.set(xlabel="least score that counts", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
    middle.set_title("F1 by the least score that counts")
    right.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    right.set_title(f"right and wrong detections at IoU {curves.thresholds[0]:g}")
    for axes, place in ((left, "lower left"), (middle, "lower left"), (right, "upper left")):
        if axes is not left:
            axes.axvline(min_score, color=_INK, linewidth=1, linestyle=":")
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc=place)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    return figure


def _draw_precision(axes: Axes, curves: Curves, threshold: float, min_score: float, color: str) -> None:
    scores, precision, recall = curves.at_scores(threshold)
    best = best_from_here_on(precision)
    corners = np.append(0, recall), np.append(best[:1], best) if len(best) else np.zeros(1)
    label = f"IoU {threshold:g}: AP {curves.average_precision(threshold):.3f}"
    axes.step(*corners, where="pre", color=color, linewidth=1.8, label=label)
    axes.fill_between(*corners, step="pre", color=color, alpha=0.08, linewidth=0)
    kept = np.flatnonzero(scores >= min_score)
    if len(kept):
        point = recall[kept[-1]], best[kept[-1]]
        axes.plot(*point, color=color, **_DOT)


def _draw_f1(axes: Axes, curves: Curves, threshold: float, color: str) -> None:
    scores, precision, recall = curves.at_scores(threshold)
    f1, best = f1_of(precision, recall), curves.best_score(threshold)
    ends = np.append(scores, 0), np.append(f1, f1[-1:] if len(f1) else 0)
    axes.step(*ends, where="post", color=color, linewidth=1.8)
    label = f"IoU {threshold:g}: best {best[1]:.3f}, from {best[0]:.2f} on"
    axes.plot(*best, color=color, label=label, **_DOT)


def _draw_scores(axes: Axes, curves: Curves) -> None:
    counts, right = curves.counts[0], curves.right[0]
    groups = {"right": curves.scores[counts & right], "wrong": curves.scores[counts & ~right]}
    for (name, scores), color in zip(groups.items(), (_RIGHT, _WRONG), strict=True):
        axes.hist(scores, bins=_BINS, color=color, alpha=0.45, label=f"{name}: {len(scores)}")
        axes.hist(scores, bins=_BINS, color=color, histtype="step", linewidth=1.3)
