"""Shows that memory does not grow with a prepared data set: prepares and trains from many small images.

python benchmarks/prepared_memory.py [--images 20000]

Prints the process's resident memory along the way. TFDS gathers up to one gigabyte before it writes, so
preparing levels off there; reading must be flat from its first hundred batches on.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is first imported

import numpy as np
import psutil

from maskrcnn_jax.data.builder import prepare
from maskrcnn_jax.data.entries import Entry, Reading
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.prepared import PreparedRecords
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.data.synthetic import draw_records

SIZE = 64
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    count = parser.parse_args().images
    drawn = draw_records(50, seed=0, size=SIZE, nuclei=(5, 10))

    def read(i: int) -> Reading:
        """A drawn image, rolled to another place: cheap, and hard to compress away."""
        base, shift = drawn[i % len(drawn)], i // len(drawn) % SIZE
        image, layers = np.roll(base.image, shift, axis=1), np.roll(base.layers, shift, axis=2)
        return Reading(Record(i, f"image_{i}", image, layers, base.classes), [], [], [])

    entries = [Entry(i, f"image_{i}", "", lambda i=i: read(i)) for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        target = prepare(folder, {"train": entries}, progress=_watch("prepared", count // 8))
        records = PreparedRecords(target, "train")
        size = sum(path.stat().st_size for path in target.iterdir()) / 2**20
        print(f"{count} images, {size:.0f} MiB of shards, {time.perf_counter() - start:.0f} s")
        watch = _watch("trained on", count // 8 // BATCH * BATCH)
        stream = batches(
            records,
            augment=({"op": "flip_horizontal"}, {"op": "rotate90"}),
            canvas=(SIZE, SIZE),
            batch_size=BATCH,
            max_instances=16,
            seed=0,
            steps=count // BATCH,
        )
        start = time.perf_counter()
        for step, _ in enumerate(stream, 1):
            watch(step * BATCH, count)
        print(f"one epoch of augmented batches: {count / (time.perf_counter() - start):.0f} images/s")


def _watch(what: str, every: int):
    process = psutil.Process()

    def watch(done: int, total: int) -> None:
        if done % every == 0 or done == 100 * BATCH:
            print(f"  {what} {done:6d} of {total}: {process.memory_info().rss / 2**20:6.0f} MiB", flush=True)

    return watch


if __name__ == "__main__":
    main()
