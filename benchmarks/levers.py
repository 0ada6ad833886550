"""What can be chosen about a trained model's predictions, each choice measured on validation images.

    python benchmarks/levers.py --bundle DIR --data FOLDER [--last 4] [--offset X Y] [--every 3] CHOICE ...

FOLDER is a data set of mask folders or label images, of which --last takes the last by name. A CHOICE is a
list such as zoom=1.3,nms=0.3,containment=0.7,mask_weight=2,flips=1. For each choice one line is printed
for every least score: the means over the images of AJI, PQ and F1, and the AP that no score changes.
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.evaluation.evaluator import evaluate
from maskrcnn_jax.evaluation.nuclei import averages, tally_results
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.prediction.test_time import Augmented

METRICS = ("nuclei/AJI", "nuclei/PQ", "nuclei/F1@0.5", "nuclei/F1@0.7", "nuclei/count_error")
SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--last", type=int, default=0, help="images by name; 0 for all")
    parser.add_argument("--every", type=int, default=1, help="of so many images one")
    parser.add_argument(
        "--offset", type=float, nargs=2, default=(0.0, 0.0), help="of this set's labels, in pixels"
    )
    parser.add_argument("choices", nargs="+", type=_choice)
    arguments = parser.parse_args()
    form = "labels" if (arguments.data / "masks").is_dir() else "mask_folder"
    entries = list_entries(form, arguments.data).entries[-arguments.last :: arguments.every]
    records = read_records(entries)
    config, params = load_bundle(arguments.bundle)
    print("choice", "least score", "AP50@2000", "AP@2000", *METRICS, "seconds an image", sep="  ", flush=True)
    for choice in arguments.choices:
        predict = _predictor(config, params, choice, tuple(arguments.offset))
        start = time.process_time()
        evaluation = evaluate(predict, records)
        seconds = (time.process_time() - start) / len(records)
        aps = [evaluation.metrics[f"segm/{name}@2000"] for name in ("AP50", "AP")]
        for score in SCORES:
            tallies = tally_results(evaluation.ground_truth, evaluation.results, min_score=score)
            metrics = averages(list(tallies.values()))
            values = [*aps, *(metrics[name] for name in METRICS)]
            words = ",".join(f"{name}={value:g}" for name, value in choice.items())
            print(
                words or "as it is",
                score,
                *(f"{v:.3f}" for v in values),
                f"{seconds:.1f}",
                sep="  ",
                flush=True,
            )


def _choice(text: str) -> dict[str, float]:
    pairs = (part.split("=") for part in text.split(",") if "=" in part)
    return {name: float(value) for name, value in pairs}


def _predictor(config, params, choice, offset):
    detection = dataclasses.replace(
        config.detection,
        offset=offset,
        nms_iou=choice.get("nms", config.detection.nms_iou),
        score_threshold=choice.get("score_threshold", config.detection.score_threshold),
        containment=choice.get("containment", config.detection.containment),
        mask_weight=choice.get("mask_weight", config.detection.mask_weight),
        mask_threshold=choice.get("mask_threshold", config.detection.mask_threshold),
    )
    config = dataclasses.replace(config, detection=detection, test_zoom=choice.get("zoom", config.test_zoom))
    predictor = Predictor(config, params)
    return Augmented(predictor) if choice.get("flips") else predictor


if __name__ == "__main__":
    main()
