"""How `maskrcnn-jax predict` shows images to the model: in tiles, batches, mirrored, at a scale, in part."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest
import tifffile
from painted import Painted, discs, find
from PIL import Image
from written_files import SUFFIXES, check_consistency, files

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.files import write_json
from maskrcnn_jax.interop.bundle import CONFIG_FILE, FORMAT, VERSION, WEIGHTS_FILE
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs import overview
from maskrcnn_jax.prediction import worker
from maskrcnn_jax.prediction.test_time import Augmented

# pycocotools 2.0.11 decodes with a call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class TestTiles:
    @pytest.fixture
    def small(self, monkeypatch):
        """Images of more than 100 pixels are large."""
        monkeypatch.setattr(worker, "LARGE", 100)
        monkeypatch.setattr(worker, "TILE", 64)

    @pytest.mark.parametrize(
        ("width", "options", "tiled"),
        [(100, [], False), (101, [], True), (80, ["--tile", "64"], True), (101, ["--tile", "0"], False)],
    )
    def test_large_images_are_tiled(self, model, images, run, tmp_path, small, width, options, tiled):
        picture = images("a.png", [np.s_[5:9, 5:9], np.s_[50:58, 60:75]], size=(90, width))
        assert run(images.folder, *options) == 0
        assert (len(model.shapes) > 1) == tiled
        assert check_consistency(tmp_path / "out", "a", whole=True) == 2
        labels = tifffile.imread(tmp_path / "out" / "a_labels.tif")
        np.testing.assert_array_equal(labels > 0, (picture != 255).any(axis=2))
        assert len(files(tmp_path / "out")) == len(SUFFIXES) + 2, "no tiles are left"

    def test_a_run_that_was_stopped_goes_on(self, model, images, run, tmp_path, small, monkeypatch, capsys):
        images("a.png", size=(90, 200))
        whole = model.batch

        def stops(*arguments, **more):
            if len(model.shapes) == 2:
                raise KeyboardInterrupt
            return whole(*arguments, **more)

        monkeypatch.setattr(model, "batch", stops)
        assert run(images.folder) == 130
        assert "interrupted" in capsys.readouterr().err
        assert {file.split("/")[0] for file in files(tmp_path / "out")} == {"unfinished"}
        model.shapes.append(None)  # It works again.
        before = len(model.shapes)
        assert run(images.folder) == 0
        tiles = len(model.shapes) - before
        check_consistency(tmp_path / "out", "a", whole=True)
        before = len(model.shapes)
        assert run(images.folder, "--overwrite") == 0
        assert len(model.shapes) - before == tiles + 1  # Of two tiles the second was still under way.

    def test_the_overlay_of_a_slide_is_smaller(self, model, images, run, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(overview, "_MAX_SIDE", 40)
        images("a.png")
        assert run(images.folder, "--color-by", "object") == 0
        assert "overlays are smaller than the images: a by 2" in capsys.readouterr().out
        with Image.open(tmp_path / "out" / "a_overlay.png") as overlay:
            assert overlay.size == (40, 30)


def test_flips(model, images, run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Augmented, "start", lambda self, pictures, **_: seen.append(self) or model.start(pictures)
    )
    images("a.png")
    assert run(images.folder, "--tta", "flips") == 0
    assert len(seen) == 1 and len(seen[0].views) == 4


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_batches_change_nothing(model, images, run, tmp_path, monkeypatch, batch, capsys):
    """Images of several sizes, in tiles too, one that cannot be read: the same files, in the same order."""
    for n, size in enumerate([(60, 80), (60, 80), (50, 90), (60, 300), (60, 80), (70, 70), (60, 80)]):
        images(f"{n}.png", size=size)
    (images.folder / "4.png").write_bytes(b"no image")
    monkeypatch.setattr(worker, "LARGE", 200)
    monkeypatch.setattr(worker, "TILE", 64)
    lines = []
    for number in (1, batch):
        out = tmp_path / str(number)
        assert run(images.folder, out=out, more=("--batch", str(number))) == 1
        lines.append([line.split(":")[0] for line in capsys.readouterr().err.splitlines()])
    assert lines[0] == lines[1]
    one, other = tmp_path / "1", tmp_path / str(batch)
    names = [name for name in files(one) if "/" not in name]
    assert len(names) == 4 * 6 + 2 and files(one) == files(other)
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    assert max(shape[0] for shape in model.shapes) >= min(batch, 3)


def test_what_does_not_fit_together_is_tried_alone(model, images, run, tmp_path, monkeypatch, capsys):
    for n in range(3):
        images(f"{n}.png")
    painted, counts = model.batch, []

    def batch(pictures, **options):
        counts.append(len(pictures))
        if len(pictures) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return painted(pictures, **options)

    monkeypatch.setattr(model, "batch", batch)
    assert run(images.folder, more=("--batch", "3")) == 0
    assert counts == [3, 1, 1, 1] and "3 of 3" in capsys.readouterr().out


class Scaled(Painted):
    """Finds what a model of 0.5 µm a pixel does, at the size that it is shown; notes how large that was."""

    def batch(self, pictures, *, frame=None, zoom=1.0, shapes=None):
        found = []
        for picture, (height, width) in zip(pictures, shapes or [p.shape[:2] for p in pictures], strict=True):
            size = round(height * zoom), round(width * zoom)
            self.shapes.append((picture.shape[:2], size, frame))
            seen = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.NEAREST))
            rows = find(seen)
            crops = [
                np.kron(rows.crops.pixels(n), np.ones((round(1 / zoom),) * 2, bool)) for n in range(len(rows))
            ]
            corners = rows.crops.rectangles[:, :2] * round(1 / zoom)
            crops = crops_of_pixels(crops, corners)
            found.append(Result(rows.boxes / zoom, rows.scores, rows.classes, crops, (height, width)))
        return found


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("tile", ["0", "64"])
def test_one_picture_at_two_scales_has_the_same_objects(
    images, run, tmp_path, rng, monkeypatch, capsys, tile, pyramid
):
    """At 0.5 µm a pixel, as the model's, and at 0.25, twice as large; results are in the pixels of each."""
    if pyramid:
        pytest.importorskip("zarr")
    model = Scaled()
    model.config = dataclasses.replace(MaskRCNNConfig.c4(num_classes=2), mpp=0.5)
    monkeypatch.setattr("maskrcnn_jax.interop.bundle.load_bundle", lambda folder: (model.config, {}))
    monkeypatch.setattr("maskrcnn_jax.prediction.predictor.Predictor", lambda config, params: model)
    picture = images("a.png", list(discs(rng, (60, 80), 15, 3.5)))
    (images.folder / "a.png").unlink()
    fine = picture.repeat(2, axis=0).repeat(2, axis=1)
    options = {"photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(images.folder / "coarse.tif", picture, resolution=(20_000, 20_000), **options)
    with tifffile.TiffWriter(images.folder / "fine.tif") as file:
        file.write(fine, resolution=(40_000, 40_000), tile=(16, 16), **options)
        if pyramid:
            file.write(picture, subfiletype=1, tile=(16, 16), **options)
    header = {"format": FORMAT, "version": VERSION, "sha256": "", "config": {}, "about": {"object_size": 6.5}}
    write_json(tmp_path / "bundle" / CONFIG_FILE, header)
    (tmp_path / "bundle" / WEIGHTS_FILE).touch()
    assert run(images.folder, bundle=tmp_path / "bundle", more=("--tile", tile)) == 0
    coarse, fine = (tifffile.imread(tmp_path / "out" / f"{name}_labels.tif") for name in ("coarse", "fine"))
    assert len(np.unique(coarse)) > 5
    np.testing.assert_array_equal(fine[::2, ::2], coarse)
    np.testing.assert_array_equal(fine, fine[::2, ::2].repeat(2, axis=0).repeat(2, axis=1))
    said = capsys.readouterr().out.replace("\n", " ")
    assert "0.25 µm a pixel, shown 0.5 times as large: the model's 0.5 µm; it has learnt" in said
    assert "objects of 6.5 px (median): fine" in said
    # What the model saw of the fine one is as large as of the coarse one; so is what was read of a pyramid.
    assert {size for _, size, _ in model.shapes[: len(model.shapes) // 2]} == {
        size for _, size, _ in model.shapes[len(model.shapes) // 2 :]
    }
    if pyramid and tile != "0":
        assert all(read == size for read, size, _ in model.shapes)


@pytest.mark.parametrize("tile", ["0", "64"])
def test_regions(model, images, run, tmp_path, tile, capsys):
    """What has its middle in the polygon, and tiles that touch it alone."""
    spots = [np.s_[y : y + 4, x : x + 4] for y in range(3, 190, 12) for x in range(3, 190, 12)]
    images("a.png", spots, size=(200, 200))
    border = [[80, 90], [130, 90], [130, 190], [80, 190]]
    (tmp_path / "r.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [[*border, border[0]]]})
    )
    assert run(images.folder, more=("--tile", tile, "--region", str(tmp_path / "r.geojson"))) == 0
    table = pd.read_csv(tmp_path / "out" / "a.csv")
    middles = [(s[1].start + 2, s[0].start + 2) for s in spots]
    assert len(table) == sum(80 <= x <= 130 and 90 <= y <= 190 for x, y in middles) > 20
    assert table.centroid_x.between(80, 130).all() and table.centroid_y.between(90, 190).all()
    assert len(model.shapes) == (1 if tile == "0" else 20)  # of 36 tiles
    images("b.png")
    assert run(images.folder, out=tmp_path / "2", more=("--region", str(tmp_path / "r.geojson"))) == 1
    assert "is of one image, 2 are given" in capsys.readouterr().err


def test_scales_that_are_given(images, run, model, tmp_path, capsys):
    images("a.png")
    assert run(images.folder, more=("--zoom", "0.5")) == 0
    assert model.shapes[-1][-1] == 0.5
    assert run(images.folder, more=("--mpp", "0.5")) == 1
    assert (
        "the model does not say at how many µm a pixel it was trained; give --zoom" in capsys.readouterr().err
    )


def test_an_image_that_does_not_fit_into_memory(model, images, run, monkeypatch, capsys):
    def batch(pictures, **_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")

    monkeypatch.setattr(model, "batch", batch)
    images("a.png")
    assert run(images.folder) == 1
    assert "a.png: does not fit into memory; give --tile" in capsys.readouterr().err
