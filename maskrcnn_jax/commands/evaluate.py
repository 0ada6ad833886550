"""Evaluates a trained Mask R-CNN, or what any other tool has found: metrics, tables, curves and pictures.

maskrcnn-jax evaluate --config NAME_OR_FILE (--workdir DIR | --bundle DIR | --results FILE_OR_FOLDER)
    [--split train|validation|test] [--out DIR] [--max_dets 100,2000] [--min_score SCORE]
    [--config.FIELD=VALUE ...]

--results takes a COCO results JSON, or a folder with a label image for each image of the data set that the
config describes, called as the image or as StarDist and Cellpose call it: X.tif, X_masks.tif, X_cp_masks.png.
All images of DATA are scored with --config.data.path= --config.data.validation_path=DATA.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from maskrcnn_jax.commands import doors


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """The command's flags."""
    doors.define_config(values, argv)
    there = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "A run of train.py: its bundle, or its latest checkpoint.", **there)
    flags.DEFINE_string("bundle", None, "A bundle, in place of --workdir.", **there)
    flags.DEFINE_string(
        "results", None, "What a tool has found: COCO results, or a folder of label images.", **there
    )
    flags.DEFINE_enum(
        "split",
        "validation",
        ["train", "validation", "test"],
        "test has no ground truth: answer.json is written.",
        **there,
    )
    flags.DEFINE_string(
        "out", None, "Where results are written; beside what is evaluated if not given.", **there
    )
    flags.DEFINE_list(
        "max_dets",
        ["100", "2000"],
        "How many detections an image may have; AP is reported for each.",
        **there,
    )
    flags.DEFINE_float(
        "min_score",
        None,
        "By default model.detection.min_score of the config. Detections below count neither in AJI, PQ, "
        "Dice and F1, which know no scores, nor in the pictures; "
        "curves.png shows the best choice.",
        lower_bound=0,
        **there,
    )
    _define_rules(values)


def _define_rules(values: flags.FlagValues) -> None:
    """Which flags go together."""
    flags.mark_flag_as_required("config", flag_values=values)
    flags.mark_flags_as_mutual_exclusive(["workdir", "bundle", "results"], required=True, flag_values=values)
    flags.register_multi_flags_validator(
        ["results", "split"],
        lambda given: not (given["results"] and given["split"] == "test"),
        "the test split has no ground truth to score results with",
        flag_values=values,
    )
    flags.register_validator(
        "max_dets",
        lambda limits: all(limit.isdecimal() and int(limit) > 0 for limit in limits),
        "give positive numbers, as 100,2000",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Evaluates as the flags say."""
    if values.results:
        score_results(values, Path(values.results))
    else:
        evaluate_model(values, Path(values.bundle) if values.bundle else Path(values.workdir, "bundle"))


def evaluate_model(values: flags.FlagValues, bundle: Path) -> None:
    from rich.console import Console

    from maskrcnn_jax.data.datasets import categories
    from maskrcnn_jax.outputs.report import write_evaluation, write_predictions
    from maskrcnn_jax.prediction.predictor import Predictor
    from maskrcnn_jax.training.display import counter
    from maskrcnn_jax.training.trained import load_trained

    doors.keep_tensorflow_off_gpus()
    config, split, console = _experiment(values), values.split, Console()
    # Training puts the evaluation of the validation split there, too.
    name = "evaluation" if split == "validation" else f"evaluation_{split}"
    out = Path(values.out) if values.out else bundle.parent / name
    model_config, params, source = load_trained(config, bundle)
    records = _records(values, console)
    predictor, min_score = Predictor(model_config, params), _min_score(values, model_config.detection)
    with counter(console, f"evaluating {source}") as progress:
        if split == "test":
            write_predictions(
                predictor,
                records,
                out,
                min_score=min_score,
                progress=progress,
            )
        else:
            evaluation = write_evaluation(
                predictor,
                records,
                out,
                categories=categories(config.data, split, model_config.num_classes),
                max_dets=[int(limit) for limit in values.max_dets],
                min_score=min_score,
                progress=progress,
            )
    if split != "test":
        _show(console, evaluation)
    _say(console, f"{source}, {len(records)} {split} images: results are in {out}")


def score_results(values: flags.FlagValues, source: Path) -> None:
    """Needs neither a model nor JAX."""
    from rich.console import Console

    from maskrcnn_jax.data.datasets import categories
    from maskrcnn_jax.evaluation.coco import to_coco, without_classes
    from maskrcnn_jax.evaluation.evaluator import score
    from maskrcnn_jax.evaluation.foreign_results import read_results
    from maskrcnn_jax.outputs.report import write_report

    config, console = _experiment(values), Console()
    records = _records(values, console)
    ground_truth = to_coco(records, categories(config.data, values.split, config.model.num_classes))
    found = read_results(source, ground_truth)
    evaluation = score(
        ground_truth if found.have_scores else without_classes(ground_truth),
        found.rows,
        max_dets=[int(limit) for limit in values.max_dets],
        min_score=_min_score(values, config.model.detection),
        have_scores=found.have_scores,
    )
    out = Path(values.out) if values.out else source.with_name(f"{source.stem}_evaluation")
    write_report(evaluation, records, out)
    _show(console, evaluation)
    for note in found.notes:
        _say(console, f"note: {note}")
    _say(console, f"{source}, {len(records)} {values.split} images: results are in {out}")


def _min_score(values: flags.FlagValues, detection) -> float:
    """What the user asks for, or else what the config, or the bundle's maker, has chosen."""
    return detection.min_score if values.min_score is None else values.min_score


def _experiment(values: flags.FlagValues):
    from maskrcnn_jax.experiment import Experiment

    return Experiment.from_dict(values.config.to_dict())


def _records(values: flags.FlagValues, console):
    from maskrcnn_jax.data.datasets import load_split
    from maskrcnn_jax.training.display import counter

    with counter(console, f"reading the {values.split} images") as progress:
        return load_split(_experiment(values).data, values.split, progress=progress)


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
