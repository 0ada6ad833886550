"""`maskrcnn-jax sample`: drawn nuclei, or a few real ones, as files, to try everything without any data."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from maskrcnn_jax.errors import UserError

_SLIDE_SUFFIXES = (".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder, for images with masks; or a name that ends with .tif, for a slide without",
    )
    parser.add_argument("--images", type=_count, default=24, metavar="N", help="how many, in a folder")
    parser.add_argument(
        "--size", type=_count, metavar="PIXELS", help="side of an image, by default 256, or of a slide, 3000"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one draws other nuclei")
    parser.add_argument(
        "--real",
        action="store_true",
        help="in place of drawn ones, two microscope images (CC0), with their nuclei as label images",
    )


def run(arguments: argparse.Namespace) -> None:
    """Draws, and prints what was written.

    Raises:
      UserError: the output is there already.
    """
    out = arguments.out
    if out.exists():
        raise UserError(f"{out} exists already: choose another name or delete it")
    if arguments.real:
        _copy_real(out)
        print(f"{out}: two images of 2018's Data Science Bowl (CC0), in the format labels")
        return
    if out.suffix.lower() in _SLIDE_SUFFIXES:
        size = arguments.size or 3000
        _write_slide(out, size, arguments.seed)
        print(f"{out}: a slide of {size} x {size} pixels")
        return
    masks = _write_folder(out, arguments.images, arguments.size or 256, arguments.seed)
    print(f"{out}: {arguments.images} images with {masks} masks, in the format mask_folder")


def _copy_real(folder: Path) -> None:
    import shutil

    from maskrcnn_jax.zoo import SAMPLES

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        shutil.copytree(SAMPLES, Path(temporary, "set")).rename(folder)


def _write_folder(folder: Path, count: int, size: int, seed: int) -> int:
    """All of a data set or nothing; gives the number of masks."""
    from PIL import Image

    from maskrcnn_jax.data.synthetic import draw_records

    folder.parent.mkdir(parents=True, exist_ok=True)
    masks = 0
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        for record in draw_records(count, seed=seed, size=size, nuclei=_nuclei(size), name="drawn"):
            root = Path(temporary, "set", record.name)
            for part in ("images", "masks"):
                (root / part).mkdir(parents=True)
            Image.fromarray(record.image).save(root / "images" / f"{record.name}.png")
            for n in range(len(record.classes)):
                Image.fromarray(record.mask(n)).save(root / "masks" / f"{n:04d}.png")
            masks += len(record.classes)
        Path(temporary, "set").rename(folder)
    return masks


def _write_slide(path: Path, size: int, seed: int) -> None:
    """Tissue amid empty glass, as a tiled TIFF with halved levels, which OpenSlide and QuPath read."""
    import numpy as np
    import tifffile
    from PIL import Image

    from maskrcnn_jax.data.synthetic import draw_records
    from maskrcnn_jax.files import atomic

    tissue = max(size * 2 // 3, 1)
    (record,) = draw_records(1, seed=seed, size=tissue, nuclei=_nuclei(tissue))
    slide = np.full((size, size, 3), 243, np.uint8)
    margin = (size - tissue) // 2
    slide[margin : margin + tissue, margin : margin + tissue] = record.image
    levels = [slide]
    while max(levels[-1].shape) > 1024:
        levels.append(np.asarray(Image.fromarray(levels[-1]).reduce(2)))
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib"}
    with atomic(path) as temporary, tifffile.TiffWriter(temporary) as file:
        for n, level in enumerate(levels):
            file.write(level, subfiletype=min(n, 1), **options)


def _nuclei(size: int) -> tuple[int, int]:
    """Fewest and most nuclei of an image: as dense at any size."""
    share = (size / 256) ** 2
    return max(round(30 * share), 2), max(round(50 * share), 3)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value
