"""Makes the pictures of the documentation from runs of this code.

python docs/figures.py overlay runs/synthetic_tiny docs/images/synthetic.png
python docs/figures.py losses docs/images/nuclei_small_losses.png runs/small_seed0 runs/small_seed1
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

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
    image.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


def losses(out: Path, runs: list[Path], *, window: int = 5) -> None:
    """The five losses and their sum by step, one line a run, as running means of `window` log entries."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.5), sharex=True, constrained_layout=True)
    for axis, (name, title) in zip(axes.flat, LOSSES.items(), strict=True):
        for run in runs:
            rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overlay")
    one.add_argument("run", type=Path)
    one.add_argument("out", type=Path)
    several = commands.add_parser("losses")
    several.add_argument("out", type=Path)
    several.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "overlay":
        overlay(arguments.run, arguments.out)
    else:
        losses(arguments.out, arguments.runs)


if __name__ == "__main__":
    main()
