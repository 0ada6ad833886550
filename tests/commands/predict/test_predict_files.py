"""What `maskrcnn-jax predict` writes: all formats, read back by other programs, names, numbers and scores."""

import json
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from tiny_config import get_config
from written_files import SUFFIXES, check_consistency, files

from maskrcnn_jax.commands import predict_options
from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.outputs import folder
from maskrcnn_jax.prediction import journal

# pycocotools 2.0.11 decodes with a call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
    assert predict_options.FORMATS == folder.FORMATS


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
