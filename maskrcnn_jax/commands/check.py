"""`maskrcnn-jax check`: every fault of a data set with its file, and a summary of what it holds."""

from __future__ import annotations

import argparse
import math
import runpy
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskrcnn_jax.commands.choosing import add_choice, choice_of
from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.anchor_fit import anchor_grids
from maskrcnn_jax.data.check import survey
from maskrcnn_jax.data.check_report import fault_lines, summary_lines, write_histograms
from maskrcnn_jax.data.readers.formats import FORMATS, list_entries
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("path", type=Path, metavar="PATH", help="folder, or JSON file of a COCO data set")
    parser.add_argument("--format", required=True, choices=FORMATS, help="how the data set is stored")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where a COCO file's names start from")
    parser.add_argument(
        "--crowds_are_instances", action="store_true", help="a COCO file's iscrowd means nothing (CVAT)"
    )
    add_choice(parser)
    parser.add_argument("--config", metavar="FILE", help="compare boxes with this model's anchors")
    parser.add_argument(
        "--scale",
        type=_positive,
        default=1.0,
        help="images are enlarged by this before they meet the anchors",
    )
    parser.add_argument(
        "--fragments",
        type=_positive,
        default=0.05,
        metavar="SHARE",
        help="doubt an instance if more than this share lies outside its largest piece; 1 is never",
    )
    parser.add_argument(
        "--plot", type=_picture, metavar="FILE", help="draw histograms into this PNG, PDF or SVG"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what `check` finds; the exit code is 1 if that includes a fault or a doubt.

    Raises:
      DataError, ValueError: the set cannot even be listed.
    """
    listing = list_entries(
        arguments.format,
        arguments.path,
        images=arguments.images,
        crowds_are_instances=arguments.crowds_are_instances,
        choice=choice_of(arguments),
    )
    config = _model(arguments.config) if arguments.config else MaskRCNNConfig.c4()
    columns = TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(listing.entries))
        found = survey(
            listing,
            anchor_grids(config),
            scale=arguments.scale,
            fragments=arguments.fragments,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    anchors = Path(arguments.config).name if arguments.config else "C4, sizes 8 to 128 at stride 16"
    if arguments.scale != 1:
        anchors += f", images enlarged {arguments.scale:g} times"
    sys.stdout.write("\n".join([*fault_lines(found), *summary_lines(found, anchors), ""]))
    if arguments.plot:
        with atomic(arguments.plot) as temporary:
            write_histograms(found, temporary, arguments.plot.suffix[1:])
        sys.stdout.write(f"histograms   {arguments.plot}\n")
    return int(bool(found.faults or found.doubts))


def _model(path: str) -> MaskRCNNConfig:
    """The model of a config file; what follows a colon is the argument of its `get_config`."""
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise UserError(f"--config: {file} is no file; give one as those in configs/")
    try:
        get_config = runpy.run_path(file)["get_config"]
    except (SyntaxError, KeyError) as error:
        raise UserError(f"--config: {file} is no Python file with a get_config()") from error
    return MaskRCNNConfig.from_dict(get_config(*([variant] if variant else [])).model.to_dict())


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} has none of the endings .png, .pdf, .svg")
    return path
