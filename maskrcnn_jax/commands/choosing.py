"""Options of several commands: which model, and what of images with many series, planes or channels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_jax.zoo import DEFAULT

if TYPE_CHECKING:  # They need NumPy, which --help does not.
    from maskrcnn_jax.config import MaskRCNNConfig
    from maskrcnn_jax.images.choice import Choice
    from maskrcnn_jax.interop.trees import Tree


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --model and --bundle, one of which may be given."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model", metavar="NAME", help=f"a model that `maskrcnn-jax models` lists; by default {DEFAULT}"
    )
    source.add_argument("--bundle", type=Path, metavar="DIR", help="a model of your own")


def load_chosen(arguments: argparse.Namespace) -> tuple[MaskRCNNConfig, Tree]:
    """Config and parameters of the model; its name is told where the user has not chosen one.

    Raises:
      UserError: there is no such model, or it cannot be read.
    """
    from maskrcnn_jax.interop.bundle import load_bundle
    from maskrcnn_jax.zoo import load_model

    if arguments.bundle:
        return load_bundle(arguments.bundle)
    if arguments.model is None:
        print(f"the model is {DEFAULT!r}; others: --model NAME (see maskrcnn-jax models), --bundle DIR")
    return load_model(arguments.model or DEFAULT)


def object_size(arguments: argparse.Namespace) -> float | None:
    """The median size of the objects that the model was trained on, in pixels; None where it says none."""
    from maskrcnn_jax.interop.bundle import BundleError, read_about
    from maskrcnn_jax.zoo.catalogue import resolve

    try:
        size = read_about(arguments.bundle or resolve(arguments.model or DEFAULT)).get("object_size")
    except BundleError:
        return None
    return size if isinstance(size, int | float) else None


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Adds --channel, --plane and --series."""
    parser.add_argument(
        "--channel",
        default="",
        metavar="N[,N,N]",
        help="of images with many channels: which is meant, from 0, or three as red, green and blue",
    )
    parser.add_argument(
        "--plane", default="", metavar="N|max|mean", help="of stacks: which plane, from 0, or all made one"
    )
    parser.add_argument(
        "--series", default="", metavar="N", help="of files with several series: which, from 0"
    )


def choice_of(arguments: argparse.Namespace) -> Choice:
    """What the options say.

    Raises:
      ValueError: one of them is none of its possible values.
    """
    from maskrcnn_jax.images.choice import Choice

    return Choice.parse(channel=arguments.channel, plane=arguments.plane, series=arguments.series)
