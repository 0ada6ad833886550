"""What Ray costs: a tile's overhead against the plain loop, a task's of the driver, and memory.

python benchmarks/cluster.py overhead [--seconds 0.1] [--tiles 8] [--rounds 3]
python benchmarks/cluster.py many [--images 20000]
python benchmarks/cluster.py objects [--objects 1000000] [--formats coco,geojson]
python benchmarks/cluster.py formats [--objects 1000000] [--formats labels,geojson,csv,overlay,ome-zarr]
python benchmarks/cluster.py rate [--workers 16] [--tasks 4000]

In the first two, the predictor finds nothing after so many seconds, so that nothing but the handing out is
measured; on a CPU, where the model itself would fill the machine, it sleeps. Plain loop and Ray take turns.

`objects` is one slide with so many discs of 15 pixels, which the predictor knows without looking. It says how
much memory driver and worker have on the way, and what the worker had at most; the discs are counted.

`formats` writes the objects of such a slide, which are on disk, by a process for each format, without Ray;
it says by how much that process's memory grew at most.

`rate` gives bands of tiles to workers that do nothing, on a machine that claims so many GPUs: what is left is
what a task costs the driver.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.masks.stored import StoredResult, sort_to_disk
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.prediction.cluster import BAND, Crew
from maskrcnn_jax.prediction.jobs import do_jobs
from maskrcnn_jax.prediction.journal import Job, Journal
from maskrcnn_jax.prediction.seams import order_of
from maskrcnn_jax.prediction.worker import Worker


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


class Knowing(Sleeper):
    """Finds the discs of a tile that starts at a multiple of STEP, as they are cut by its border."""

    fingerprint = "knowing"

    def __init__(self):
        super().__init__(0)
        side = TILE - STEP
        count = ROW + side * ROW // STEP + 1
        disc = np.hypot(*(np.mgrid[:15, :15] - 7)) < 7.5
        corners = [(disc_start(i), disc_start(j)) for i in range(count) for j in range(count)]
        corners = [corner for corner in corners if max(corner) < TILE]
        crops = crops_of_pixels([disc[: TILE - y, : TILE - x] for y, x in corners], corners)
        boxes = crops.rectangles[:, [1, 0, 3, 2]].astype(np.float32)
        scores = np.array(
            [0.5 + (y % STEP * 31 + x % STEP * 17) % 499 / 1000 for y, x in corners], np.float32
        )
        self.found = Result(boxes, scores, np.zeros(len(boxes), np.int32), crops, (TILE, TILE))

    def batch(self, images, **_):
        return [self.found for _ in images]


TILE, STEP = 1024, 896  # side of a tile, and what it is from one to the next
ROW = 44  # discs in that


def disc_start(number: int) -> int:
    """The first row of the discs of this row of discs, or column."""
    return (number * STEP + STEP // 2) // ROW - 7


def make(seconds: float, fields: dict) -> Worker:
    return Worker(Sleeper(seconds), **fields)


def make_knowing(_: float, fields: dict, note: Path) -> Worker:
    note.write_text(str(os.getpid()))
    return Worker(Knowing(), **fields)


def fields(out: Path, tile: int, formats: Sequence[str] = ("coco",)) -> dict:
    outputs = Outputs(out, formats, {1: "nucleus"})
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
                print(f"{n} images, {n / spent:.0f} a second, driver {memory('self'):.0f} MiB", flush=True)


def objects(folder: Path, count: int, formats: Sequence[str]) -> None:
    """A slide whose discs repeat from tile to tile, so that neighbours agree on what both see."""
    tiles = max(round((count**0.5 - 6) / ROW), 2)
    side = TILE + (tiles - 1) * STEP
    expected = sum(disc_start(n) < side for n in range((tiles + 1) * ROW)) ** 2
    write_slide(folder / "slide.tif", side)
    there, note, out = fields(folder / "out", TILE, formats), folder / "worker", folder / "out"
    print(f"{side} x {side} pixels, {tiles**2} tiles, {expected:,} discs", flush=True)
    start, at, done = time.perf_counter(), "", threading.Event()

    def watch():
        while not done.wait(10):
            writing = " ".join(path.name for path in out.glob(".slide*"))
            pid = note.read_text() if note.exists() else "self"
            print(
                f"{time.perf_counter() - start:6.0f} s, {at} {writing}: driver {memory('self'):.0f} MiB, "
                f"worker {memory(pid):.0f}, at most {memory(pid, 'VmHWM'):.0f}",
                flush=True,
            )

    def progress(some, total):
        nonlocal at
        at = f"{some} of {total} tiles"

    with Crew("local", partial(make_knowing, fields=there, note=note), 0.0) as crew:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            (outcome,) = crew.do([Job(folder / "slide.tif", "slide", 1, "slide.tif")], progress)
            peak, busy = memory(note.read_text(), "VmHWM"), processor_seconds(note.read_text())
        finally:
            done.set()
            watcher.join()
    assert outcome.fault is None, outcome.fault
    assert outcome.objects == expected, f"{outcome.objects} found of {expected}"
    print(f"{expected:,} objects ({','.join(formats)}) in {outcome.seconds:.0f} s: ", end="")
    print(f"driver {memory('self'):.0f} MiB, worker at most {peak:.0f}, {busy:.0f} s on the processor")


def write_slide(path: Path, side: int) -> None:
    """Squares of two greys, none of it blank."""
    blocks = np.random.default_rng(0).choice([60, 180], (16, 16, 1)).astype(np.uint8)
    segment = zlib.compress(blocks.repeat(32, 0).repeat(32, 1).repeat(3, 2))
    segments = (segment for _ in range((-(-side // 512)) ** 2))
    options = {"shape": (side, side, 3), "dtype": np.uint8, "tile": (512, 512), "photometric": "rgb"}
    tifffile.imwrite(path, segments, compression="zlib", **options)


def formats(folder: Path, count: int, names: Sequence[str]) -> None:
    """Memory and processor seconds of each format, for objects that are found already."""
    blocks = max(round(count**0.5 / ROW), 1)
    side = blocks * STEP
    write_slide(folder / "slide.tif", side)
    stored = sort_to_disk(map(partial(block, blocks), range(blocks**2)), folder / "objects", (side, side))
    for name in names:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            grown, busy = pool.submit(write_format, folder, name, stored).result()
        print(
            f"{len(stored):,} objects, {side} x {side} pixels, {name}: {grown:.0f} MiB more, "
            f"{busy:.0f} s on the processor",
            flush=True,
        )


def block(blocks: int, number: int) -> tuple[Result, np.ndarray]:
    """The discs of a square of STEP x STEP pixels, and their order."""
    inside = inner_discs()
    top, left = STEP * (number // blocks), STEP * (number % blocks)
    boxes = inside.boxes + np.array([left, top] * 2, np.float32)
    crops, size = inside.crops.moved(top, left), (blocks * STEP,) * 2
    numbers = number * len(inside) + np.arange(len(inside))
    return Result(boxes, inside.scores, inside.classes, crops, size), order_of(inside.scores, 0, numbers)


@cache
def inner_discs() -> Result:
    """Those of STEP x STEP pixels, none of which is cut."""
    whole = Knowing().found
    return whole.take(np.flatnonzero((whole.crops.rectangles[:, 2:] <= STEP).all(axis=1)))


def write_format(folder: Path, name: str, stored: StoredResult) -> tuple[float, float]:
    """MiB and seconds."""
    outputs = Outputs(folder, [name], {1: "nucleus"})
    with open_source(folder / "slide.tif") as source:
        before, start = memory("self"), time.process_time()
        outputs.write("slide", source, stored)
        return memory("self", "VmHWM") - before, time.process_time() - start


class Idle:
    """Does an image, in as many tiles as its number says, in no time."""

    def __init__(self, _: None):
        pass

    def __call__(self, job: Job) -> int:
        return 0

    def count_tiles(self, job: Job) -> int:
        return job.image_id

    def find_tiles(self, job: Job, numbers: Sequence[int]) -> None:
        pass


def rate(workers: int, tasks: int) -> None:
    """Tasks a second, the median of twenty parts, and the driver's processor time for each."""
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": workers, "GPU": workers})
    times, busy = [], []

    def progress(*_):
        times.append(time.perf_counter())
        busy.append(time.process_time())

    with Crew("local", Idle, None) as crew:
        while len(crew._idle) < workers:  # They come one by one.
            (outcome,) = crew.do([Job(Path("small"), "small", 0, "small")])
        times.clear()
        (outcome,) = crew.do([Job(Path("slide"), "slide", tasks * BAND, "slide")], progress)
        assert outcome.fault is None, outcome.fault
    parts = np.diff(times[:: len(times) // 20])
    print(
        f"{workers} workers, {len(times)} tasks: {np.median(len(times) // 20 / parts):.0f} a second; ", end=""
    )
    print(f"of the driver {1000 * (busy[-1] - busy[0]) / (len(busy) - 1):.2f} ms on the processor each")


def memory(pid: str, field: str = "VmRSS") -> float:
    """MiB that a process has now (VmRSS), or had at most (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def processor_seconds(pid: str) -> float:
    """That a process has used so far, all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["overhead", "many", "objects", "formats", "rate"])
    parser.add_argument("--seconds", type=float, default=0.1, help="that the predictor takes for a tile")
    parser.add_argument("--tiles", type=int, default=8, help="of the slide, along each side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--formats", default="coco,geojson", help="that are written of `objects`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "overhead":
            overhead(Path(folder), arguments.seconds, arguments.tiles, arguments.rounds)
        elif arguments.what == "rate":
            rate(arguments.workers, arguments.tasks)
        elif arguments.what in ("objects", "formats"):
            names = [name for name in arguments.formats.split(",") if name]
            {"objects": objects, "formats": formats}[arguments.what](Path(folder), arguments.objects, names)
        else:
            many(Path(folder), arguments.images)


if __name__ == "__main__":
    sys.exit(main())
