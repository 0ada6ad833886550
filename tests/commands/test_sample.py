"""Drawn data on disk: what other readers make of it."""

import numpy as np
import openslide
import pytest
import tifffile

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.synthetic import draw_records


def test_a_folder_is_a_data_set(tmp_path, capsys):
    out = tmp_path / "new" / "set"
    assert main(["sample", "--out", str(out), "--images", "3", "--size", "64", "--seed", "5"]) == 0
    found = read_records(list_entries("mask_folder", out).entries)
    drawn = draw_records(3, seed=5, size=64, nuclei=(2, 3))
    assert f"3 images with {sum(len(r.classes) for r in drawn)} masks" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["set"]
    for one, other in zip(found, drawn, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        for n in range(len(other.classes)):
            np.testing.assert_array_equal(one.mask(n), other.mask(n))


def test_the_real_images_are_a_data_set_of_label_images(tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path / "new" / "set"), "--real"]) == 0
    assert "CC0" in capsys.readouterr().out
    found = read_records(list_entries("labels", tmp_path / "new" / "set").entries)
    counts = {record.name: len(record.classes) for record in found}
    assert counts == {"fluorescence": 46, "tissue": 98}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_a_slide_has_levels_and_empty_glass(tmp_path):
    path = tmp_path / "slide.tif"
    assert main(["sample", "--out", str(path), "--size", "1500"]) == 0
    whole = tifffile.imread(path)
    assert whole.shape == (1500, 1500, 3)
    assert (whole[:250] == 243).all() and whole[250:1250, 250:1250].std() > 20
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((1500, 1500), (750, 750))
        window = np.asarray(slide.read_region((300, 400), 0, (64, 32)).convert("RGB"))
        np.testing.assert_array_equal(window, whole[400:432, 300:364])


@pytest.mark.parametrize("name", ["set", "slide.tif"])
def test_nothing_is_replaced(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["sample", "--out", str(tmp_path / name)]) == 1
    assert f"{name} exists already: choose another name" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_sizes_are_positive(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["sample", "--out", str(tmp_path / "set"), "--images", "0"])
    assert end.value.code == 2 and "0 is not a positive number" in capsys.readouterr().err
