"""Images of any size, whole slides among them, tile by tile through one compiled function."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.images.regions import Regions
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.prediction.merge import filled, merge_tiles
from maskrcnn_jax.prediction.seams import Tile
from maskrcnn_jax.prediction.tile_store import TileStore

# Glass is at least so bright in each channel, and what lies on it differs by more than this, of 255.
_GLASS, _CONTRAST = 160, 16
_CELL = 4  # Noise is averaged over cells of so many pixels.
# Tiles start at multiples of up to 2**6 pixels, so that strides and anchors lie as in the whole image.
_ALIGNMENT_BITS = 6

A, B = TypeVar("A"), TypeVar("B")


class BatchPredictor(Protocol):
    """What predicts tiles: a `Predictor`, or one wrapped in `Augmented`. `resume` needs the fingerprint.

    Where it has an attribute `stretch_grey` that is true, it gets the tiles of `ImageSource.stretched`.
    """

    fingerprint: str

    def batch(self, images: Sequence[np.ndarray], *, frame: tuple[int, int]) -> list[Result]: ...

    def start(
        self, images: Sequence[np.ndarray], *, frame: tuple[int, int]
    ) -> Callable[[], list[Result]]: ...


def stretches_grey(predict: BatchPredictor) -> bool:
    """Whether it wants images without colour to be stretched; a predictor of one's own need not say so."""
    return getattr(predict, "stretch_grey", False)


def is_tissue(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a tile may hold objects: False only for bright, even glass and for tiles of one colour.

    A single dark spot of about 4 x 4 pixels is enough. On a dark background, as in fluorescence, nothing
    but perfect evenness is empty, since objects may be hardly brighter than what is around them.
    """
    cells = np.asarray(Image.fromarray(pixels).reduce(_CELL)).reshape(-1, 3).astype(np.int16)
    glass = np.median(cells, axis=0)
    if glass.min() >= _GLASS:
        return bool((np.abs(cells - glass) > _CONTRAST).any())
    return bool((pixels != pixels[0, 0]).any())


def _shown(predict: BatchPredictor, source: ImageSource) -> ImageSource:
    """The image as the predictor wants it."""
    return source.stretched() if stretches_grey(predict) else source


def predict_tiled(
    predict: BatchPredictor,
    source: ImageSource,
    *,
    tile: int = 1024,
    overlap: int = 128,
    tissue: Callable[[UInt8[np.ndarray, "h w 3"]], bool] | None = is_tissue,
    batch: int = 1,
    zoom: float = 1.0,
    regions: Regions | None = None,
    progress: Callable[[int, int], None] | None = None,
    resume: str | os.PathLike[str] | None = None,
) -> Result:
    """Finds the objects in an image of any size; `merge` says how the tiles' detections become one result.

    Memory holds a few tiles and the detections (merged row by row of tiles), never the image.

    Args:
      predict: its limits (proposals and detections an image) apply to each tile. With
        `config.test_resize`, each tile is resized as an image of `tile` x `tile` pixels.
      source: as `open_source` gives it.
      tile: side of the tiles in pixels.
      overlap: pixels that neighbouring tiles share, at least: more than the largest objects are long.
      tissue: tells from a tile's pixels whether they are worth predicting; None predicts all.
      batch: how many tiles the model gets at once.
      zoom: the model sees the image enlarged by this. Below 1, tiles are read from the level of a pyramid
        that is next above; `tile`, `overlap` and the result are in pixels of the finest all the same.
      regions: tiles that touch none of them are neither read nor predicted.
      progress: called with the number of tiles done and of all.
      resume: a folder in which each finished tile is kept. After a kill, the same call goes on from there.

    Returns:
      Boxes and masks in the pixels of the whole image, best first.

    Raises:
      UserError: sizes that make no sense; or `resume` holds tiles of another image, model or grid.
      DataError: the image's file is damaged.
    """
    options = {"tile": tile, "tissue": tissue, "batch": batch, "zoom": zoom, "regions": regions}
    tiles = tile_grid(source.size, tile, overlap)
    numbers = range(len(tiles))
    if resume:
        store = find_tiles(
            predict, source, numbers, overlap=overlap, progress=progress, resume=resume, **options
        )
        parts = map(store.read, numbers)
    else:
        found = _found(predict, _shown(predict, source), tiles, numbers, progress=progress, **options)
        parts = _in_order(found, len(tiles))
    return merge_tiles(filled(parts, source.size), tiles, source.size)


def find_tiles(
    predict: BatchPredictor,
    source: ImageSource,
    numbers: Sequence[int],
    *,
    tile: int = 1024,
    overlap: int = 128,
    tissue: Callable[[UInt8[np.ndarray, "h w 3"]], bool] | None = is_tissue,
    batch: int = 1,
    zoom: float = 1.0,
    regions: Regions | None = None,
    progress: Callable[[int, int], None] | None = None,
    resume: str | os.PathLike[str],
) -> TileStore:
    """Finds what `predict_tiled` finds in some of its tiles, before their seams are merged.

    Several processes may find those of one image at once, with one folder `resume` that is there already:
    with `numbers` empty, this makes it. `predict_tiled` then goes on from there.

    Args:
      numbers: of the tiles, in the order of `tile_grid`.
      predict, source, tile, overlap, tissue, batch, zoom, regions, progress, resume: as `predict_tiled` has
        them.

    Returns:
      The folder, which has all of these tiles now; none is kept in memory.
    """
    source = _shown(predict, source)
    tiles = tile_grid(source.size, tile, overlap)
    store = TileStore(resume, _identity(predict, source, tile, overlap, tissue, zoom, regions))
    missing = [n for n in numbers if n not in store]
    options = {"tile": tile, "tissue": tissue, "batch": batch, "zoom": zoom, "regions": regions}
    for number, part in _found(
        predict, source, tiles, missing, before=len(numbers) - len(missing), progress=progress, **options
    ):
        store.save(number, part)
    return store


def _found(
    predict: BatchPredictor,
    source: ImageSource,
    tiles: Sequence[Tile],
    numbers: Sequence[int],
    *,
    tile: int,
    tissue: Callable[[UInt8[np.ndarray, "h w 3"]], bool] | None,
    batch: int,
    zoom: float,
    regions: Regions | None,
    progress: Callable[[int, int], None] | None,
    before: int = 0,
) -> Iterator[tuple[int, Result | None]]:
    """Some tiles' numbers and detections in the frame of the whole image; None where there is no tissue.

    Args:
      source: as the predictor wants to be shown it.
      before: how many tiles were done before these, for `progress`.
    """

    def look(number: int) -> tuple[int, UInt8[np.ndarray, "h w 3"] | None]:
        if regions and not regions.touch(*tiles[number]):
            return number, None
        pixels = (
            source.read_reduced(*tiles[number], most=1 / zoom) if zoom < 1 else source.read(*tiles[number])
        )
        return number, pixels if tissue is None or tissue(pixels) else None

    def start(numbers: Sequence[int], images: Sequence[np.ndarray]) -> Callable[[], list[Result]]:
        sides = {} if zoom == 1 else {"zoom": zoom, "shapes": [tiles[n][2:] for n in numbers]}
        return predict.start(images, frame=(tile, tile), **sides)

    for done, (number, part) in enumerate(_predicted(start, ahead(look, numbers), batch), before + 1):
        if progress:
            progress(done, before + len(numbers))
        yield number, None if part is None else _placed(part, tiles[number], source.size)


def _in_order(found: Iterator[tuple[int, Result | None]], count: int) -> Iterator[Result | None]:
    """Tiles 0, 1, 2, ...; those without tissue are done a little before their turn."""
    early: dict[int, Result | None] = {}
    for number in range(count):
        while number not in early:
            early.update([next(found)])
        yield early.pop(number)


def tile_grid(size: tuple[int, int], tile: int, overlap: int) -> list[Tile]:
    """Tiles that cover an image, row by row; those at its lower and right border may be a little smaller.

    Args:
      size: height and width of the image in pixels.
      tile: side of the tiles.
      overlap: of neighbours, at least.

    Raises:
      UserError: the overlap leaves no way forward.
    """
    if not 0 <= overlap < tile:
        raise UserError(f"tiles of {tile} pixels cannot overlap by {overlap}: take 0 to {tile - 1}")
    rows, columns = (_starts(side, tile, tile - overlap) for side in size)
    return [
        Tile(top, left, min(tile, size[0] - top), min(tile, size[1] - left))
        for top in rows
        for left in columns
    ]


def _starts(length: int, tile: int, step: int) -> list[int]:
    unit = 1 << min(step.bit_length() - 1, _ALIGNMENT_BITS)
    last = -(-max(length - tile, 0) // unit) * unit  # reaches the border, with as much context as can be
    return [*range(0, last, step // unit * unit), last]


def ahead(function: Callable[[A], B], items: Iterable[A], count: int = 1) -> Iterator[B]:
    """`map`, with the next `count` items already under way in a thread."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[B]] = deque()
        for item in items:
            coming.append(pool.submit(function, item))
            if len(coming) > count:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _predicted(
    start: Callable[[Sequence[int], Sequence[np.ndarray]], Callable[[], list[Result]]],
    windows: Iterable[tuple[int, UInt8[np.ndarray, "h w 3"] | None]],
    batch: int,
) -> Iterator[tuple[int, Result | None]]:
    """Each tile's number and detections; None for those without pixels to look at.

    The device works on a batch while a thread pastes the masks of the one before.
    """
    with ThreadPoolExecutor(1) as pool:
        numbers, coming = [], None
        for numbers_next, images in _batches(windows, batch):
            if not images:
                yield from ((number, None) for number in numbers_next)
                continue
            # The last batch is filled up: a smaller one would be compiled anew.
            numbers_filled, filled = (
                [*some, *some[-1:] * (batch - len(some))] for some in (numbers_next, images)
            )
            ready, coming = coming, pool.submit(start(numbers_filled, filled))
            if ready:
                yield from zip(numbers, ready.result(), strict=False)
            numbers = numbers_next
        if coming:
            yield from zip(numbers, coming.result(), strict=False)


def _batches(
    windows: Iterable[tuple[int, UInt8[np.ndarray, "h w 3"] | None]], batch: int
) -> Iterator[tuple[list[int], list[UInt8[np.ndarray, "h w 3"]]]]:
    """Numbers and pixels of so many tiles; a tile without pixels comes alone."""
    numbers, images = [], []
    for number, pixels in windows:
        if pixels is None:
            yield [number], []
            continue
        numbers.append(number)
        images.append(pixels)
        if len(images) == batch:
            yield numbers, images
            numbers, images = [], []
    if images:
        yield numbers, images


def _placed(result: Result, tile: Tile, size: tuple[int, int]) -> Result:
    """A tile's detections in the frame of the whole image."""
    crops = result.crops.moved(tile.top, tile.left)
    shift = np.array([tile.left, tile.top] * 2, np.float32)
    return Result(result.boxes + shift, result.scores, result.classes, crops, size)


def _identity(
    predict: BatchPredictor,
    source: ImageSource,
    tile: int,
    overlap: int,
    tissue: Callable | None,
    zoom: float,
    regions: Regions | None,
) -> dict[str, Any]:
    chosen = ({} if zoom == 1 else {"zoom": zoom}) | ({"regions": regions.fingerprint} if regions else {})
    return chosen | {
        "image": source.fingerprint,
        "size": source.size,
        "tile": tile,
        "overlap": overlap,
        "tissue": getattr(tissue, "__qualname__", repr(tissue)),
        "model": predict.fingerprint,
    }
