"""How long `maskrcnn-jax --help` and a prediction take from the shell, here and in another checkout, in turn.

python benchmarks/start_time.py OTHER [--rounds 5]

Medians in seconds, by the clock and of the processor (user and system). The prediction is of a small image by
a model of a few channels, whose compiled functions a round before the first has put into JAX's cache: what is
left is imports, reading, tracing and writing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parents[1]
# Of the older checkout, as a newer one reads the bundles of older ones.
MAKE_BUNDLE = """
import sys
import maskrcnn_jax as mrcnn
from maskrcnn_jax.config import BackboneConfig, RoIConfig, RPNConfig
import jax
try:
    from maskrcnn_jax.models.parameters import init_params
except ImportError:  # where it was before
    from maskrcnn_jax.models.mask_rcnn import init_params
config = mrcnn.MaskRCNNConfig(
    num_classes=1,
    backbone=BackboneConfig(depth=18, last_stage=2, stem_channels=8, res2_channels=8, norm="group"),
    rpn=RPNConfig(anchor_sizes=((16,),), post_nms=(32, 32)),
    roi=RoIConfig(bins=4, norm="group", mask_channels=8),
)
mrcnn.save_bundle(sys.argv[1], config, init_params(config, jax.random.key(0)))
"""


def timed(command: list[str], checkout: Path, cache: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    start = time.perf_counter()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, cwd=checkout, **streams)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} in {checkout} failed:\n{message.decode()}")
    return seconds, usage.ru_utime + usage.ru_stime


def command_line(checkout: Path) -> list[str]:
    """The front door, which has moved within the package."""
    there = (checkout / "maskrcnn_jax" / "cli.py").exists()
    module = "maskrcnn_jax.cli" if there else "maskrcnn_jax.commands.cli"
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    checkouts = {"other": arguments.other.resolve(), "here": HERE}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        timed([sys.executable, "-c", MAKE_BUNDLE, str(place / "bundle")], checkouts["other"], place / "first")
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(place / "image.png")
        predict = ["predict", "--bundle", str(place / "bundle"), str(place / "image.png")]
        cases = {"--help": ["--help"], "predict": [*predict, "--formats", "labels", "--overwrite"]}
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for turn in range(arguments.rounds + 1):
            for which, checkout in checkouts.items():
                for case, rest in cases.items():
                    out = ["--out", str(place / which)] if case == "predict" else []
                    seconds = timed(
                        [*command_line(checkout), *rest, *out], checkout, place / f"cache_{which}"
                    )
                    if turn:
                        found.setdefault((case, which), []).append(seconds)
        for (case, which), rounds in found.items():
            clock, processor = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"{case:8} {which:6} {clock:6.2f} s by the clock, {processor:6.2f} s of the processor")


if __name__ == "__main__":
    main()
