"""The options of `maskrcnn-jax predict`, each checked as it is read."""

import argparse
import difflib
import math
from pathlib import Path

from maskrcnn_jax.commands.choosing import add_choice, add_model

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
    _add_files(parser)
    _add_view(parser)
    _add_names(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on all machines of this Ray cluster, which see the same files; `auto` finds the one that "
        "runs here, `local` starts one",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """What is written."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--formats",
        type=_formats,
        default=_USUAL,
        metavar="LIST",
        help=f"some of {','.join(FORMATS)}; by default all but {FORMATS[-1]}",
    )
    parser.add_argument(
        "--min-score",
        type=_score,
        metavar="SCORE",
        help="leave objects that score less out of all files; by default what the model's config says",
    )


def _add_view(parser: argparse.ArgumentParser) -> None:
    """How the model sees the images."""
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


def _add_names(parser: argparse.ArgumentParser) -> None:
    """What classes, objects and images are called."""
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
