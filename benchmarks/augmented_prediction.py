"""What test-time augmentation gains: flips, and flips with quarter turns, on images with ground truth.

    python benchmarks/augmented_prediction.py --bundle DIR --images ../shared/data/vrdl/train [--count 4]

Predicts the last images, by name, of a data set of mask folders. Seconds are for an image, without the
compilation.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.evaluation.evaluator import evaluate
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.prediction.test_time import Augmented

METRICS = ("segm/AP50@2000", "segm/AP@2000", "segm/AP75@2000", "nuclei/AJI", "nuclei/PQ", "nuclei/F1@0.5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a data set of mask folders")
    parser.add_argument("--count", type=int, default=4)
    arguments = parser.parse_args()
    records = read_records(list_entries("mask_folder", arguments.images).entries[-arguments.count :])
    predictor = Predictor(*load_bundle(arguments.bundle))
    predictor(records[0].image)
    print("views", *METRICS, "seconds", sep="  ", flush=True)
    for predict in (predictor, Augmented(predictor), Augmented(predictor, turns=True)):
        start = time.perf_counter()
        metrics = evaluate(predict, records).metrics
        seconds = (time.perf_counter() - start) / len(records)
        views = len(getattr(predict, "views", [None]))
        print(
            f"{views:5}",
            *(f"{metrics[name]:.3f}" for name in METRICS),
            f"{seconds:.1f}",
            sep="  ",
            flush=True,
        )


if __name__ == "__main__":
    main()
