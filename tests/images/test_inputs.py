"""Which images are found, in which order, and that no two get the same name."""

import json
from pathlib import Path

import pytest

from maskrcnn_jax.images.inputs import find_images, read_ids, unique_names


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes empty files and works in their folder."""
    monkeypatch.chdir(tmp_path)

    def make(*files):
        for file in map(Path, files):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    return make


def found(*paths):
    images, faults = find_images(paths)
    return [image.as_posix() for image in images], faults


def test_files_folders_and_patterns(tree):
    tree("a/2.png", "a/1.TIF", "a/notes.txt", "a/.hidden.png", "a/deep/3.jpg", "b/x.svs", "b/data.bin")
    assert found("a") == (["a/1.TIF", "a/2.png"], [])
    assert found("b/data.bin", "a") == (["b/data.bin", "a/1.TIF", "a/2.png"], [])
    assert found("?/*") == (["a/1.TIF", "a/2.png", "b/x.svs"], [])
    assert found("a/**/*.jpg") == (["a/deep/3.jpg"], [])
    assert found("a/2.png", "a", "a/deep/../2.png") == (["a/2.png", "a/1.TIF"], [])


def test_a_name_with_the_signs_of_patterns_is_a_file(tree):
    tree("a/x[1].png")
    assert found("a/x[1].png") == (["a/x[1].png"], [])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.png", "gone.png: there is no such file or folder"),
        ("empty", "empty: there is no image in this folder"),
        ("deep", "deep: there is no image in this folder itself; those in its folders are PATH/'**/*'"),
        ("empty/*.png", "empty/*.png: no image has such a name"),
    ],
)
def test_what_leads_nowhere_is_told_and_the_rest_goes_on(tree, path, message):
    tree("empty/notes.txt", "deep/er/1.png", "good.png")
    assert found(path, "good.png") == (["good.png"], [message])


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.png", "b/y.png"], ["x", "y"]),
        (["a/x.png", "b/x.png", "c/y.png"], ["a__x", "b__x", "y"]),
        (["a/x.png", "a/x.tif"], ["x.png", "x.tif"]),
        (["a/x.png", "a/X.png"], ["x", "X"]),
        (["r/a/in/x.png", "r/b/in/x.png"], ["a__in__x", "b__in__x"]),
        (["x.png", "b/x.png"], ["x", "b__x"]),
        (["a/x.png", "b/x.png", "b/x.tif"], ["a__x.png", "b__x.png", "b__x.tif"]),
        (["Zürich – 東京.png"], ["Zürich – 東京"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(tree, files, names):
    tree(*files)
    given = unique_names([Path(file) for file in files])
    if files[1:] == ["a/X.png"]:  # Both would be one file where case does not count.
        assert len({name.casefold() for name in given}) == 2
    else:
        assert given == names


def test_names_that_stay_the_same_are_refused(tree):
    files = ["a/x.png", "b/x.png", "c/a__x.png"]
    tree(*files)
    with pytest.raises(ValueError, match="same names") as error:
        unique_names([Path(file) for file in files])
    assert "a__x: a/x.png" in str(error.value) and "a__x: c/a__x.png" in str(error.value)


def test_ids_of_a_coco_data_set_or_a_list_of_images(tmp_path):
    images = [{"id": 7, "file_name": "train/a.png", "width": 3}, {"id": 2, "file_name": "b.png"}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(images))
    assert read_ids(path) == ({"a.png": 7, "b.png": 2}, None)
    categories = [{"id": 9, "name": "late"}, {"id": 3, "name": "early"}]
    path.write_text(json.dumps({"images": images, "categories": categories}))
    ids = read_ids(path)
    assert ids.images == {"a.png": 7, "b.png": 2}
    assert list(ids.categories.items()) == [(3, "early"), (9, "late")]


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1e999, "file_name": "a"}]',
        "7",
        "[7]",
        '[{"id": 1}]',
        '{"annotations": []}',
        '[{"id": "x", "file_name": "a"}]',
    ],
)
def test_other_files_have_no_ids(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is neither a COCO data set nor"):
        read_ids(tmp_path / "x.json")


@pytest.mark.parametrize(("text", "what"), [("{", "no JSON"), ("[" * 9999, "nested more than")])
def test_files_that_are_no_json_have_no_ids(tmp_path, text, what):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json is {what}"):
        read_ids(tmp_path / "x.json")


def test_a_name_has_one_id(tmp_path):
    images = [{"id": 1, "file_name": "a/x.png"}, {"id": 2, "file_name": "b/x.png"}]
    (tmp_path / "x.json").write_text(json.dumps(images))
    with pytest.raises(ValueError, match=r"several images called x\.png"):
        read_ids(tmp_path / "x.json")
