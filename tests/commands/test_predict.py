"""`maskrcnn-jax predict`: all formats, read back by other programs; hostile images; what is never lost."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from painted import Painted, discs, find, paint
from PIL import Image
from pycocotools.coco import COCO
from tiny_config import get_config

from maskrcnn_jax.commands import predict
from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.models.mask_rcnn import init_params
from maskrcnn_jax.outputs import folder, overview
from maskrcnn_jax.prediction import journal, worker
from maskrcnn_jax.prediction.test_time import Augmented

# pycocotools 2.0.11 decodes with a call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SUFFIXES = {"labels": "_labels.tif", "geojson": ".geojson", "csv": ".csv", "overlay": "_overlay.png"}


@pytest.fixture
def model(monkeypatch):
    """In place of a bundle: two classes, and a predictor that finds each colour's pixels."""
    model = Painted()
    model.config = MaskRCNNConfig.c4(num_classes=2)
    monkeypatch.setattr("maskrcnn_jax.interop.bundle.load_bundle", lambda folder: (model.config, {}))
    monkeypatch.setattr("maskrcnn_jax.prediction.predictor.Predictor", lambda config, params: model)
    return model


@pytest.fixture
def images(tmp_path, rng):
    """Writes images of discs, at some of which the masks of the objects are known; gives their folder."""
    folder = tmp_path / "in"
    folder.mkdir()

    def make(name, objects=None, size=(60, 80)):
        objects = list(discs(rng, size, 12, 9)) if objects is None else objects
        picture = paint(size, objects)
        Image.fromarray(picture).save(make.folder / name)
        return picture

    make.folder = folder
    return make


@pytest.fixture
def run(tmp_path):
    """Runs the command with all objects kept; gives its exit code."""

    def run(*paths, out=None, bundle="any", score="0", more=()):
        out = tmp_path / "out" if out is None else out
        options = ["--bundle", str(bundle), "--out", str(out), "--min-score", score, *more]
        return main(["predict", *map(str, paths), *options])

    return run


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def outcome(folder, name):
    """The files of one image, each by an independent reader: labels, features, table, COCO annotations."""
    labels = tifffile.imread(folder / f"{name}_labels.tif")
    features = json.loads((folder / f"{name}.geojson").read_text(encoding="utf-8"))["features"]
    table = pd.read_csv(folder / f"{name}.csv")
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(folder / "coco_images.json")
        rows = json.loads((folder / "coco_results.json").read_text())
        coco = images.loadRes(str(folder / "coco_results.json")) if rows else images  # which needs a row
    (number,) = [n for n, image in coco.imgs.items() if image["file_name"].startswith(name)]
    with Image.open(folder / f"{name}_overlay.png") as overlay:
        overlay.load()
    return labels, features, table, coco, number


def check_consistency(folder, name, *, whole):
    """Object n is the same in all files; `whole`: no object hides another in the label image."""
    labels, features, table, coco, number = outcome(folder, name)
    rows = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
    assert table["id"].tolist() == [row["object_id"] for row in rows] == list(range(1, len(table) + 1))
    assert [feature["properties"]["name"] for feature in features] == [
        str(n) for n in table["id"] if table["area"][n - 1]
    ]
    assert set(np.unique(labels)) <= {0, *table["id"]}
    for feature in features:
        n = int(feature["properties"]["name"])
        row, entry = rows[n - 1], table.iloc[n - 1]
        mask = coco.annToMask(row).astype(bool)
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        left, top, right, bottom = map(int, shape.bounds)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        inside = shapely.contains_xy(shape, x.ravel(), y.ravel()).reshape(y.shape)
        np.testing.assert_array_equal(inside, mask[top:bottom, left:right])
        assert shape.is_valid and shape.area == inside.sum() == mask.sum() == entry["area"]
        assert mask[labels == n].all() and (not whole or (labels == n).sum() == mask.sum())
        assert (
            feature["properties"]["classification"]["name"]
            == entry["class"]
            == coco.cats[row["category_id"]]["name"]
        )
        assert feature["properties"]["measurements"]["score"] == pytest.approx(row["score"], abs=1e-6)
        assert entry["score"] == pytest.approx(row["score"], abs=1e-6)
    return len(table)


def test_an_object_has_one_number_in_all_files(model, images, run, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        images(name)
    assert run(images.folder) == 0
    counts = [check_consistency(tmp_path / "out", name, whole=True) for name in "ab"]
    assert min(counts) > 5
    said = capsys.readouterr()
    for part in ("a", "b", *map(str, counts), str(sum(counts)), "2 of 2", str(tmp_path / "out")):
        assert part in said.out
    assert files(tmp_path / "out") == sorted(
        ["coco_images.json", "coco_results.json", *(n + s for n in "ab" for s in SUFFIXES.values())]
    )


def test_hostile_objects(model, images, run, tmp_path):
    """One pixel, one in each corner, a line along the border, with holes, in pieces; then nothing at all."""
    masks = np.zeros((6, 60, 80), bool)
    masks[0, 30, 40] = True
    masks[1, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    masks[2, :, 1] = True
    masks[3, 10:20, 10:20] = True
    masks[3, 12:14, 12:14] = masks[3, 14, 14] = masks[3, 19, 19] = False
    masks[4, 40:50, 20:60:2] = True
    masks[5, 0, 10:70] = True
    images("objects.png", masks)
    images("nothing.png", [])
    assert run(images.folder) == 0
    assert check_consistency(tmp_path / "out", "objects", whole=True) == 6
    assert check_consistency(tmp_path / "out", "nothing", whole=True) == 0
    assert pd.read_csv(tmp_path / "out" / "nothing.csv").empty


def test_bad_files_are_told_and_the_rest_goes_on(model, images, run, tmp_path, capsys):
    for name in ("a.png", "cut.png", "Zürich – 東京 [red].png"):
        images(name)
    code = (images.folder / "cut.png").read_bytes()
    (images.folder / "cut.png").write_bytes(code[: len(code) // 2])
    (images.folder / "text.png").write_text("no image")
    (images.folder / "zero.tif").touch()
    grey = np.full((30, 40), 65535, np.uint16)
    tifffile.imwrite(images.folder / "grey16.tif", grey)
    tifffile.imwrite(images.folder / "complex.tif", grey.astype(np.complex64))
    (tmp_path / "empty").mkdir()
    assert run(images.folder, tmp_path / "empty", tmp_path / "gone.png") == 1
    said = capsys.readouterr()
    for bad in (
        "cut.png",
        "text.png",
        "zero.tif",
        "complex.tif",
        "empty: there is no image",
        "gone.png: there is no",
    ):
        assert bad in said.err
    assert "3 of 7" in said.out and "[red]" in said.out and said.out.count("failed │") == 4
    for name in ("a", "Zürich – 東京 [red]", "grey16"):
        check_consistency(tmp_path / "out", name, whole=True)
    images = json.loads((tmp_path / "out" / "coco_images.json").read_text(encoding="utf-8"))["images"]
    assert {image["file_name"] for image in images} == {"a.png", "grey16.tif", "Zürich – 東京 [red].png"}
    written = [file for file in files(tmp_path / "out") if not file.startswith("unfinished/")]
    assert len(written) == 3 * len(SUFFIXES) + 2


def test_a_plane_of_a_stack(model, images, run, tmp_path, capsys):
    """The same as the plane on its own; without a choice, the error says what there is."""
    plane = images("plane.png")
    stack = np.stack([np.zeros_like(plane), plane])
    tifffile.imwrite(images.folder / "stack.tif", stack, photometric="rgb")
    assert run(images.folder / "stack.tif") == 1
    assert "stack.tif: holds 2 planes (axes QYXS, 2 x 60 x 80 x 3); choose --plane" in capsys.readouterr().err
    for name, more in (("stack.tif", ["--plane", "1"]), ("plane.png", [])):
        assert run(images.folder / name, out=tmp_path / name, more=more) == 0
    tables = [pd.read_csv(tmp_path / name / f"{name[:5]}.csv") for name in ("stack.tif", "plane.png")]
    assert len(tables[0]) and tables[0].equals(tables[1])
    assert run(images.folder / "plane.png", more=["--plane", "x"]) != 0
    assert "plane 'x' is neither a number from 0 nor max nor mean" in capsys.readouterr().err


def test_pipes_and_devices_do_not_hold_a_run_up(model, images, run, tmp_path, capsys):
    images("good.png")
    for name in ("a.png", "b.tif", "c.svs"):
        os.mkfifo(images.folder / name)
    assert run(*(images.folder / name for name in ("a.png", "b.tif", "c.svs", "good.png")), "/dev/zero") == 1
    told = capsys.readouterr().err
    assert told.count("it is a named pipe, not a regular file") == 3 and "it is a device" in told
    assert (tmp_path / "out" / "good.csv").exists()


def test_nothing_is_left_if_all_images_fail(model, images, run, tmp_path, capsys):
    images.folder.joinpath("zero.png").touch()
    assert run(images.folder) == 1
    assert "results are in" not in capsys.readouterr().out and files(tmp_path / "out") == []


@pytest.mark.parametrize("paths", [["empty"], ["gone.png"], ["empty/*.png", "gone"]])
def test_nothing_to_predict(model, run, tmp_path, monkeypatch, capsys, paths):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(*paths) == 1
    assert all(path in capsys.readouterr().err for path in paths[:1])
    assert not (tmp_path / "out").exists()


def test_one_name_in_two_folders(model, images, run, tmp_path):
    pictures = {"in__x": images("x.png")}
    images.folder = tmp_path / "other"
    images.folder.mkdir()
    pictures["other__x"] = images("x.png")
    assert run(tmp_path / "in", tmp_path / "other", "--formats", "labels,coco") == 0
    for name, picture in pictures.items():
        labels = tifffile.imread(tmp_path / "out" / f"{name}_labels.tif")
        np.testing.assert_array_equal(labels > 0, (picture != 255).any(axis=2))
    entries = json.loads((tmp_path / "out" / "coco_images.json").read_text())["images"]
    assert [entry["file_name"] for entry in entries] == [str(tmp_path / f / "x.png") for f in ("in", "other")]


def test_results_that_are_there_stay(model, images, run, tmp_path, capsys):
    images("a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.csv").write_text("precious")
    assert run(images.folder) == 1
    assert "a.csv" in (message := capsys.readouterr().err) and "--overwrite" in message
    assert not model.shapes and files(tmp_path / "out") == ["a.csv"]
    assert run(images.folder, "--formats", "labels") == 0  # does not touch it
    assert (tmp_path / "out" / "a.csv").read_text() == "precious"
    assert run(images.folder, "--overwrite") == 0
    check_consistency(tmp_path / "out", "a", whole=True)


def test_images_are_never_overwritten(model, images, run, capsys):
    images("a.png")
    images("a_overlay.png")
    before = (images.folder / "a_overlay.png").read_bytes()
    assert run(images.folder, "--overwrite", out=images.folder) == 1
    assert "would overwrite the image" in capsys.readouterr().err and not model.shapes
    assert (images.folder / "a_overlay.png").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_found_first(model, images, run, tmp_path, capsys):
    images("a.png")
    (tmp_path / "file").touch()
    assert run(images.folder, out=tmp_path / "file" / "out") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err and not model.shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "label,csv"], "unknown format 'label': did you mean labels?"),
        (["--formats", "xyz"], "choose from coco,labels,geojson,csv,overlay"),
        (["--formats", ","], "choose from"),
        (["--min-score", "50"], "no number from 0 to 1"),
        (["--tile", "b.png"], "write --tile=1024 before it"),
        (["--tile", "8"], "64 at least"),
        (["--tta", "spin"], "flips"),
    ],
)
def test_wrong_usage_exits_with_2(model, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as error:
        main(["predict", "a.png", "--bundle", "any", "--out", str(tmp_path / "out"), *options])
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "names"),
    [([], {"class_1", "class_2"}), (["--classes", "Tumour, Immune cell"], {"Tumour", "Immune cell"})],
)
def test_names_of_classes(model, images, run, tmp_path, options, names):
    images("a.png")
    assert run(images.folder, *options) == 0
    assert set(pd.read_csv(tmp_path / "out" / "a.csv")["class"]) == names
    check_consistency(tmp_path / "out", "a", whole=True)


def test_a_model_of_one_class_finds_nuclei(model, images, run, tmp_path, capsys):
    model.config = MaskRCNNConfig.c4()
    images("a.png", [np.s_[5:9, 5:9]])
    assert run(images.folder) == 0
    assert pd.read_csv(tmp_path / "out" / "a.csv")["class"].tolist() == ["nucleus"]
    assert run(images.folder, "--overwrite", "--classes", "a,b") == 1
    assert "the model has 1 class, not 2 (a, b)" in capsys.readouterr().err


def test_ids_of_a_data_set(model, images, run, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        images(name)
    entries = [{"id": 31, "file_name": "x/b.png"}, {"id": 12, "file_name": "a.png"}]
    categories = [{"id": 5, "name": "late"}, {"id": 3, "name": "early"}]
    ids = tmp_path / "data.json"
    ids.write_text(json.dumps({"images": entries, "categories": categories}))
    assert run(images.folder, "--ids", ids) == 0
    rows = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(31, 5), (31, 3), (12, 5), (12, 3)}
    for name in "ab":
        check_consistency(tmp_path / "out", name, whole=True)
    ids.write_text(json.dumps(entries[:1]))
    assert run(images.folder, "--overwrite", "--ids", ids) == 1
    assert "no id for these images" in (message := capsys.readouterr().err) and "a.png" in message
    ids.write_text(json.dumps([{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]))
    assert run(images.folder, "--overwrite", "--ids", ids) == 1
    assert "gives these images one id" in capsys.readouterr().err


def test_min_score_leaves_out_the_worst_and_keeps_the_numbers(model, images, run, tmp_path):
    """Scores rise with the number of the colour, by 7 / 255 for every hundred."""
    pixels = [np.s_[n // 20, n % 20] for n in range(300)]
    images("a.png", pixels)
    assert run(images.folder, score=str(30 / 255)) == 0
    assert check_consistency(tmp_path / "out", "a", whole=True) == 100
    assert run(images.folder, "--overwrite", score="1") == 0
    assert check_consistency(tmp_path / "out", "a", whole=True) == 0


def test_the_model_says_what_scores_enough(model, images, tmp_path, capsys):
    model.config = MaskRCNNConfig.c4(num_classes=2, detection=DetectionConfig(min_score=30 / 255))
    images("a.png", [np.s_[n // 20, n % 20] for n in range(300)])
    assert main(["predict", str(images.folder), "--bundle", "any", "--out", str(tmp_path / "out")]) == 0
    assert check_consistency(tmp_path / "out", "a", whole=True) == 100
    assert "at least 0.117647" in capsys.readouterr().out


def test_a_full_house_is_told(model, images, run, capsys):
    """Where the model finds as many objects as it can, there may be more."""
    images("a.png", [np.s_[5 * n, 5] for n in range(10)])
    model.config = MaskRCNNConfig.c4(num_classes=2, detection=DetectionConfig(max_detections=10))
    assert run(images.folder) == 0
    assert "at most 10 objects, and did in a:" in capsys.readouterr().out
    assert run(images.folder, "--overwrite", score="0.9") == 0
    assert "at most" not in capsys.readouterr().out


class TestGoingOn:
    """A run that was stopped, or in which images failed: the same command does only what is left."""

    @pytest.fixture
    def stopped(self, model, images, run, monkeypatch):
        """After the first of three images."""
        for name in ("a.png", "b.png", "c.png"):
            images(name)
        whole = model.batch

        def stops(pictures, **more):
            if len(model.shapes) == 1:
                raise KeyboardInterrupt
            return whole(pictures, **more)

        with monkeypatch.context() as patch:
            patch.setattr(model, "batch", stops)
            assert run(images.folder) == 130

    def test_the_same_command(self, stopped, model, images, run, tmp_path, capsys):
        before = (tmp_path / "out" / "a.csv").stat().st_mtime_ns
        assert not (tmp_path / "out" / "coco_results.json").exists()
        assert run(images.folder) == 0
        assert len(model.shapes) == 3 and (tmp_path / "out" / "a.csv").stat().st_mtime_ns == before
        said = capsys.readouterr()
        assert "3 of 3" in said.out and said.out.count("before") == 1
        for name in "abc":
            assert check_consistency(tmp_path / "out", name, whole=True) > 5
        assert len(files(tmp_path / "out")) == 3 * len(SUFFIXES) + 2

    @pytest.mark.parametrize("change", ["image", "result", "note"])
    def test_what_has_changed_is_done_again(self, stopped, model, images, run, tmp_path, change):
        if change == "image":
            images("a.png", [np.s_[1:5, 1:5]])
        elif change == "result":
            (tmp_path / "out" / "a.csv").unlink()
        else:
            (tmp_path / "out" / "unfinished" / "a.done").write_text("{")
        assert run(images.folder) == 0 and len(model.shapes) == 4
        for name in "abc":
            check_consistency(tmp_path / "out", name, whole=True)

    def test_other_options(self, stopped, model, images, run, tmp_path, capsys):
        assert run(images.folder, score="0.07") == 1
        assert "min_score: 0.0 then, 0.07 now" in capsys.readouterr().err
        assert run(images.folder, "--overwrite", score="0.07") == 0 and len(model.shapes) == 4
        for name in "abc":
            check_consistency(tmp_path / "out", name, whole=True)

    def test_results_of_other_runs_stay(self, stopped, model, images, run, tmp_path, capsys):
        images("d.png")
        (tmp_path / "out" / "d.csv").write_text("precious")
        assert run(images.folder) == 1 and "d.csv" in capsys.readouterr().err
        assert (tmp_path / "out" / "d.csv").read_text() == "precious"

    def test_a_folder_of_that_name_stays(self, model, images, run, tmp_path, capsys):
        images("a.png")
        (tmp_path / "out" / "unfinished").mkdir(parents=True)
        (tmp_path / "out" / "unfinished" / "symphony.txt").touch()
        assert run(images.folder, "--overwrite") == 1 and "move what is in it away" in capsys.readouterr().err
        assert files(tmp_path / "out") == ["unfinished/symphony.txt"]

    def test_images_that_failed(self, model, images, run, tmp_path, capsys):
        images("a.png")
        (images.folder / "b.png").write_text("no image")
        assert run(images.folder) == 1
        assert "the same command tries only those again that failed" in capsys.readouterr().out
        images("b.png")
        assert run(images.folder) == 0 and len(model.shapes) == 2
        for name in "ab":
            check_consistency(tmp_path / "out", name, whole=True)
        assert len(files(tmp_path / "out")) == 2 * len(SUFFIXES) + 2


class TestFullDisk:
    """Nothing of an image that could not be written stays, and the same command goes on."""

    @pytest.fixture
    def full(self, monkeypatch):
        """Lets so many images of labels be written."""

        def fill(count):
            room = iter(range(count))

            def write(path, result):
                if next(room, None) is None:
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                return whole(path, result)

            whole = folder.write_labels
            monkeypatch.setattr(folder, "write_labels", write)
            return lambda: monkeypatch.setattr(folder, "write_labels", whole)

        return fill

    @pytest.mark.parametrize("count", [0, 1])
    def test_while_results_are_written(self, model, images, run, tmp_path, full, capsys, count):
        for name in ("a.png", "b.png"):
            images(name)
        formats = ("--formats", "csv,labels,coco")
        empty = full(count)
        assert run(images.folder, *formats) == 1
        assert "No space left" in capsys.readouterr().err
        own = [name for name in files(tmp_path / "out") if not name.startswith("unfinished/")]
        assert [name for name in own if name.startswith("b")] == [] and len(own) == 4 * count
        empty()
        assert run(images.folder, *formats) == 0
        assert len(model.shapes) == 4 - count and len(files(tmp_path / "out")) == 6

    def test_while_the_journal_is_written(self, model, images, run, tmp_path, monkeypatch, capsys):
        images("a.png")
        with monkeypatch.context() as patch:
            patch.setattr(journal, "write_json_lines", lambda *_: stop())
            assert run(images.folder) == 1 and files(tmp_path / "out") == []
        assert run(images.folder) == 0
        check_consistency(tmp_path / "out", "a", whole=True)

    def test_tiles_stay_where_all_images_failed(self, model, images, run, tmp_path, full):
        images("a.png", size=(90, 200))
        empty = full(0)
        assert run(images.folder, "--tile", "64") == 1
        assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"unfinished"}
        before = len(model.shapes)
        empty()
        assert run(images.folder, "--tile", "64") == 0 and len(model.shapes) == before
        check_consistency(tmp_path / "out", "a", whole=True)


def stop():
    raise OSError(errno.ENOSPC, "No space left on device")


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
    assert run(images.folder, more=("--tile", tile)) == 0
    coarse, fine = (tifffile.imread(tmp_path / "out" / f"{name}_labels.tif") for name in ("coarse", "fine"))
    assert len(np.unique(coarse)) > 5
    np.testing.assert_array_equal(fine[::2, ::2], coarse)
    np.testing.assert_array_equal(fine, fine[::2, ::2].repeat(2, axis=0).repeat(2, axis=1))
    said = capsys.readouterr().out
    assert "0.25 µm a pixel, shown 0.5 times as large: the model's 0.5 µm: fine" in said.replace("\n", " ")
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


def test_labels_as_ome_zarr(model, images, run, tmp_path, monkeypatch, capsys):
    """Asked for, they are written; what was begun of an image that fails goes; without Zarr, it is told."""
    zarr = pytest.importorskip("zarr")
    images("a.png")
    options = ("--formats", "labels,ome-zarr")
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "zarr", None)
        assert run(images.folder, more=options) == 1
        assert "needs zarr" in capsys.readouterr().err and not model.shapes
    with monkeypatch.context() as context:
        context.setattr(journal, "write_json_lines", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert run(images.folder, more=options) == 1
        assert "a_labels.zarr" not in {path.name for path in (tmp_path / "out").iterdir()}
    assert run(images.folder, more=options) == 0
    level = zarr.open_array(tmp_path / "out" / "a_labels.zarr" / "objects" / "0", mode="r")
    np.testing.assert_array_equal(level[...], tifffile.imread(tmp_path / "out" / "a_labels.tif"))
    assert run(images.folder, more=options) == 1
    assert "has results already, a_labels.tif, a_labels.zarr" in capsys.readouterr().err
    assert run(images.folder, more=(*options, "--overwrite")) == 0


def test_formats_of_the_help_are_those_there_are():
    assert predict.FORMATS == folder.FORMATS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A real model, small and untrained."""
    config = MaskRCNNConfig.from_dict(get_config().model.to_dict())
    folder = tmp_path_factory.mktemp("model") / "bundle"
    save_bundle(folder, config, jax.device_get(init_params(config, jax.random.key(0))))
    return folder


def test_real_images_and_a_real_model(shared, bundle, run, tmp_path, capsys):
    """The contest's images with the contest's ids."""
    data = shared / "data" / "vrdl"
    assert run(data / "test", "--ids", data / "test_img_ids.json", bundle=bundle) == 0
    assert "6 of 6" in capsys.readouterr().out
    names = sorted(path.stem for path in (data / "test").glob("*.png"))
    for name in names:
        assert check_consistency(tmp_path / "out", name, whole=False) == 20
        with Image.open(tmp_path / "out" / f"{name}_overlay.png") as overlay:
            assert overlay.size in [(1000, 1000), (2000, 2000)]
    images = json.loads((tmp_path / "out" / "coco_images.json").read_text())["images"]
    wanted = json.loads((data / "test_img_ids.json").read_text())
    assert sorted(images, key=lambda image: image["id"]) == sorted(wanted, key=lambda image: image["id"])
