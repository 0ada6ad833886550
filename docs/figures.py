"""Makes the pictures of the documentation from runs of this code.

python docs/figures.py overlay runs/synthetic_tiny docs/images/synthetic.png
python docs/figures.py losses docs/images/nuclei_small_losses.png runs/small_seed0 runs/small_seed1
python docs/figures.py guides runs/synthetic_tiny docs/images
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from maskrcnn_jax import Predictor, load_bundle
from maskrcnn_jax.commands.cli import main as command
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.overlay import draw_overlay
from maskrcnn_jax.prediction.tiling import predict_tiled

LOSSES = {
    "loss": "sum",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_rpn_cls": "RPN class",
    "loss_rpn_loc": "RPN box",
}


def overlay(run: Path, out: Path, *, width: int = 1400) -> None:
    """The first overlay of an evaluation, scaled down and with few colours to keep the file small."""
    image = Image.open(sorted((run / "evaluation").glob("overlay_*.png"))[0])
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    _save(image, out, colors=256)


def losses(out: Path, runs: list[Path], *, window: int = 5) -> None:
    """The five losses and their sum by step, one line a run, as running means of `window` log entries."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True)
    for axis, (name, title) in zip(axes.flat, LOSSES.items(), strict=True):
        for run in runs:
            lines = (run / "history.jsonl").read_text().splitlines()
            rows = [row for row in map(json.loads, lines) if name in row]  # evaluations have none
            values = np.array([row[name] for row in rows])
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            line = axis.plot([row["step"] for row in rows], values, linewidth=0.5, alpha=0.35)[0]
            steps = [row["step"] for row in rows][window - 1 :]
            axis.plot(steps, smooth, color=line.get_color(), linewidth=1.5, label=run.name)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    axes.flat[0].legend()
    figure.savefig(out, dpi=110)


def guides(run: Path, folder: Path) -> None:
    """The pictures of the guides: the run's curves, and what its model finds in images it has not seen."""
    _save(Image.open(run / "evaluation" / "curves.png").convert("RGB"), folder / "guide_curves.png")
    predictor = Predictor(*load_bundle(run / "bundle"))
    records = draw_records(2, seed=99, size=256)
    pictures = [draw_overlay(r.image, _sure(predictor(r.image)), scale=2) for r in records]
    _save(_row(pictures), folder / "guide_overlay.png")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "slide.tif")
        command(["sample", "--out", str(path)])
        with open_source(path) as slide:
            _save(_slide_picture(predictor, slide.read(0, 0, *slide.size)), folder / "guide_slide.png")


def _slide_picture(predictor: Predictor, pixels: np.ndarray, *, side: int = 540) -> Image.Image:
    """The slide with what was found, and beside it a part around a seam of tiles at full resolution."""
    with open_source(pixels) as source:
        result = predict_tiled(predictor, source, tile=256, overlap=64)  # The model finds 100 in a tile.
    overlay = draw_overlay(pixels, _sure(result), scale=1, thickness=2)
    top, left = 780, 640
    whole = Image.fromarray(overlay).resize((side, side), Image.Resampling.LANCZOS)
    scale = side / len(pixels)
    corner = (left * scale, top * scale, (left + side) * scale, (top + side) * scale)
    ImageDraw.Draw(whole).rectangle(corner, outline="black", width=2)
    return _row([np.asarray(whole), overlay[top : top + side, left : left + side]])


def _sure(result: Result) -> list:
    return [mask for mask, score in zip(result.masks, result.scores, strict=True) if score >= 0.5]


def _row(pictures: list[np.ndarray], gap: int = 8) -> Image.Image:
    """Pictures of one height, beside each other."""
    white = np.full((len(pictures[0]), gap, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (white, picture)][1:]
    return Image.fromarray(np.concatenate(parts, axis=1))


def _save(image: Image.Image, out: Path, *, colors: int = 128) -> None:
    """With few colours, to keep the file small."""
    image.quantize(colors, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overlay")
    one.add_argument("run", type=Path)
    one.add_argument("out", type=Path)
    several = commands.add_parser("losses")
    several.add_argument("out", type=Path)
    several.add_argument("runs", type=Path, nargs="+")
    all_guides = commands.add_parser("guides")
    all_guides.add_argument("run", type=Path)
    all_guides.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "guides":
        guides(arguments.run, arguments.folder)
    elif arguments.command == "overlay":
        overlay(arguments.run, arguments.out)
    else:
        losses(arguments.out, arguments.runs)


if __name__ == "__main__":
    main()
