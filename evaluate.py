"""Evaluates a trained Mask R-CNN, or what any other tool has found: metrics, tables, curves and pictures.

python evaluate.py --config configs/NAME.py (--workdir DIR | --bundle DIR | --results FILE_OR_FOLDER)
    [--split train|validation|test] [--out DIR] [--max_dets 100,2000] [--min_score SCORE]
    [--config.FIELD=VALUE ...]

--results takes a COCO results JSON, or a folder with a label image for each image of the data set that the
config describes, called as the image or as StarDist and Cellpose call it: X.tif, X_masks.tif, X_cp_masks.png.
All images of DATA are scored with --config.data.path= --config.data.validation_path=DATA.
"""

from pathlib import Path

from absl import flags

from maskrcnn_jax.commands import doors

_CONFIG = doors.config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "A run of train.py: its bundle, or its latest checkpoint.")
_BUNDLE = flags.DEFINE_string("bundle", None, "A bundle, in place of --workdir.")
_RESULTS = flags.DEFINE_string(
    "results", None, "What a tool has found: COCO results, or a folder of label images."
)
_SPLIT = flags.DEFINE_enum(
    "split",
    "validation",
    ["train", "validation", "test"],
    "test has no ground truth: answer.json is written.",
)
_OUT = flags.DEFINE_string("out", None, "Where results are written; beside what is evaluated if not given.")
_MAX_DETS = flags.DEFINE_list(
    "max_dets", ["100", "2000"], "How many detections an image may have; AP is reported for each."
)
_MIN_SCORE = flags.DEFINE_float(
    "min_score",
    None,
    "By default model.detection.min_score of the config. Detections below count neither in AJI, PQ, Dice and "
    "F1, which know no scores, nor in the pictures; "
    "curves.png shows the best choice.",
    lower_bound=0,
)
flags.mark_flag_as_required("config")
flags.mark_flags_as_mutual_exclusive(["workdir", "bundle", "results"], required=True)
flags.register_multi_flags_validator(
    ["results", "split"],
    lambda values: not (values["results"] and values["split"] == "test"),
    "the test split has no ground truth to score results with",
)
flags.register_validator(
    "max_dets",
    lambda limits: all(limit.isdecimal() and int(limit) > 0 for limit in limits),
    "give positive numbers, as 100,2000",
)


def main() -> None:
    if _RESULTS.value:
        score_results(Path(_RESULTS.value))
    else:
        evaluate_model(Path(_BUNDLE.value) if _BUNDLE.value else Path(_WORKDIR.value, "bundle"))


def evaluate_model(bundle: Path) -> None:
    from rich.console import Console

    from maskrcnn_jax.data.datasets import categories
    from maskrcnn_jax.outputs.report import write_evaluation, write_predictions
    from maskrcnn_jax.prediction.predictor import Predictor
    from maskrcnn_jax.training.display import counter
    from maskrcnn_jax.training.trained import load_trained

    doors.keep_tensorflow_off_gpus()
    config, split, console = _experiment(), _SPLIT.value, Console()
    # Training puts the evaluation of the validation split there, too.
    name = "evaluation" if split == "validation" else f"evaluation_{split}"
    out = Path(_OUT.value) if _OUT.value else bundle.parent / name
    model_config, params, source = load_trained(config, bundle)
    records = _records(console)
    predictor = Predictor(model_config, params)
    min_score = _min_score(model_config.detection)
    with counter(console, f"evaluating {source}") as progress:
        if split == "test":
            write_predictions(predictor, records, out, min_score=min_score, progress=progress)
        else:
            evaluation = write_evaluation(
                predictor,
                records,
                out,
                categories=categories(config.data, split, model_config.num_classes),
                max_dets=[int(limit) for limit in _MAX_DETS.value],
                min_score=min_score,
                progress=progress,
            )
    if split != "test":
        _show(console, evaluation)
    _say(console, f"{source}, {len(records)} {split} images: results are in {out}")


def score_results(source: Path) -> None:
    """Needs neither a model nor JAX."""
    from rich.console import Console

    from maskrcnn_jax.data.datasets import categories
    from maskrcnn_jax.evaluation.coco import to_coco, without_classes
    from maskrcnn_jax.evaluation.evaluator import score
    from maskrcnn_jax.evaluation.foreign_results import read_results
    from maskrcnn_jax.outputs.report import write_report

    config, console = _experiment(), Console()
    records = _records(console)
    ground_truth = to_coco(records, categories(config.data, _SPLIT.value, config.model.num_classes))
    found = read_results(source, ground_truth)
    evaluation = score(
        ground_truth if found.have_scores else without_classes(ground_truth),
        found.rows,
        max_dets=[int(limit) for limit in _MAX_DETS.value],
        min_score=_min_score(config.model.detection),
        have_scores=found.have_scores,
    )
    out = Path(_OUT.value) if _OUT.value else source.with_name(f"{source.stem}_evaluation")
    write_report(evaluation, records, out)
    _show(console, evaluation)
    for note in found.notes:
        _say(console, f"note: {note}")
    _say(console, f"{source}, {len(records)} {_SPLIT.value} images: results are in {out}")


def _min_score(detection) -> float:
    return detection.min_score if _MIN_SCORE.value is None else _MIN_SCORE.value


def _experiment():
    from maskrcnn_jax.experiment import Experiment

    return Experiment.from_dict(_CONFIG.value.to_dict())


def _records(console):
    from maskrcnn_jax.data.datasets import load_split
    from maskrcnn_jax.training.display import counter

    with counter(console, f"reading the {_SPLIT.value} images") as progress:
        return load_split(_experiment().data, _SPLIT.value, progress=progress)


def _show(console, evaluation) -> None:
    from maskrcnn_jax.evaluation.tables import images_table, nuclei_table, table

    if evaluation.curves:
        console.print(table(evaluation.metrics))
    console.print(nuclei_table(evaluation.metrics), images_table(evaluation))
    if evaluation.curves and evaluation.curves.truths:
        score, f1 = evaluation.curves.best_score(0.5)
        _say(console, f"F1 at IoU 0.5 is highest, {f1:.3f}, with --min_score {score:.2f}")


def _say(console, message: str) -> None:
    console.print(message, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    doors.run(main)
