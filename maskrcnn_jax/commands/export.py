"""`maskrcnn-jax export`: a model as one file that other runtimes run, from pixels to masks."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_jax.commands.choosing import add_model, load_chosen
from maskrcnn_jax.errors import UserError

if TYPE_CHECKING:  # It needs NumPy, which --help does not.
    from maskrcnn_jax.config import MaskRCNNConfig

_FORMATS = ("stablehlo", "savedmodel", "onnx")
_NO_ONNX = (
    "--format onnx cannot be written: jax2onnx 0.17.1, the converter from JAX that is kept, lacks "
    "platform_index, cond of more than two branches and scatter in batches, which RoIAlign and NMS need "
    "(docs/export.md); take stablehlo or savedmodel"
)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    parser.add_argument("--format", choices=_FORMATS, required=True, help="what the file is for")
    parser.add_argument(
        "--size", type=_positive, nargs=2, required=True, metavar=("H", "W"), help="of the images in pixels"
    )
    parser.add_argument(
        "--batch", type=_positive, metavar="N", help="images at a time; by default any number"
    )
    parser.add_argument(
        "--masks",
        choices=["image", "boxes"],
        default="image",
        help="pasted into the image (N, D, H, W), the default, or as probabilities over boxes (N, D, M, M)",
    )
    parser.add_argument(
        "--detections", type=_positive, metavar="D", help="room for objects; by default what the config says"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a folder for savedmodel")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(arguments: Namespace) -> None:
    """Exports, and prints what the file takes and gives.

    Raises:
      UserError: the output is there already, the model cannot be read, or the format cannot be written here;
        the message says why.
    """
    if arguments.format == "onnx":
        raise UserError(_NO_ONNX)
    if arguments.out.exists() and not arguments.overwrite:
        raise UserError(f"{arguments.out} exists already: choose another name or give --overwrite")
    from maskrcnn_jax.interop import export
    from maskrcnn_jax.prediction.whole import whole_prediction

    config, params = load_chosen(arguments)
    if arguments.detections:
        config = replace(config, detection=replace(config.detection, max_detections=arguments.detections))
    shape = (arguments.batch, *arguments.size, 3)
    function = whole_prediction(config, shape[1:3], masks=arguments.masks)
    results = export.save(arguments.out, function, params, shape, kind=arguments.format)
    print(f"{arguments.out}: from images, uint8 {_shape(shape)}, to")
    for name, (dtype, shape) in sorted(results.items()):
        print(f"  {name}: {dtype} {_shape(shape)}")
    print("\n".join(_left_to_the_user(config)))


def _left_to_the_user(config: MaskRCNNConfig) -> Iterator[str]:
    """What `maskrcnn-jax predict` does and the file does not."""
    if config.detection.min_score > config.detection.score_threshold:
        yield f"not left out: what scores less than {config.detection.min_score:g}, this model's min_score"
    if config.mpp:
        yield f"not brought to {config.mpp:g} µm a pixel, which this model wants: hand in images that have it"
    yield "not inside: tiles for large images, and more than 8 bits (docs/export.md)"


def _shape(shape: Sequence) -> str:
    return "(" + ", ".join("N" if side is None else str(side) for side in shape) + ")"


def _positive(text: str) -> int:
    """The type of numbers of pixels, images and objects."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a positive whole number, found {text!r}")
    return int(text)
