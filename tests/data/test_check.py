"""`check` finds each kind of fault on a planted file, and its numbers are those of the data."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.anchor_fit import anchor_grids
from maskrcnn_jax.data.check import survey
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.synthetic import draw_records

SIZE = (40, 50)


def run(capsys, *flags):
    """The exit code and what was printed."""
    code = main(["check", *map(str, flags)])
    return code, capsys.readouterr().out


def box(top, left, bottom, right, value=255):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = value
    return mask


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folders(tmp_path, rng):
    """Two sound images: two nuclei of 10 x 8 px in `a`, none in `b`."""
    for name in "ab":
        save(tmp_path / name / "images" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        (tmp_path / name / "masks").mkdir()
    save(tmp_path / "a" / "masks" / "0.png", box(2, 2, 12, 10))
    save(tmp_path / "a" / "masks" / "1.png", box(20, 20, 30, 28))
    return tmp_path


def truncate(folders):
    path = folders / "a" / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:-200])


def speckle(folders):
    mask = box(2, 30, 12, 40)
    mask[35, 5:45:2] = 255
    save(folders / "a" / "masks" / "2.png", mask)


def scatter(folders):
    dots = np.zeros(SIZE, np.uint8)
    for top in range(0, 36, 9):
        dots[top : top + 4, 3:7] = dots[top : top + 4, 30:36] = 255
    save(folders / "b" / "masks" / "0.png", dots)


def interpolate(folders):
    save(folders / "a" / "masks" / "2.png", box(5, 30, 15, 40) // 3 + box(6, 31, 14, 39) // 2)


def stack(folders):
    page = Image.fromarray(box(20, 30, 30, 40))
    page.save(
        folders / "a" / "masks" / "2.png", save_all=True, append_images=[Image.fromarray(box(0, 0, 3, 3))]
    )


MASK_FOLDER_FAULTS = {
    "truncated image": (truncate, "images/a.png: cannot be read: .*truncated.*; copy it again"),
    "unreadable image": (
        lambda f: (f / "a" / "images" / "a.png").write_bytes(b"no image at all"),
        "images/a.png: cannot be read: cannot identify image file",
    ),
    "zero bytes": (
        lambda f: (f / "a" / "masks" / "1.png").write_bytes(b""),
        "masks/1.png: cannot be read: it has zero bytes; copy it again",
    ),
    "mask of another size": (
        lambda f: save(f / "a" / "masks" / "2.png", np.ones((41, 50), np.uint8)),
        "masks/2.png: has 41 x 50 pixels .height x width., its image 40 x 50; give the mask",
    ),
    "empty mask": (lambda f: save(f / "a" / "masks" / "2.png", box(0, 0, 0, 0)), "masks/2.png: is empty"),
    "grey values": (interpolate, "masks/2.png: has 2 values besides 0 .*as after interpolation; save"),
    "two masks equal": (
        lambda f: save(f / "a" / "masks" / "2.png", box(2, 2, 12, 10)),
        "masks/2.png: has the same pixels as 0.png; delete one",
    ),
    "fragments": (speckle, r"masks/2.png: is in 21 pieces, 17% of it outside the largest; delete"),
    "semantic labels": (scatter, "masks/0.png: is one instance of 8 separate pieces, as in semantic labels"),
    "one huge instance": (
        lambda f: save(f / "b" / "masks" / "0.png", box(0, 0, 38, 50)),
        "masks/0.png: is the only instance and covers 95% of the image, as in semantic",
    ),
    "missing file": (
        lambda f: (f / "a" / "images" / "a.png").unlink(),
        r"a/images: holds 0 images \(none\); leave exactly one",
    ),
    "unexpected type": (
        lambda f: (f / "a" / "masks" / "2.svg").write_text("<svg/>"),
        "masks/2.svg: is a file of a type that is not read here; move it away",
    ),
    "nearly black image": (
        lambda f: save(f / "a" / "images" / "a.png", np.full(SIZE, 4095, np.uint16)),
        "a/images: is nearly black: no value is above 15 of 255, as with 12 bits in a 16-bit file; stretch",
    ),
    "zero bytes of an image": (
        lambda f: (f / "a" / "images" / "a.png").write_bytes(b""),
        "images/a.png: cannot be read: it has zero bytes; copy it again",
    ),
    "stack as a mask": (stack, "masks/2.png: cannot be read: it holds 2 pages, expected one"),
    "missing masks": (
        lambda f: (f / "b" / "masks").rmdir(),
        "b/masks: is no folder; put one PNG for each instance there",
    ),
    "equal images": (
        lambda f: save(f / "b" / "images" / "b.png", np.asarray(Image.open(f / "a" / "images" / "a.png"))),
        "b/images: has the same pixels as .*a/images; delete",
    ),
}


def assert_matches(text, pattern):
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(text)


@pytest.mark.parametrize("kind", MASK_FOLDER_FAULTS)
def test_a_fault_planted_in_a_mask_folder_is_printed(folders, capsys, kind):
    plant, message = MASK_FOLDER_FAULTS[kind]
    plant(folders)
    code, text = run(capsys, "--format", "mask_folder", folders)
    assert code == 1
    assert_matches(text, message)
    assert text.startswith("1 "), "nothing else is wrong"


def coco_file(folder, annotations, images=(("a.png", 1),)):
    for name, _ in images:
        save(folder / name, np.full((*SIZE, 3), 200, np.uint8))
    data = {
        "images": [{"id": i, "file_name": name, "height": 40, "width": 50} for name, i in images],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 3} | fields for n, fields in enumerate(annotations, 1)
        ],
    }
    (folder / "coco.json").write_text(json.dumps(data))
    return folder / "coco.json"


SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]
COCO_FAULTS = {
    "box outside": (
        [{"segmentation": SQUARE, "bbox": [5, 5, 60, 10]}],
        r"annotation 1 \(image a.png\): its box \(5, 5, 65, 15; x0, y0, x1, y1\) leaves the image",
    ),
    "polygon outside": ([{"segmentation": [[5, 5, 90, 5, 9, 9]]}], "annotation 1 .*its polygon .* leaves"),
    "unknown category": (
        [{"segmentation": SQUARE, "category_id": 1}],
        "annotation 1: has category_id 1, which is not among the categories; correct it",
    ),
    "duplicate ids": (
        [{"segmentation": SQUARE}, {"segmentation": [[0, 0, 3, 0, 3, 3]], "id": 1}],
        "annotations: the id 1 occurs twice; give each its own id",
    ),
    "unknown image": (
        [{"segmentation": SQUARE, "image_id": 7}],
        "annotation 1: has image_id 7, which is not among the images; correct it",
    ),
    "box far outside": (
        [{"segmentation": [[5, 5, 1e9, 5, 9, 9]]}],
        r"annotation 1 .*has a polygon with the coordinate 1e\+09, far outside of the image",
    ),
    "only a box": ([{"segmentation": [], "bbox": [1, 2, 3, 4]}], "annotation 1 .*only a box, perhaps"),
    "polygon without area": (
        [{"segmentation": [*SQUARE, [1, 2, 3, 4]]}],
        "annotation 1 .*has 1 polygons of fewer than three points, which are left out; correct",
    ),
    "odd iscrowd": ([{"segmentation": SQUARE, "iscrowd": "0"}], "annotation 1 .*has iscrowd '0', which is"),
    "equal masks": (
        [{"segmentation": SQUARE}, {"segmentation": SQUARE}],
        "annotation 2 .*: has the same pixels as annotation 1",
    ),
    "empty mask": (
        [{"segmentation": SQUARE}, {"segmentation": {"size": [40, 50], "counts": [2000]}}],
        "annotation 2 .*covers no pixel and is left out; delete",
    ),
    "mask of another size": (
        [{"segmentation": {"size": [4, 5], "counts": [20]}}],
        r"annotation 1 .*has run lengths of size \[4, 5\], its image \[40, 50\]",
    ),
}


@pytest.mark.parametrize("kind", COCO_FAULTS)
def test_a_fault_planted_in_a_coco_file_is_printed(tmp_path, capsys, kind):
    annotations, message = COCO_FAULTS[kind]
    code, text = run(capsys, "--format", "coco", coco_file(tmp_path, annotations))
    assert code == 1
    assert_matches(text, message)
    assert text.startswith("1 ")


def test_a_missing_file_of_a_coco_set_is_printed(tmp_path, capsys):
    path = coco_file(tmp_path, [], images=(("a.png", 1), ("b.png", 2)))
    (tmp_path / "b.png").unlink()
    code, text = run(capsys, "--format", "coco", path)
    assert code == 1 and "b.png: cannot be read: it is not there; restore the file" in text


def test_semantic_label_images_are_doubted(tmp_path, capsys):
    save(tmp_path / "a.png", np.full((*SIZE, 3), 200, np.uint8))
    grid = np.zeros(SIZE, np.uint8)
    grid[::8, ::10] = 1
    save(tmp_path / "a_masks.png", np.repeat(np.repeat(grid[::4, ::5], 4, 0), 5, 1) * 255)
    code, text = run(capsys, "--format", "labels", tmp_path)
    assert code == 1 and "a_masks.png: label 255: is one instance of 25 separate pieces" in text


def test_a_sound_set_gets_exit_code_0_and_its_numbers(folders, capsys):
    save(folders / "a" / "masks" / "2.png", box(25, 25, 35, 33))
    code, text = run(capsys, "--format", "mask_folder", folders, "--plot", folders / "plot.png")
    assert code == 0
    for line in (
        "images       2 readable",
        "sizes        40 x 50 (2) (height x width, images)",
        "instances    3; an image has 0 / 1.5 / 3 (min / median / max)",
        "overlaps     2 instances share pixels with another",
        "duplicates   0",
        "unlabelled   1 images: b",
        "box sides    8.9 / 8.9 / 8.9 px",
        "  8 to 16 px     100.0% of the boxes",
    ):
        assert line in text
    with Image.open(folders / "plot.png") as plot:
        assert plot.size[0] > 1000 and np.asarray(plot).std() > 5


def test_what_cannot_even_be_listed_ends_with_a_message(folders, capsys):
    assert main(["check", "--format", "labels", str(folders)]) == 1
    assert "looks like mask_folder; set the format to mask_folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["check", "--format", "voc", str(folders)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scale", "0"), "0 is not above 0"),
        (("--scale", "nan"), "nan is not above 0"),
        (("--plot", "plot.xyz"), "plot.xyz has none of the endings .png, .pdf, .svg"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_read(folders, capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        main(["check", "--format", "mask_folder", str(folders), *flags])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_config_that_is_none_is_named(folders, capsys):
    (folders / "words.py").write_text("no code")
    (folders / "other.py").write_text("x = 1")
    for name, message in (
        ("gone.py", "gone.py is no file"),
        ("words.py", "words.py is no Python file with a get_config()"),
        ("other.py", "other.py is no Python file with a get_config()"),
    ):
        assert main(["check", "--format", "mask_folder", str(folders), "--config", str(folders / name)]) == 1
        assert message in capsys.readouterr().err


def test_inverted_masks_are_doubted(folders, capsys):
    for path in (folders / "a" / "masks").iterdir():
        save(path, 255 - np.asarray(Image.open(path)))
    code, text = run(capsys, "--format", "mask_folder", folders)
    assert code == 1 and text.startswith("2 doubts")
    assert (
        "0.png: covers 96% of the image, and is not its only instance, as an inverted mask does; save the"
        in text
    )


def test_a_single_inverted_mask_is_doubted(folders, capsys):
    path = folders / "a" / "masks" / "1.png"
    save(path, 255 - np.asarray(Image.open(path)))
    code, text = run(capsys, "--format", "mask_folder", folders)
    assert code == 1 and text.startswith("1 doubts")
    assert "1.png: covers 96% of the image, and is not its only instance, as an inverted mask does" in text


def test_masks_that_are_nearly_equal_are_doubted(folders, capsys):
    """80 and 90 pixels with 80 in common are an IoU of 0.89, 80 and 96 of 0.83."""
    save(folders / "a" / "masks" / "2.png", box(2, 2, 12, 11))
    save(folders / "a" / "masks" / "3.png", box(20, 20, 32, 28))
    code, text = run(capsys, "--format", "mask_folder", folders)
    assert code == 1 and text.startswith("1 doubts")
    assert "2.png: has nearly the same pixels as" in text and "0.png (IoU 0.89); delete one" in text
    assert "duplicates   0; 1 more are nearly so" in text


def test_nearly_equal_annotations_of_two_classes_or_crowds_are_none(tmp_path, capsys):
    wide = [[5, 5, 15.6, 5, 15.6, 15, 5, 15]]
    rows = [{"segmentation": SQUARE}, {"segmentation": wide}, {"segmentation": SQUARE, "category_id": 4}]
    path = coco_file(tmp_path, [*rows[:1], rows[1] | {"iscrowd": 1}, rows[2]])
    path.write_text(path.read_text().replace('"cell"}', '"cell"}, {"id": 4, "name": "nucleus"}'))
    assert run(capsys, "--format", "coco", path)[0] == 0
    code, text = run(capsys, "--format", "coco", coco_file(tmp_path, rows[:2]))
    assert code == 1 and "annotation 2 (image a.png): has nearly the same pixels as" in text


def test_labels_beside_the_image_are_told_with_the_remedy(tmp_path, capsys):
    for n in range(6):
        record = draw_records(1, seed=n, size=128)[0]
        right = ndimage.shift(record.image.astype(float), (0, 0.8, 0), order=3, mode="nearest")
        save(tmp_path / f"{n}.png", np.clip(np.rint(right), 0, 255).astype(np.uint8))
        save(tmp_path / f"{n}_masks.png", record.layers.max(axis=0))
    code, text = run(capsys, "--format", "labels", tmp_path)
    told = re.search(
        r"the labels: lie 0.\d\d px (above|below) and 0.(\d\d) px left of what .* of 6 images", text
    )
    assert code == 1 and 70 <= int(told[2]) <= 90
    assert re.search(r"random_affine and its offset_x = -0.\d\d, offset_y = -?0.\d\d", text)


def test_fragments_can_be_allowed(folders, capsys):
    speckle(folders)
    assert run(capsys, "--format", "mask_folder", folders, "--fragments", "0.2")[0] == 0


def test_a_set_without_instances_or_readable_images(folders, capsys):
    (folders / "a" / "images" / "a.png").unlink()
    code, text = run(capsys, "--format", "mask_folder", folders, "--plot", folders / "plot.png")
    assert code == 1 and "images       1 readable" in text
    (folders / "b" / "images" / "b.png").unlink()
    code, text = run(capsys, "--format", "mask_folder", folders)
    assert code == 1 and text.endswith("images       0 readable\n")


def test_the_anchors_are_those_of_the_config(folders, capsys, tmp_path):
    config = tmp_path / "tiny.py"
    model = "MaskRCNNConfig.c4(rpn=RPNConfig(anchor_sizes=((9,),), anchor_ratios=(1.25,)))"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "from maskrcnn_jax.config import MaskRCNNConfig, RPNConfig\n"
        f"def get_config(variant=''):\n    assert variant in ('', 'b')\n"
        f"    return ConfigDict({{'model': {model}.to_dict()}})\n"
    )
    flags = ("--format", "mask_folder", folders)
    # Centres at (6, 7) and (24, 25): the anchors of stride 16 are up to 9 px away from them.
    for variant in ("", ":b"):
        assert "anchors      100.0% of the boxes" in run(capsys, *flags, "--config", f"{config}{variant}")[1]
    text = run(capsys, *flags, "--scale", "4")[1]
    assert "images enlarged 4 times" in text and "anchors      0.0% of the boxes" in text


def test_progress_and_crowds(tmp_path):
    whole = {"size": list(SIZE), "counts": [0, 2000]}
    path = coco_file(tmp_path, [{"segmentation": whole, "iscrowd": 1}, {"segmentation": SQUARE}])
    calls = []
    found = survey(
        list_entries("coco", path),
        anchor_grids(MaskRCNNConfig.c4()),
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(1, 1)] and not found.faults and not found.doubts
