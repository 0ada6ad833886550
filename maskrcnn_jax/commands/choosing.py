"""The options with which a person says what of images with several series, planes or channels is meant."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # It needs NumPy, which --help does not.
    from maskrcnn_jax.images.choice import Choice


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
