"""Tiled prediction against that of the whole image, and of a slide from disk to a file of results.

    python benchmarks/tiled_prediction.py mosaic --bundle DIR --images ../shared/data/vrdl/train
    python benchmarks/tiled_prediction.py slide --bundle DIR --images ../shared/data/vrdl/train --out DIR
    python benchmarks/tiled_prediction.py labels [--side 100000] [--objects 200000]
    python benchmarks/tiled_prediction.py paste

`mosaic` puts the last four images of a data set of mask folders together and compares what the same
parameters find there at once and by tiles. Limits on proposals and detections are given by area, so that
both have equal chances: `--limits 1` is the config's own for each million pixels.

`slide` writes a tiled TIFF of such images around empty glass and predicts it in a process of its own, which
it kills after half of the tiles and starts again. The results are in `results.json`.

`labels` writes the label image of a slide with so many discs of 15 pixels, as OME-Zarr and as TIFF: time, and
by how much each lets the process grow beyond the objects themselves.

`paste` measures how long it takes from the device's arrays to the result of an image of 1000 x 1000 pixels.
"""

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tifffile
from pycocotools import mask as coco

from maskrcnn_jax.evaluation.coco import to_results
from maskrcnn_jax.files import atomic
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.masks.crops import pack
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.label_image import write_labels
from maskrcnn_jax.outputs.label_zarr import write_label_zarr
from maskrcnn_jax.outputs.writers import write_coco_results
from maskrcnn_jax.prediction.predictor import Predictor, to_result
from maskrcnn_jax.prediction.tiling import predict_tiled, tile_grid
from maskrcnn_jax.structures import Detections

CELL = 1000  # pixels of an image's side
FILE_TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, side in (("mosaic", 1800), ("slide", 20_000)):
        command = commands.add_parser(name)
        command.add_argument("--bundle", type=Path, required=True)
        command.add_argument("--images", type=Path, required=True, help="a data set of mask folders")
        command.add_argument("--side", type=int, default=side, help="of the whole image, in pixels")
        command.add_argument("--tile", type=int, default=1024)
        command.add_argument("--overlap", type=int, default=128)
        command.add_argument("--limits", type=float, default=1.0)
    command.add_argument("--tissue", type=float, default=0.5, help="share of the slide that is no glass")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--predict", action="store_true", help=argparse.SUPPRESS)
    command = commands.add_parser("labels")
    command.add_argument("--side", type=int, default=100_000, help="of the slide, in pixels")
    command.add_argument("--objects", type=int, default=200_000)
    commands.add_parser("paste")
    arguments = parser.parse_args()
    {"mosaic": mosaic, "slide": slide, "labels": measure_labels, "paste": measure_paste}[arguments.command](
        arguments
    )


def mosaic(arguments: argparse.Namespace) -> None:
    a, b, c, d = images_of(arguments)[-4:]
    # Cut, so that the seams of the tiles are not those of the images.
    image = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])[
        -arguments.side :, -arguments.side :
    ]
    side, tile, overlap = image.shape[0], arguments.tile, arguments.overlap
    start = time.perf_counter()
    whole = predictor_of(arguments, side)(image)
    print(f"at once: {time.perf_counter() - start:.0f} s with compilation", flush=True)
    start = time.perf_counter()
    tiled = predict_tiled(predictor_of(arguments, tile), open_source(image), tile=tile, overlap=overlap)
    count = len(tile_grid(image.shape[:2], tile, overlap))
    print(f"{count} tiles of {tile}: {time.perf_counter() - start:.0f} s with compilation")
    print("score at least  at once  in tiles  difference  found again by tiles  at once")
    for least in (0.05, 0.1, 0.3, 0.5, 0.7):
        masks, others = (masks_of(result, least) for result in (whole, tiled))
        same = coco.iou(masks, others, [0] * len(others)) >= 0.9
        print(
            f"{least:14} {len(masks):8} {len(others):9} {len(others) / len(masks) - 1:+11.2%}"
            f" {same.any(axis=1).mean():21.2%} {same.any(axis=0).mean():8.2%}"
        )


def masks_of(result: Result, least: float) -> list:
    return [mask for mask, score in zip(result.masks, result.scores, strict=True) if score >= least]


def slide(arguments: argparse.Namespace) -> None:
    if arguments.predict:
        return predict_slide(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "slide.tif"
    if not path.exists():
        start = time.perf_counter()
        write_slide(path, images_of(arguments), arguments.side, arguments.tissue)
        print(
            f"{path}: {path.stat().st_size / 2**20:.0f} MiB, written in {time.perf_counter() - start:.0f} s"
        )
    tiles = arguments.out / "tiles"
    half = len(tile_grid((arguments.side,) * 2, arguments.tile, arguments.overlap)) // 2
    command = [sys.executable, *sys.argv, "--predict"]
    start = time.perf_counter()
    child = subprocess.Popen(command)
    while child.poll() is None and len(list(tiles.glob("tile_*.npz"))) < half:
        time.sleep(0.5)
    child.kill()
    child.wait()
    print(f"killed after {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    print(f"went on and ended after another {time.perf_counter() - start:.0f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"peak memory of the two processes: {peak:.2f} GiB")


def predict_slide(arguments: argparse.Namespace) -> None:
    start, first = time.perf_counter(), None

    def progress(done, total):
        nonlocal first
        first = done if first is None else first
        if done in (first, total) or done % 20 == 0:
            print(f"{done} of {total} tiles, {time.perf_counter() - start:.0f} s", flush=True)

    with open_source(arguments.out / "slide.tif") as source:
        result = predict_tiled(
            predictor_of(arguments, arguments.tile),
            source,
            tile=arguments.tile,
            overlap=arguments.overlap,
            resume=arguments.out / "tiles",
            progress=progress,
        )
    print(f"{len(result)} objects, {(result.scores >= 0.5).sum()} with a score of at least 0.5")
    write_coco_results(arguments.out / "results.json", to_results([(1, result)]))


def write_slide(path: Path, images: list[np.ndarray], side: int, share: float) -> None:
    """A disc of tissue, each cell another image, mirrored; around it glass with a camera's noise."""
    cells = -(-side // CELL)
    radius = np.sqrt(share / np.pi) * cells
    noise = np.random.default_rng(0).normal(0, 2, (CELL, CELL, 3))
    glass = (np.array([243, 242, 245]) + noise).astype(np.uint8)

    def cell(row, column):
        if np.hypot(row + 0.5 - cells / 2, column + 0.5 - cells / 2) > radius:
            return glass
        image = images[(5 * row + column) % len(images)]
        return image[:: -1 if row % 2 else 1, :: -1 if column % 3 else 1]

    def tiles() -> Iterator[np.ndarray]:
        for top in range(0, side, FILE_TILE):
            rows = range(top // CELL, min((top + FILE_TILE - 1) // CELL + 1, cells))
            band = np.concatenate(
                [np.concatenate([cell(row, column) for column in range(cells)], axis=1) for row in rows]
            )[top - rows[0] * CELL :][:FILE_TILE, :side]
            band = band[: side - top]
            for left in range(0, side, FILE_TILE):
                yield np.ascontiguousarray(band[:, left : left + FILE_TILE])

    with atomic(path) as temporary, tifffile.TiffWriter(temporary) as file:
        file.write(
            tiles(),
            shape=(side, side, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(FILE_TILE, FILE_TILE),
            compression="jpeg",
            compressionargs={"level": 90},
        )


def images_of(arguments: argparse.Namespace) -> list[np.ndarray]:
    return [read_image(path) for path in sorted(arguments.images.glob("*/images/*.png"))]


def predictor_of(arguments: argparse.Namespace, side: int) -> Predictor:
    """The bundle's model, with limits in proportion to the pixels of an image of this side."""
    config, params = load_bundle(arguments.bundle)
    factor = arguments.limits * side**2 / 1e6

    def scaled(limits):
        return tuple(round(limit * factor) for limit in limits)

    rpn = dataclasses.replace(
        config.rpn, pre_nms=scaled(config.rpn.pre_nms), post_nms=scaled(config.rpn.post_nms)
    )
    detection = dataclasses.replace(
        config.detection, max_detections=scaled([config.detection.max_detections])[0]
    )
    print(
        f"{side} px: {rpn.pre_nms[1]} boxes a level, {rpn.post_nms[1]} proposals, "
        f"{detection.max_detections} detections at most",
        flush=True,
    )
    return Predictor(dataclasses.replace(config, rpn=rpn, detection=detection), params)


def measure_labels(arguments: argparse.Namespace) -> None:
    side, count, rng = arguments.side, arguments.objects, np.random.default_rng(0)
    disc = np.hypot(*(np.mgrid[:15, :15] - 7)) < 7.5
    cells = rng.choice((side // 16) ** 2, count, replace=False)  # Discs do not overlap.
    corners = np.stack(np.divmod(cells, side // 16), axis=1) * 16
    crops = pack(np.broadcast_to(disc, (count, 15, 15)), corners)
    columns = np.zeros((count, 4), np.float32), np.ones(count, np.float32), np.zeros(count, np.int32)
    result = Result(*columns, crops, (side, side))
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("x.zarr", write_label_zarr), ("x.tif", write_labels)):
            before, start = peak(), time.perf_counter()
            write(Path(folder, name), result)
            seconds, grown = time.perf_counter() - start, peak() - before
            files = [path for path in Path(folder).rglob("*") if path.is_file() and name in str(path)]
            size = sum(path.stat().st_size for path in files) / 2**20
            print(
                f"{name}: {seconds:.0f} s, grown by {grown:.0f} MiB; {len(files)} files, {size:.0f} MiB",
                flush=True,
            )


def peak() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure_paste(_: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    blob = 1.5 - np.hypot(*(np.mgrid[:28, :28] - 13.5)) / 14
    for count, side in (
        (500, 20),
        (500, 30),
        (500, 60),
        (500, 200),
        (500, 400),
        (2000, 20),
        (2000, 30),
        (2000, 60),
    ):
        masks = (blob + rng.normal(0, 0.1, (count, 28, 28))).clip(0, 1).astype(np.float32)
        centres, halves = rng.uniform(0, 1000, (count, 2)), rng.uniform(0.35, 0.65, (count, 2)) * side
        boxes = np.concatenate([centres - halves, centres + halves], axis=1).clip(0, 1000).astype(np.float32)
        found = Detections(boxes, np.ones(count), np.zeros(count, int), masks, np.ones(count, bool))
        seconds = []
        for _ in range(5):
            start = time.process_time()
            to_result(found, (1000, 1000), (1000, 1000))
            seconds.append(time.process_time() - start)
        print(f"{count} masks of about {side} x {side} px: {min(seconds):.4f} s of one core, best of 5")


if __name__ == "__main__":
    main()
