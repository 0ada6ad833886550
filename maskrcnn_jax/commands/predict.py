"""`maskrcnn-jax predict`: the objects in images and slides, as the files that people use."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_jax.commands.choosing import choice_of, load_chosen, object_size
from maskrcnn_jax.commands.predict_options import add_arguments as add_arguments
from maskrcnn_jax.errors import UserError

if TYPE_CHECKING:  # What is slow to import is imported where it is used.
    from maskrcnn_jax.commands.prediction_display import Done
    from maskrcnn_jax.config import MaskRCNNConfig
    from maskrcnn_jax.images.regions import Regions
    from maskrcnn_jax.prediction.journal import Job
    from maskrcnn_jax.prediction.tiling import BatchPredictor
    from maskrcnn_jax.prediction.worker import Worker


def run(arguments: argparse.Namespace) -> int:
    """Predicts and writes; the exit code is 1 if an image failed, which is told on stderr.

    Raises:
      UserError, OSError: nothing can be done at all; the message says why.
    """
    from maskrcnn_jax.commands.naming import make_jobs, name_classes
    from maskrcnn_jax.commands.prediction_display import do_all, report
    from maskrcnn_jax.images.inputs import read_ids
    from maskrcnn_jax.images.regions import read_regions
    from maskrcnn_jax.outputs.folder import Outputs
    from maskrcnn_jax.prediction.jobs import do_jobs
    from maskrcnn_jax.prediction.journal import Journal
    from maskrcnn_jax.prediction.scale import Scale
    from maskrcnn_jax.prediction.worker import Worker

    if arguments.ray:
        _leave_gpus_to_workers()
    choice = choice_of(arguments)
    images, faults = _images(arguments)
    regions = read_regions(arguments.region) if arguments.region else None
    ids = read_ids(arguments.ids) if arguments.ids else None
    jobs = make_jobs(images, ids)
    config, params = load_chosen(arguments)
    scale = Scale(config.mpp, arguments.mpp, arguments.zoom, object_size(arguments))
    categories = name_classes(config.num_classes, arguments.classes, ids)
    color_by = arguments.color_by or ("class" if len(categories) > 1 else "object")
    outputs = Outputs(arguments.out.absolute(), arguments.formats, categories, color_by=color_by)
    predict = _predictor(params, config, arguments.tta)
    usual = config.detection.min_score
    min_score = usual if arguments.min_score is None else arguments.min_score
    chosen = {"classes": categories, "color_by": color_by, "min_score": min_score}
    options = _options(arguments, predict, regions) | chosen
    journal = Journal(arguments.out.absolute() / "unfinished", options)
    before = journal.begin(outputs, jobs, overwrite=arguments.overwrite)
    fields = {"outputs": outputs, "journal": journal, "tile": arguments.tile, "choice": choice}
    fields |= {"most": config.detection.max_detections, "min_score": min_score, "batch": arguments.batch}
    fields |= {"scale": scale, "regions": regions}
    try:
        if arguments.ray:
            done, notes = _do_on_ray(arguments, jobs, before, faults, config, params, fields)
        else:
            worker = Worker(predict, **fields)
            done = do_all(jobs, before, faults, partial(do_jobs, worker))
            notes = worker.notes
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("interrupted; the same command goes on from there") from stop
    outputs.finish(journal.images(jobs), journal.rows(jobs))
    if "coco" in arguments.formats and arguments.min_score is None:
        notes.append(f"all files hold what scores at least {usual:g}: for COCO AP, give --min-score 0")
    failed = sum(row.objects is None for row in done)
    if 0 < failed < len(done) or (failed and journal.has_tiles):
        notes.append("the same command tries only those again that failed")
    else:
        journal.remove()
    report(done, notes, arguments.out)
    return int(bool(faults) or failed > 0)


def _images(arguments: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Those that are meant, and what is wrong with the paths that led to none."""
    from maskrcnn_jax.images.inputs import find_images

    images, faults = find_images(arguments.paths)
    if not images:
        raise UserError("there is nothing to predict\n  " + "\n  ".join(faults))
    if arguments.region and len(images) > 1:
        raise UserError(f"--region {arguments.region} is of one image, {len(images)} are given")
    return images, faults


def _options(
    arguments: argparse.Namespace, predict: BatchPredictor, regions: Regions | None
) -> dict[str, Any]:
    """What the results depend on, but for the images and what is chosen where the user has not."""
    return {
        "model": predict.fingerprint,
        "formats": arguments.formats,
        "tile": arguments.tile,
        "image": {name: getattr(arguments, name) for name in ("channel", "plane", "series", "mpp", "zoom")},
        "region": regions and regions.fingerprint,
    }


def _predictor(params: Any, config: MaskRCNNConfig, tta: str | None) -> BatchPredictor:
    from maskrcnn_jax.prediction.predictor import Predictor
    from maskrcnn_jax.prediction.test_time import Augmented

    predictor = Predictor(config, params)
    return Augmented(predictor) if tta else predictor


def _make_worker(params: Any, config: MaskRCNNConfig, tta: str | None, fields: Mapping[str, Any]) -> Worker:
    """On the machine where it works."""
    from maskrcnn_jax.prediction.worker import Worker

    return Worker(_predictor(params, config, tta), **fields)


def _leave_gpus_to_workers() -> None:
    """One of them may be on this machine, and JAX takes a whole GPU when it starts."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _do_on_ray(
    arguments: argparse.Namespace,
    jobs: Sequence[Job],
    before: Mapping[str, int],
    faults: Sequence[str],
    config: MaskRCNNConfig,
    params: Any,
    fields: Mapping[str, Any],
) -> tuple[list[Done], list[str]]:
    """As `do_all`, by the workers of a cluster; and what they have to tell."""
    from maskrcnn_jax.commands.prediction_display import do_all
    from maskrcnn_jax.prediction.cluster import Crew

    jobs = [job._replace(image=job.image.absolute()) for job in jobs]
    make = partial(_make_worker, config=config, tta=arguments.tta, fields=fields)
    with Crew(arguments.ray, make, params) as crew:
        done = do_all(jobs, before, faults, crew.do)
        notes = crew.notes()
        if crew.lost:
            notes.append(f"{crew.lost} workers were lost; others did their work again")
    return done, notes
