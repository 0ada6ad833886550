"""`maskrcnn-jax convert`: another project's model as a bundle."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from maskrcnn_jax.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--detectron2", type=Path, required=True, metavar="CONFIG.yaml", help="Detectron2's configuration"
    )
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="its model_final.pth, or a .pkl"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the bundle goes")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle that is there")


def run(arguments: Namespace) -> None:
    """Converts, and prints what came of it.

    Raises:
      UserError: the output is there already, or the input cannot be read; the message says what to do.
    """
    out = arguments.out
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out} exists already: choose another folder or give --overwrite")
    from maskrcnn_jax.interop import bundle, detectron2
    from maskrcnn_jax.interop.trees import flatten

    config, params = detectron2.load(arguments.detectron2, arguments.weights)
    bundle.save_bundle(out, config, params)
    kind = "C4" if config.fpn is None else "FPN"
    count = sum(array.size for array in flatten(params).values())
    print(
        f"{out}: ResNet-{config.backbone.depth}-{kind}, classes: {config.num_classes}, parameters: {count:,}"
    )
