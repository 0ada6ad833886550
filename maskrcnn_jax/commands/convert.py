"""`maskrcnn-jax convert`: another project's model as a bundle, and a bundle as another project's weights."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from maskrcnn_jax.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--detectron2", type=Path, metavar="CONFIG.yaml", help="Detectron2's configuration")
    source.add_argument(
        "--torchvision", type=Path, metavar="FILE", help="a state dict of torchvision's Mask R-CNN"
    )
    source.add_argument("--bundle", type=Path, metavar="DIR", help="the other way: a bundle to be written")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="Detectron2's model_final.pth, or a .pkl"
    )
    parser.add_argument(
        "--norm-epsilon",
        type=float,
        metavar="E",
        help="of torchvision's batch norms: 0 for a model that was fine-tuned from COCO_V1 of "
        "maskrcnn_resnet50_fpn; by default 1e-5, or 0 for that file itself",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the bundle's folder; of a bundle, FILE.pth or FILE.safetensors for torchvision, FILE.pkl for "
        "Detectron2",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(arguments: Namespace) -> None:
    """Converts, and prints what came of it.

    Raises:
      UserError: the output is there already, or the input cannot be read; the message says what to do.
    """
    out = arguments.out
    if (arguments.detectron2 is None) != (arguments.weights is None):
        raise UserError("--detectron2 CONFIG.yaml and --weights FILE belong together: give both, or neither")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out} exists already: choose another name or give --overwrite")
    from maskrcnn_jax.interop import bundle, detectron2, torchvision
    from maskrcnn_jax.interop.trees import flatten

    if arguments.bundle is not None:
        config, params = bundle.load_bundle(arguments.bundle)
        _writer(out)(out, config, params)
    else:
        if arguments.torchvision is not None:
            config, params = torchvision.load(arguments.torchvision, norm_epsilon=arguments.norm_epsilon)
        else:
            config, params = detectron2.load(arguments.detectron2, arguments.weights)
        bundle.save_bundle(out, config, params)
    kind = "C4" if config.has_residual_head else "FPN" if config.fpn else "DC5"
    count = sum(array.size for array in flatten(params).values())
    print(
        f"{out}: ResNet-{config.backbone.depth}-{kind}, classes: {config.num_classes}, parameters: {count:,}"
    )


def _writer(out: Path):
    """Who writes such a file."""
    from maskrcnn_jax.interop import detectron2, torchvision

    if out.suffix == ".pkl":
        return detectron2.save
    if out.suffix in (".pth", ".safetensors"):
        return torchvision.save
    raise UserError(f"{out}: of a bundle, --out is FILE.pth or FILE.safetensors (torchvision) or FILE.pkl")
