"""Evaluates a trained Mask R-CNN: prints its metrics, writes them, COCO results and pictures.

python evaluate.py --config configs/NAME.py (--workdir DIR | --bundle DIR)
    [--split train|validation|test] [--out DIR] [--max_dets 100,2000] [--config.FIELD=VALUE ...]
"""

from pathlib import Path

from absl import flags

from maskrcnn_jax import doors

_CONFIG = doors.config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "A run of train.py: its bundle, or its latest checkpoint.")
_BUNDLE = flags.DEFINE_string("bundle", None, "A bundle, in place of --workdir.")
_SPLIT = flags.DEFINE_enum(
    "split",
    "validation",
    ["train", "validation", "test"],
    "test has no ground truth: answer.json is written.",
)
_OUT = flags.DEFINE_string("out", None, "Where results are written; a folder beside the bundle if not given.")
_MAX_DETS = flags.DEFINE_list(
    "max_dets", ["100", "2000"], "How many detections an image may have; AP is reported for each."
)
flags.mark_flag_as_required("config")
flags.mark_flags_as_mutual_exclusive(["workdir", "bundle"], required=True)
flags.register_validator(
    "max_dets",
    lambda limits: all(limit.isdecimal() and int(limit) > 0 for limit in limits),
    "give positive numbers, as 100,2000",
)


def main() -> None:
    from rich.console import Console

    from maskrcnn_jax.data.datasets import class_names, load_split
    from maskrcnn_jax.evaluation.evaluator import nuclei_table, table
    from maskrcnn_jax.inference.predictor import Predictor
    from maskrcnn_jax.inference.report import write_evaluation, write_predictions
    from maskrcnn_jax.training.display import counter
    from maskrcnn_jax.training.trained import load_trained

    config, split, console = _CONFIG.value, _SPLIT.value, Console()
    folder = Path(_BUNDLE.value) if _BUNDLE.value else Path(_WORKDIR.value, "bundle")
    out = Path(_OUT.value) if _OUT.value else _default_out(folder, split)
    model_config, params, source = load_trained(config, folder)
    with counter(console, f"reading the {split} images") as progress:
        records = load_split(config.data, split, progress=progress)
    limits = [int(limit) for limit in _MAX_DETS.value]
    predictor = Predictor(model_config, params)
    with counter(console, f"evaluating {source}") as progress:
        if split == "test":
            write_predictions(predictor, records, out, progress=progress)
        else:
            classes = class_names(config.data, model_config.num_classes)
            evaluation = write_evaluation(
                predictor, records, out, categories=classes, max_dets=limits, progress=progress
            )
    if split != "test":
        console.print(table(evaluation.metrics), nuclei_table(evaluation.metrics))
    console.print(
        f"{source}, {len(records)} {split} images: results are in {out}", highlight=False, soft_wrap=True
    )


def _default_out(folder: Path, split: str) -> Path:
    """Beside the bundle, where training puts the evaluation of the validation split too."""
    return folder.parent / ("evaluation" if split == "validation" else f"evaluation_{split}")


if __name__ == "__main__":
    doors.run(main)
