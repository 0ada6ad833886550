"""Images per second of the input pipeline, against the same work in other libraries, in one run.

python benchmarks/input_pipeline.py [--path ../shared/data/vrdl/train] [--steps 60] [--torch PYTHON]

The work is the report's: a crop of 500 x 500 pixels with about 300 instances becomes 608 to 800 px, is
flipped, and gets its boxes, instance map and padding. Nobody decodes: all start from the same records.
Two peers have a bitmask for each instance: torchvision's transforms v2 in a DataLoader, where the Python
that --torch names has it, and plain NumPy and Pillow; a third one uses this package's idea, a label map, in
NumPy and SciPy. They run in as many processes as there are cores. All are measured in turn, several times,
and the best of each counts. Without the data, images are drawn. Then the stages: milliseconds in one
thread, each the difference to those before it.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is first imported

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from maskrcnn_jax.data.augment import compose
from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.padding import pad_sample
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.data.selection import whole
from maskrcnn_jax.data.synthetic import draw_records

CROP, SIZES, CANVAS, INSTANCES = 500, (608, 640, 672, 704, 736, 768, 800), (800, 800), 800
AUGMENT = (
    {"op": "random_crop", "size": CROP},
    {"op": "resize_shortest_edge", "sizes": SIZES, "longest": 800},
    {"op": "flip_horizontal"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, default=Path("../shared/data/vrdl/train"))
    parser.add_argument("--images", type=int, default=4, help="how many are read, the densest")
    parser.add_argument("--steps", type=int, default=60, help="images of the pipeline in each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torchvision")
    arguments = parser.parse_args()
    records = _records(arguments.path, arguments.images)
    cores = len(os.sched_getaffinity(0))
    instances = np.mean([batch.valid.sum() for batch in _stream(records, 20)])
    print(f"{len(records)} images, {instances:.0f} instances a crop, {cores} cores")
    few = max(arguments.steps // 4, 4 * cores)
    pools = multiprocessing.get_context("spawn").Pool(cores, _take, (records,))
    with pools as pool, _torchvision(arguments.torch, records, cores) as torchvision:
        runs = {
            "this pipeline": lambda: _rate(_stream(records, arguments.steps), arguments.steps),
            "NumPy, bitmasks": lambda: _rate(pool.imap_unordered(_bitmask_sample, range(few)), few),
            "NumPy, label map": lambda: _rate(pool.imap_unordered(_label_sample, range(few)), few),
        }
        if torchvision:
            runs["torchvision v2"] = lambda: torchvision(few)
        pool.map(_bitmask_sample, range(2 * cores))
        rates = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                rates[name].append(run())
    best = {name: max(rounds) for name, rounds in rates.items()}
    for name, rounds in rates.items():
        ratio = best["this pipeline"] / best[name]
        listed = ", ".join(f"{rate:.1f}" for rate in rounds)
        print(f"  {name:<18} {best[name]:7.1f} images/s   ratio {ratio:5.2f}   rounds {listed}")
    _print_stages(records, arguments.steps)


def _records(path: Path, count: int) -> list[Record]:
    if path.is_dir():
        entries = list_entries("mask_folder", path).entries
        densest = sorted(entries, key=lambda entry: -len(list((path / entry.name / "masks").iterdir())))
        return read_records(densest[:count])
    print(f"{path} is not there: drawing images")
    return draw_records(count, seed=0, size=1000, nuclei=(1200, 1200))


def _stream(records: list[Record], steps: int):
    return batches(
        records,
        augment=AUGMENT,
        canvas=CANVAS,
        batch_size=1,
        max_instances=INSTANCES,
        seed=0,
        steps=steps,
    )


def _rate(stream, count: int) -> float:
    """Images per second after the first, which waits for the pipeline to start."""
    iterator = iter(stream)
    next(iterator)
    start = time.perf_counter()
    taken = sum(1 for _ in iterator)
    assert taken == count - 1
    return taken / (time.perf_counter() - start)


@contextlib.contextmanager
def _torchvision(python: str, records: list[Record], workers: int) -> Iterator[Callable[[int], float] | None]:
    """What measures torchvision on a number of samples, in a process of its own; None without it."""
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True).returncode:
        print(f"torchvision is left out: {python} has none (--torch)")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"image{i}": record.image.transpose(2, 0, 1) for i, record in enumerate(records)}
        arrays |= {f"layers{i}": record.layers.astype(np.int32) for i, record in enumerate(records)}
        path = Path(folder, "records.npz")
        np.savez(path, **arrays)
        script = Path(__file__).with_name("input_pipeline_torch.py")
        options = ",".join(map(str, SIZES)), str(CROP), str(CANVAS[0]), str(workers)
        command = [python, str(script), str(path), *options]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as process:
            print(f"torchvision {json.loads(process.stdout.readline())}")

            def measure(count: int) -> float:
                process.stdin.write(f"{count}\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield measure
            process.stdin.close()


_RECORDS: list[Record] = []  # of a worker process


def _take(records: list[Record]) -> None:
    _RECORDS.extend(records)


def _cut(number: int) -> tuple[Record, tuple[slice, slice], int, bool]:
    """A record, a window, the new side and whether to flip."""
    rng = np.random.default_rng(number)
    record = _RECORDS[number % len(_RECORDS)]
    top, left = (rng.integers(0, side - CROP + 1) for side in record.size)
    window = np.s_[top : top + CROP, left : left + CROP]
    return record, window, int(rng.choice(SIZES)), rng.random() < 0.5


def _resized(pixels: np.ndarray, side: int, flip: bool, how: Image.Resampling) -> np.ndarray:
    scaled = np.asarray(Image.fromarray(pixels).resize((side, side), how))
    return scaled[:, ::-1] if flip else scaled


def _bitmask_sample(number: int) -> tuple[np.ndarray, ...]:
    """One padded sample, mask by mask."""
    record, window, side, flip = _cut(number)
    images = np.zeros((*CANVAS, 3), np.uint8)
    images[:side, :side] = _resized(record.image[window], side, flip, Image.Resampling.BILINEAR)
    instance_map = np.zeros((len(record.layers), *CANVAS), np.uint16)
    boxes = np.zeros((INSTANCES, 4), np.float32)
    count = 0
    for n in range(len(record.classes)):
        mask = record.layers[(record.layer[n], *window)] == n + 1
        if not mask.any() or count == INSTANCES:
            continue
        mask = _resized(mask, side, flip, Image.Resampling.NEAREST)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            boxes[count] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            count += 1
            instance_map[record.layer[n], :side, :side][mask] = count
    return images[:1, :1], instance_map[:1, :1, :1], boxes  # made, but not worth sending


def _label_sample(number: int) -> tuple[np.ndarray, ...]:
    """One padded sample from label maps; what SciPy does in C."""
    record, window, side, flip = _cut(number)
    images = np.zeros((*CANVAS, 3), np.uint8)
    images[:side, :side] = _resized(record.image[window], side, flip, Image.Resampling.BILINEAR)
    instance_map = np.zeros((len(record.layers), *CANVAS), np.uint16)
    boxes = np.zeros((INSTANCES, 4), np.float32)
    count = 0
    for layer, values in enumerate(record.layers):
        scaled = _resized(values[window], side, flip, Image.Resampling.NEAREST)
        renumber = np.zeros(len(record.classes) + 1, np.uint16)
        for n, found in enumerate(ndimage.find_objects(scaled.astype(np.int32))):
            if found is not None and count < INSTANCES:
                rows, columns = found
                boxes[count] = columns.start, rows.start, columns.stop, rows.stop
                count += 1
                renumber[n + 1] = count
        instance_map[layer, :side, :side] = renumber[scaled]
    return images[:1, :1], instance_map[:1, :1, :1], boxes


def _print_stages(records: list[Record], steps: int) -> None:
    """Milliseconds of each stage in one thread: the difference to the stages before it."""
    images = [tf.constant(record.image) for record in records]
    layers = [tf.constant(record.layers) for record in records]
    counts = [len(record.classes) for record in records]
    depth = max(len(record.layers) for record in records)
    shapes = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None, None), tf.uint16)
    signature = (*shapes, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((2,), tf.int64))
    previous = 0.0
    print("stage (one thread)          ms an image")
    for name, ops, finish in (
        ("crop", AUGMENT[:1], False),
        ("resize", AUGMENT[:2], False),
        ("flip", AUGMENT, False),
        ("boxes and padding", AUGMENT, True),
    ):
        function = tf.function(_stage(ops, finish, depth), input_signature=signature)
        total = _milliseconds(
            lambda i, f=function: f(
                images[i % len(images)],
                layers[i % len(images)],
                tf.zeros(counts[i % len(images)], tf.int32),
                tf.constant([0, i], tf.int64),
            ),
            steps,
        )
        print(f"  {name:<25} {total - previous:8.1f}")
        previous = total
    whole = 1000 / _rate(_stream(records, steps), steps)
    print(f"  the pipeline, all cores    {whole:8.1f}  (with reading from memory, padding and batching)")


def _stage(ops, finish: bool, depth: int) -> Callable:
    augment = compose(ops)
    sizes = {"canvas": CANVAS, "depth": depth, "max_instances": INSTANCES}

    def run(image, layers, classes, seed):
        image, selection, _ = augment(image, whole(layers), seed)
        if not finish:
            return image, selection
        nothing = tf.fill([tf.size(classes), 4], np.float32(np.nan))
        return pad_sample(0, image, selection, nothing, classes, classes > 0, classes, **sizes)

    return run


def _milliseconds(call: Callable[[int], object], count: int) -> float:
    for i in range(3):
        call(i)
    start = time.perf_counter()
    for i in range(count):
        call(i)
    return 1000 * (time.perf_counter() - start) / count


if __name__ == "__main__":
    # One thread inside of each op, so that the stages add up; the pipeline itself runs ops side by side.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    main()
