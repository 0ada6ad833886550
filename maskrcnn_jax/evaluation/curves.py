"""What a score means: precision and recall by score, and the scores of right and wrong detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maskrcnn_jax.evaluation.matching import Kind, Row, match


@dataclass(frozen=True)
class Curves:
    """Every detection of an evaluation, by falling score, all images and classes as one.

    Attributes:
      thresholds: of the IoU from which a detection is right.
      scores: of the detections.
      right: for each threshold, whether a detection is matched to a ground truth.
      counts: for each threshold, False where a detection is neither right nor wrong: it lies in a crowd.
      truths: how many objects there are to find.
    """

    thresholds: tuple[float, ...]
    scores: Float[np.ndarray, "D"]
    right: Bool[np.ndarray, "T D"]
    counts: Bool[np.ndarray, "T D"]
    truths: int

    def at_scores(
        self, threshold: float
    ) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
        """What is left if detections below a score are dropped.

        Args:
          threshold: of the IoU, one of `thresholds`.

        Returns:
          The different scores, falling; precision and recall of all detections that score at least as
          much. Empty where there is nothing to find.
        """
        t = self.thresholds.index(threshold)
        counts = self.counts[t]
        scores, right = self.scores[counts], self.right[t][counts]
        if not len(scores) or not self.truths:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        last = np.append(scores[1:] != scores[:-1], True)  # of those with equal scores, all or none is kept
        found = np.cumsum(right)[last]
        return scores[last], found / (np.flatnonzero(last) + 1), found / self.truths

    def average_precision(self, threshold: float) -> float:
        """As COCO has it, of all classes as one; NaN where there is nothing to find."""
        if not self.truths:
            return float("nan")
        _, precision, recall = self.at_scores(threshold)
        envelope = np.append(best_from_here_on(precision), 0)  # 0 where a recall is never reached
        # COCO's own recalls, which differ from n / 100 in their last bits.
        return float(envelope[np.searchsorted(recall, np.linspace(0, 1, 101))].mean())

    def best_score(self, threshold: float) -> tuple[float, float]:
        """The score from which on F1 is highest, and that F1; NaN where there is nothing to find."""
        scores, precision, recall = self.at_scores(threshold)
        if not len(scores):
            return float("nan"), float("nan")
        f1 = f1_of(precision, recall)
        best = int(f1.argmax())
        return float(scores[best]), float(f1[best])


def curves(
    ground_truth: dict[str, Any],
    results: Sequence[Row],
    *,
    kind: Kind = "segm",
    limit: int = 2000,
    thresholds: Sequence[float] = (0.5, 0.75),
) -> Curves:
    """Matches detections to ground truth as COCO does: best score first, each object once.

    Args:
      ground_truth: a COCO data set.
      results: COCO result rows.
      kind: whether boxes or masks are compared.
      limit: how many detections of an image and class count.
      thresholds: of the IoU.

    Raises:
      UserError: as `average_precision`.
    """
    evaluation = match(
        ground_truth, results, kind=kind, max_dets=[limit], thresholds=thresholds, by_area=False
    )
    images = [image for image in evaluation.evalImgs if image is not None]
    scores = np.concatenate([np.zeros(0), *(image["dtScores"] for image in images)])
    order = np.argsort(-scores, kind="stable")

    def joined(field: str) -> Bool[np.ndarray, "T D"]:
        parts = [np.reshape(image[field], (len(thresholds), -1)) for image in images]
        return np.concatenate([np.zeros((len(thresholds), 0), bool), *parts], axis=1)[:, order].astype(bool)

    truths = sum(int((~image["gtIgnore"]).sum()) for image in images)
    return Curves(tuple(thresholds), scores[order], joined("dtMatches"), ~joined("dtIgnore"), truths)


def best_from_here_on(precision: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
    """The best precision at this recall or beyond, of which AP is the mean."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def f1_of(precision: Float[np.ndarray, "S"], recall: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
    """The harmonic mean; 0 where both are."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
