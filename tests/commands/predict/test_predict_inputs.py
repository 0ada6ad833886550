"""Which images `maskrcnn-jax predict` takes: bad ones, stacks, pipes, none at all; and wrong options."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import tifffile
from written_files import SUFFIXES, check_consistency, files

from maskrcnn_jax.commands.cli import main

# pycocotools 2.0.11 decodes with a call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
