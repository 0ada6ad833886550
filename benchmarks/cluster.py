"""What Ray costs: a tile's overhead against the plain loop, and the driver's memory with many images.

python benchmarks/cluster.py overhead [--seconds 0.1] [--tiles 8] [--rounds 3]
python benchmarks/cluster.py many [--images 20000]

The predictor finds nothing after so many seconds, so that nothing but the handing out is measured; on a CPU,
where the model itself would fill the machine, it sleeps. Plain loop and Ray take turns.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from maskrcnn_jax.masks.result import concatenate
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.prediction.cluster import Crew
from maskrcnn_jax.prediction.jobs import Worker, do_jobs
from maskrcnn_jax.prediction.journal import Job, Journal


class Sleeper:
    """Takes its time and finds nothing."""

    fingerprint = "sleeper"

    def __init__(self, seconds: float):
        self.seconds = seconds

    def batch(self, images, **_):
        time.sleep(self.seconds * len(images))
        return [concatenate([], image.shape[:2]) for image in images]

    def start(self, images, **options):
        return partial(self.batch, images, **options)


def make(seconds: float, fields: dict) -> Worker:
    return Worker(Sleeper(seconds), **fields)


def fields(out: Path, tile: int) -> dict:
    outputs = Outputs(out, ("coco",), {1: "nucleus"})
    journal = Journal(out / "unfinished", {})
    return {"outputs": outputs, "journal": journal, "tile": tile, "most": 1000, "min_score": 0.0}


def overhead(folder: Path, seconds: float, side: int, rounds: int) -> None:
    """A slide of side x side tiles of 1024 pixels, of which none is blank."""
    length = 1024 + (side - 1) * 896
    pixels = np.random.default_rng(0).integers(0, 255, (length, length, 3), np.uint8)
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(512, 512), compression="jpeg")
    jobs = [Job(folder / "slide.tif", f"slide_{n}", 1, "slide.tif") for n in range(rounds + 1)]
    plain, there = fields(folder / "plain", 1024), fields(folder / "ray", 1024)
    worker, times = make(seconds, plain), {"plain": [], "ray": []}
    with Crew("local", partial(make, fields=there), seconds) as crew:
        for n, job in enumerate(jobs):
            for name, do in (("plain", partial(do_jobs, worker)), ("ray", crew.do)):
                start = time.perf_counter()
                (outcome,) = do([job])
                assert outcome.fault is None, outcome.fault
                if n:  # The first time, workers are made.
                    times[name].append(time.perf_counter() - start)
    tiles = side * side
    a, b = (np.median(times[name]) / tiles for name in ("plain", "ray"))
    print(f"{tiles} tiles of {seconds} s, {rounds} rounds by turns, seconds a tile (median):")
    print(f"plain {a:.4f}   Ray, one worker {b:.4f}   ratio {b / a:.3f}")


def many(folder: Path, count: int) -> None:
    """One small image under many names; the driver's memory on the way."""
    tifffile.imwrite(folder / "image.tif", np.zeros((32, 32, 3), np.uint8))
    jobs = (Job(folder / "image.tif", f"image_{n:06d}", n, "image.tif") for n in range(count))
    start = time.perf_counter()
    with Crew("local", partial(make, fields=fields(folder / "many", 0)), 0.0) as crew:
        for n, outcome in enumerate(crew.do(jobs), 1):
            assert outcome.fault is None, outcome.fault
            if n % (count // 10) == 0:
                spent = time.perf_counter() - start
                now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                print(f"{n} images, {n / spent:.0f} a second, driver {now:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["overhead", "many"])
    parser.add_argument("--seconds", type=float, default=0.1, help="that the predictor takes for a tile")
    parser.add_argument("--tiles", type=int, default=8, help="of the slide, along each side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "overhead":
            overhead(Path(folder), arguments.seconds, arguments.tiles, arguments.rounds)
        else:
            many(Path(folder), arguments.images)


if __name__ == "__main__":
    sys.exit(main())
