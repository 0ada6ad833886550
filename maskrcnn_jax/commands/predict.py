"""`maskrcnn-jax predict`: the objects in images and slides, as the files that people use."""

from __future__ import annotations

import argparse
import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_jax.commands.choosing import add_choice, add_model, choice_of, load_chosen
from maskrcnn_jax.errors import UserError

if TYPE_CHECKING:  # What is slow to import is imported where it is used.
    from maskrcnn_jax.commands.prediction_display import Done
    from maskrcnn_jax.config import MaskRCNNConfig
    from maskrcnn_jax.images.inputs import Ids
    from maskrcnn_jax.prediction.journal import Job
    from maskrcnn_jax.prediction.tiling import BatchPredictor
    from maskrcnn_jax.prediction.worker import Worker

FORMATS = ("coco", "labels", "geojson", "csv", "overlay", "ome-zarr")
_USUAL = FORMATS[:-1]  # without what needs a package of an extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image or slide, folder of them, or pattern such as 'in/*.png'",
    )
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    names = ",".join(FORMATS)
    parser.add_argument(
        "--formats",
        type=_formats,
        default=_USUAL,
        metavar="LIST",
        help=f"some of {names}; by default all but {FORMATS[-1]}",
    )
    parser.add_argument(
        "--min-score",
        type=_score,
        metavar="SCORE",
        help="leave objects that score less out of all files; by default what the model's config says",
    )
    parser.add_argument(
        "--tile",
        type=_tile,
        nargs="?",
        const=1024,
        metavar="SIZE",
        help="predict in tiles of so many pixels (1024), or 0 for never; by default if a side is over 2048",
    )
    add_choice(parser)
    parser.add_argument(
        "--batch",
        type=_count,
        default=1,
        metavar="N",
        help="images or tiles that the device gets at once (1)",
    )
    parser.add_argument(
        "--region",
        type=Path,
        metavar="FILE",
        help="GeoJSON: find what lies inside its polygons, in one image",
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--mpp", type=_length, metavar="MICROMETRES", help="length of a pixel, for files that do not say it"
    )
    scale.add_argument(
        "--zoom", type=_factor, metavar="FACTOR", help="show images so many times as large to the model"
    )
    parser.add_argument("--tta", choices=["flips"], help="look at each image mirrored and upside down too")
    parser.add_argument("--classes", metavar="LIST", help="names of the model's classes, in order")
    parser.add_argument(
        "--color-by", choices=["class", "object"], help="in overlays; by default class if there are several"
    )
    parser.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="COCO data set or list of images: gives the COCO rows its ids",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on all machines of this Ray cluster, which see the same files; `auto` finds the one that "
        "runs here, `local` starts one",
    )


def run(arguments: argparse.Namespace) -> int:
    """Predicts and writes; the exit code is 1 if an image failed, which is told on stderr.

    Raises:
      UserError, OSError: nothing can be done at all; the message says why.
    """
    from maskrcnn_jax.commands.prediction_display import do_all, report
    from maskrcnn_jax.images.inputs import find_images, read_ids
    from maskrcnn_jax.images.regions import read_regions
    from maskrcnn_jax.outputs.folder import Outputs
    from maskrcnn_jax.prediction.jobs import do_jobs
    from maskrcnn_jax.prediction.journal import Journal
    from maskrcnn_jax.prediction.scale import Scale
    from maskrcnn_jax.prediction.worker import Worker

    if arguments.ray:
        _leave_gpus_to_workers()
    choice = choice_of(arguments)
    images, faults = find_images(arguments.paths)
    if not images:
        raise UserError("there is nothing to predict\n  " + "\n  ".join(faults))
    if arguments.region and len(images) > 1:
        raise UserError(f"--region {arguments.region} is of one image, {len(images)} are given")
    regions = read_regions(arguments.region) if arguments.region else None
    ids = read_ids(arguments.ids) if arguments.ids else None
    jobs = _jobs(images, ids)
    config, params = load_chosen(arguments)
    scale = Scale(config.mpp, arguments.mpp, arguments.zoom)
    categories = _categories(config.num_classes, arguments.classes, ids)
    color_by = arguments.color_by or ("class" if len(categories) > 1 else "object")
    outputs = Outputs(arguments.out.absolute(), arguments.formats, categories, color_by=color_by)
    predict = _predictor(params, config, arguments.tta)
    usual = config.detection.min_score
    min_score = usual if arguments.min_score is None else arguments.min_score
    options = {
        "model": predict.fingerprint,
        "formats": arguments.formats,
        "classes": categories,
        "color_by": color_by,
        "min_score": min_score,
        "tile": arguments.tile,
        "image": {name: getattr(arguments, name) for name in ("channel", "plane", "series", "mpp", "zoom")},
        "region": regions and regions.fingerprint,
    }
    journal = Journal(arguments.out.absolute() / "unfinished", options)
    before = journal.begin(outputs, jobs, overwrite=arguments.overwrite)
    limits = {"most": config.detection.max_detections, "min_score": min_score}
    fields = {"outputs": outputs, "journal": journal, "tile": arguments.tile, "choice": choice, **limits}
    fields |= {"scale": scale, "regions": regions, "batch": arguments.batch}
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


def _jobs(images: Sequence[Path], ids: Ids | None) -> list[Job]:
    from maskrcnn_jax.images.inputs import unique_names
    from maskrcnn_jax.prediction.journal import Job

    names, numbers, file_names = unique_names(images), _image_ids(images, ids), _file_names(images)
    return [Job(*fields) for fields in zip(images, names, numbers, file_names, strict=True)]


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


def _image_ids(images: Sequence[Path], ids: Ids | None) -> list[int]:
    """From 1 in order, or what the data set says."""
    if ids is None:
        return list(range(1, len(images) + 1))
    unknown = [str(image) for image in images if image.name not in ids.images]
    if unknown:
        raise UserError("--ids has no id for these images:\n  " + "\n  ".join(unknown))
    numbers = [ids.images[image.name] for image in images]
    count = Counter(numbers)
    twice = [str(image) for image, number in zip(images, numbers, strict=True) if count[number] > 1]
    if twice:
        raise UserError("--ids gives these images one id:\n  " + "\n  ".join(twice))
    return numbers


def _file_names(images: Sequence[Path]) -> list[str]:
    """Without folders, if that is enough to tell them apart."""
    names = [image.name for image in images]
    return names if len({*names}) == len(names) else [image.as_posix() for image in images]


def _categories(count: int, given: str | None, ids: Ids | None) -> dict[int, str]:
    """Id and name of each class: what the user says, or the data set, or what can be made up."""
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        numbers = list(ids.categories) if ids and ids.categories else range(1, len(names) + 1)
        categories = dict(zip(numbers, names, strict=False))
    elif ids and ids.categories:
        categories = ids.categories
    else:
        names = ["nucleus"] if count == 1 else [f"class_{k + 1}" for k in range(count)]
        categories = dict(enumerate(names, 1))
    if len(categories) != count:
        raise UserError(
            f"the model has {count} class{'es' if count > 1 else ''}, not {len(categories)} "
            f"({', '.join(categories.values())}): name each with --classes"
        )
    return categories


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in chosen:
        if name not in FORMATS:
            near = difflib.get_close_matches(name.lower(), FORMATS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"choose from {','.join(FORMATS)}"
            raise argparse.ArgumentTypeError(f"unknown format {name!r}: {hint}")
    if not chosen:
        raise argparse.ArgumentTypeError(f"choose from {','.join(FORMATS)}")
    return chosen


def _score(text: str) -> float:
    return _number(text, 0, 1, "number from 0 to 1")


def _length(text: str) -> float:
    return _number(text, 0.01, 30, "length of a pixel in µm, from 0.01 to 30")


def _factor(text: str) -> float:
    return _number(text, 0.01, 100, "factor from 0.01 to 100")


def _count(text: str) -> int:
    return int(_number(text if text.isdecimal() else "", 1, 1024, "whole number from 1 to 1024"))


def _number(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no {wanted}")
    return value


def _tile(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of pixels; if it is an image, write --tile=1024 before it"
        )
    if 0 < int(text) < 64:
        raise argparse.ArgumentTypeError(f"tiles of {text} pixels are too small: 64 at least, or 0 for never")
    return int(text)
