"""Tiled prediction with a predictor that makes no mistakes: whatever differs from the whole image is ours."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import Painted, contents, discs, find, paint

from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.images.intensity import stretch_grey
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.prediction.tiling import is_tissue, predict_tiled, tile_grid


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300), st.data())
def test_tiles_cover_the_image_and_overlap(height, width, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    if height * width > 90_000 * (tile - overlap):
        return  # thousands of tiles
    tiles = tile_grid((height, width), tile, overlap)
    tops, lefts = sorted({t.top for t in tiles}), sorted({t.left for t in tiles})
    assert [(t.top, t.left) for t in tiles] == list(itertools.product(tops, lefts))
    for starts, side, length in ((tops, 2, height), (lefts, 3, width)):
        assert starts[0] == 0
        assert starts[-1] + max(t[side] for t in tiles if t[side - 2] == starts[-1]) == length
        assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    assert all(0 < t.height <= tile and 0 < t.width <= tile for t in tiles)


def test_tiles_keep_to_the_strides():
    tops = {tile.top for tile in tile_grid((20_000, 100), 1024, 128)}
    assert all(top % 64 == 0 for top in tops) and len(tops) == 23


@pytest.mark.parametrize("overlap", [64, 70, -1])
def test_overlap_as_large_as_the_tile_is_refused(overlap):
    with pytest.raises(ValueError, match=f"tiles of 64 pixels cannot overlap by {overlap}: take 0 to 63"):
        tile_grid((100, 100), 64, overlap)


@pytest.mark.parametrize("size", [(300, 200), (129, 257), (40, 300), (64, 64), (2, 30), (30, 20)])
@pytest.mark.parametrize("overlap", [24, 40])
def test_equals_the_whole_image(size, overlap):
    rng = np.random.default_rng(size)
    image = paint(size, discs(rng, size, size[0] * size[1] // 150 + 1, 11))
    whole = find(image)
    tiled = predict_tiled(Painted(), open_source(image), tile=64, overlap=overlap)
    assert contents(tiled) == contents(whole) and tiled.size == size
    assert len(tiled) == len(whole) > 0
    assert (np.diff(tiled.scores) <= 0).all()


def test_what_a_model_sees_in_empty_glass_at_a_seam_is_dropped():
    """Only the upper tile has tissue; at its lower border the model sees what is not in the one below."""

    class Dreamer(Painted):
        def batch(self, images, **options):
            dreams = [image.copy() for image in images]
            for dream in dreams:
                dream[-6:, 20:30] = 90
            return super().batch(dreams, **options)

    image = paint((112, 64), [np.s_[5:25, 5:25]])
    found = predict_tiled(Dreamer(), open_source(image), tile=64, overlap=16)
    assert contents(found) == contents(find(image))


def test_what_the_owner_misses_its_neighbour_keeps(rng):
    """Each tile misses a tenth of its objects. What some tile has found whole is in the result, once."""
    size, found_whole = (300, 300), set()

    class Forgetful(Painted):
        def batch(self, images, **options):
            results = []
            for image, result in zip(images, super().batch(images, **options), strict=True):
                result = result.take(np.flatnonzero(rng.random(len(result)) >= 0.1))
                height, width = image.shape[:2]
                for x0, y0, x1, y1 in result.boxes.astype(int).tolist():
                    if min(x0, y0, width - x1, height - y1) > 4:
                        found_whole.add(tuple(image[y0, x0].tolist()))
                results.append(result)
            return results

    corners = [(top, left) for top in range(5, 290, 7) for left in range(5, 290, 7)]
    image = np.full((*size, 3), 255, np.uint8)
    for n, (top, left) in enumerate(corners):
        image[top : top + 4, left : left + 4] = (n // 250, n % 250, 0)
    tiled = predict_tiled(Forgetful(), open_source(image), tile=64, overlap=24, tissue=None)
    colours = [tuple(image[y0, x0].tolist()) for x0, y0, *_ in tiled.boxes.astype(int).tolist()]
    assert len(colours) == len(set(colours)) and found_whole <= set(colours)
    assert len(colours) > 0.93 * len(corners)


def test_objects_longer_than_the_overlap_are_put_together():
    """Some are longer than a tile, cross corners, or end within the overlap or just beyond it."""
    image = paint(
        (300, 300),
        [
            np.s_[10:20, 5:290],
            np.s_[30:290, 30:38],
            np.s_[44:52, 44:80],
            np.s_[60:170, 60:170],
            np.s_[200:204, 100:145],
            np.s_[210:214, 100:129],
            np.s_[220:224, 40:65],
            np.s_[230:234, 62:97],
        ],
    )
    for overlap in (16, 20, 32):
        tiled = predict_tiled(Painted(), open_source(image), tile=64, overlap=overlap, tissue=None)
        assert len(tiled) == 8
        assert {mask["counts"] for mask in tiled.masks} == {mask["counts"] for mask in find(image).masks}


def test_one_shape_and_full_batches():
    """All tiles lie in one frame, and the last batch is filled up."""
    predict = Painted()
    image = np.random.default_rng(0).integers(0, 2, (150, 100, 3), np.uint8)
    predict_tiled(predict, open_source(image), tile=64, overlap=16, batch=4)
    assert {(count, frame) for count, *_, frame, _ in predict.shapes} == {(4, (64, 64))}


def test_blank_tiles_are_not_predicted():
    image = paint((400, 400), [np.s_[10:14, 10:14], np.s_[300:330, 310:340]])
    predict, seen = Painted(), []
    tiled = predict_tiled(
        predict, open_source(image), tile=64, overlap=16, progress=lambda *done: seen.append(done)
    )
    assert contents(tiled) == contents(find(image))
    total = len(tile_grid((400, 400), 64, 16))
    assert seen == [(n, total) for n in range(1, total + 1)]
    assert len(predict.shapes) < total / 4
    everywhere = Painted()
    predict_tiled(everywhere, open_source(image), tile=64, overlap=16, tissue=None)
    assert len(everywhere.shapes) == total


def test_one_pixel():
    dot = open_source(np.zeros((1, 1, 3), np.uint8))
    assert len(predict_tiled(Painted(), dot, tissue=None)) == 1
    assert len(predict_tiled(Painted(), dot)) == 0  # of one colour


def test_nothing_at_all():
    blank = np.full((100, 90, 3), 240, np.uint8)
    result = predict_tiled(Painted(), open_source(blank), tile=64, overlap=16)
    assert len(result) == 0 and result.size == (100, 90) and result.boxes.shape == (0, 4)


def tile_of(value, size=256):
    return np.full((size, size, 3), value, np.uint8)


def glass(rng, sigma=4.0, slope=0.0):
    noise = rng.normal(240, sigma, (256, 256, 3)) + np.linspace(-slope, slope, 256)[:, None, None]
    return noise.clip(0, 255).astype(np.uint8)


def test_tissue_is_what_differs_from_bright_glass(rng):
    assert not is_tissue(tile_of(255)) and not is_tissue(tile_of((225, 215, 230)))
    assert not is_tissue(glass(rng)) and not is_tissue(glass(rng, slope=8))
    for place in ((0, 0), (100, 130), (248, 248)):
        nucleus = glass(rng)
        nucleus[place[0] : place[0] + 8, place[1] : place[1] + 8] = (120, 90, 160)
        assert is_tissue(nucleus)
    assert not is_tissue(tile_of(255, 1)) and not is_tissue(tile_of(255, 3))


def test_fluorescence_is_tissue(rng):
    """Black around dim objects, even if they are brighter by a few levels only."""
    dark = rng.poisson(3, (256, 256, 3)).astype(np.uint8)
    dim = tile_of(0)
    dim[100:110, 100:110] = 4
    assert is_tissue(dark) and is_tissue(dim)
    assert not is_tissue(tile_of(0))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("calls", [0, 1, 4])
def test_a_killed_run_goes_on(tmp_path, rng, calls, batch):
    image = paint((200, 200), discs(rng, (200, 200), 60, 12))
    whole = predict_tiled(Painted(), open_source(image), tile=64, overlap=24)

    class Killed(Painted):
        def batch(self, images, **options):
            if len(self.shapes) == calls:
                raise KeyboardInterrupt
            return super().batch(images, **options)

    def run(predict, **options):
        return predict_tiled(
            predict,
            open_source(image),
            tile=64,
            overlap=24,
            batch=batch,
            resume=tmp_path / "tiles",
            **options,
        )

    with pytest.raises(KeyboardInterrupt):
        run(Killed())
    rest, seen = Painted(), []
    assert contents(run(rest, progress=lambda *done: seen.append(done))) == contents(whole)
    total = len(tile_grid((200, 200), 64, 24))
    under_way = 1  # Its masks are pasted while the next is predicted.
    assert seen[-1] == (total, total) and len(seen) <= total - max(calls - under_way, 0) * batch
    again = Painted()
    assert contents(run(again)) == contents(whole) and again.shapes == []


def test_resume_refuses_what_belongs_to_another_prediction(tmp_path, rng):
    image = rng.integers(0, 3, (100, 100, 3), np.uint8)
    folder = tmp_path / "tiles"
    predict_tiled(Painted(), open_source(image), tile=64, overlap=16, resume=folder)
    other = Painted()
    other.fingerprint = "other"
    for predict, pixels, tile, names in (
        (other, image, 64, ["model"]),
        (Painted(), image + 1, 64, ["image"]),
        (Painted(), image[:90], 48, ["image", "size", "tile"]),
    ):
        with pytest.raises(ValueError, match="tiles of another prediction") as error:
            predict_tiled(predict, open_source(pixels), tile=tile, overlap=16, resume=folder)
        assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == names


@pytest.mark.parametrize("kept", [False, True])
def test_grey_tiles_are_stretched_once_as_the_whole_image(kept, rng, tmp_path, monkeypatch):
    """A dim half stays dim: each tile is the window of the stretched image, whatever it holds itself."""
    image = rng.integers(20, 120, (150, 120)).astype(np.uint8)
    image[:80] //= 4
    tiles = {}

    class Looks(Painted):
        stretch_grey = True

        def batch(self, images, **options):
            tiles[len(tiles)] = images[0]
            return [find(np.full_like(images[0], 255))]

    stretched, calls = ImageSource.stretched, []
    monkeypatch.setattr(ImageSource, "stretched", lambda source: calls.append(source) or stretched(source))
    folder = tmp_path / "tiles" if kept else None
    predict_tiled(Looks(), open_source(image), tile=64, overlap=16, tissue=None, resume=folder)
    assert len(calls) == 1
    whole = stretch_grey(np.dstack([image] * 3))
    for tile, seen in zip(tile_grid(image.shape, 64, 16), tiles.values(), strict=True):
        window = whole[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        np.testing.assert_array_equal(seen, window)
