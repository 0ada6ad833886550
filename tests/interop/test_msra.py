"""Initialising a backbone from MSRA's Caffe names: every tensor in its place, every gap reported."""

import numpy as np
import pytest

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig
from maskrcnn_jax.interop import msra
from maskrcnn_jax.interop.trees import flatten, nest


def norm(path, channels, rng, kind="frozen_bn"):
    names = ("scale", "bias", "mean", "var") if kind == "frozen_bn" else ("scale", "bias")
    return {f"{path}/norm/{name}": rng.uniform(1, 2, channels).astype(np.float32) for name in names}


def stage(path, inputs, outputs, blocks, rng, kind="frozen_bn"):
    """A bottleneck stage of the model, as a flat tree."""
    tree, middle = {}, outputs // 4
    for block in range(blocks):
        convs = {"conv1": (1, inputs, middle), "conv2": (3, middle, middle), "conv3": (1, middle, outputs)}
        if block == 0:
            convs["shortcut"] = (1, inputs, outputs)
        for name, (size, i, o) in convs.items():
            tree[f"{path}/block{block}/{name}/kernel"] = rng.normal(size=(size, size, i, o)).astype(
                np.float32
            )
            tree |= norm(f"{path}/block{block}/{name}", o, rng, kind)
        inputs = outputs
    return tree


def model(rng, kind="frozen_bn", head_kind="frozen_bn", stem=4):
    """A small C4 model with the stem, res2 (two blocks) and res3 as the head."""
    tree = {"backbone/stem/conv1/kernel": rng.normal(size=(7, 7, 3, stem)).astype(np.float32)}
    tree |= norm("backbone/stem/conv1", stem, rng, kind)
    tree |= stage("backbone/res2", 4, 8, 2, rng, kind)
    tree |= stage("roi_heads/res3", 8, 16, 1, rng, head_kind)
    return nest(tree | {"rpn/conv/bias": np.zeros(3, np.float32)})


def caffe(params):
    """The MSRA names of a model's backbone, written out by hand rather than by the table."""
    letters, convs = "abcdef", {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
    statistics = {"scale": "gamma", "bias": "beta", "mean": "mean", "var": "var"}
    out = {}
    for path, array in flatten(params).items():
        parts = path.split("/")
        if parts[1] == "stem":
            conv, bn = "conv1", "bn_conv1"
        elif parts[1].startswith("res"):
            suffix = f"{parts[1][3]}{letters[int(parts[2][5:])]}_branch{convs[parts[3]]}"
            conv, bn = f"res{suffix}", f"bn{suffix}"
        else:
            continue
        if parts[-1] == "kernel":
            out[f"{conv}/w"] = np.moveaxis(array, (3, 2), (0, 1))
        else:
            out[f"{bn}/{statistics[parts[-1]]}"] = array
    return out


@pytest.fixture
def archive(tmp_path):
    def write(arrays):
        path = tmp_path / "msra.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def config():
    return MaskRCNNConfig.c4(50)


def test_every_tensor_finds_its_place(archive, config, rng):
    source, fresh = model(rng), model(rng)
    extras = {"fc1000/b": np.zeros(9, np.float32), "conv1/b": np.zeros(4, np.float32)}
    params, report = msra.initialize_from(archive(caffe(source) | extras), config, fresh)
    expected, got = flatten(source), flatten(params)
    assert len(report.loaded) == len(expected) - 1 and not report.missing and not report.unexpected
    for path in report.loaded:
        np.testing.assert_array_equal(got[path], expected[path])
    np.testing.assert_array_equal(got["rpn/conv/bias"], 0)


def test_the_input_tree_is_not_changed(archive, config, rng):
    fresh = model(rng)
    before = {path: array.copy() for path, array in flatten(fresh).items()}
    msra.initialize_from(archive(caffe(model(rng))), config, fresh)
    for path, array in flatten(fresh).items():
        np.testing.assert_array_equal(array, before[path])


def test_a_partial_stage_keeps_its_fresh_values_and_is_reported(archive, config, rng):
    arrays, fresh = caffe(model(rng)), model(rng)
    del arrays["res3a_branch2b/w"]
    params, report = msra.initialize_from(archive(arrays), config, fresh)
    reasons = dict(report.missing)
    assert reasons["roi_heads/res3/block0/conv2/kernel"] == "not in the file"
    assert reasons["roi_heads/res3/block0/conv1/kernel"] == "other tensors of this stage do not fit"
    head = {p: a for p, a in flatten(params).items() if "res3" in p}
    assert head.keys() == {p for p in reasons if "res3" in p}
    for path, array in head.items():
        np.testing.assert_array_equal(array, flatten(fresh)[path])
    assert all("res3" in path for path, _ in report.unexpected)
    assert "res3: 19 kept as initialised: other tensors of this stage do not fit" in str(report)


def test_group_norm_keeps_its_scale_and_takes_the_convolutions(archive, config, rng):
    source, fresh = model(rng), model(rng, head_kind="group")
    params, report = msra.initialize_from(archive(caffe(source)), config, fresh)
    got, expected, before = flatten(params), flatten(source), flatten(fresh)
    path = "roi_heads/res3/block0/conv2"
    np.testing.assert_array_equal(got[f"{path}/kernel"], expected[f"{path}/kernel"])
    np.testing.assert_array_equal(got[f"{path}/norm/scale"], before[f"{path}/norm/scale"])
    assert "group norm here, batch norm in the file" in str(report)


def test_another_width_is_reported_with_both_shapes(archive, config, rng):
    _, report = msra.initialize_from(archive(caffe(model(rng))), config, model(rng, stem=6))
    assert (
        dict(report.missing)["backbone/stem/conv1/kernel"]
        == "shape (7, 7, 3, 4) in the file, (7, 7, 3, 6) here"
    )


def test_stages_that_the_model_lacks_are_unexpected(archive, config, rng):
    arrays = caffe(model(rng)) | {"res5a_branch2a/w": np.zeros((2, 3, 1, 1), np.float32)}
    _, report = msra.initialize_from(archive(arrays), config, model(rng))
    assert report.unexpected == (("res5/block0/conv1/kernel", "not in the model"),)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("res4b_branch2a/w", "res4/block1/conv1/kernel"),
        ("res4f_branch2c/w", "res4/block5/conv3/kernel"),
        ("res4b22_branch2b/w", "res4/block22/conv2/kernel"),
        ("bn3b7_branch2a/var", "res3/block7/conv1/norm/var"),
        ("bn_conv1/gamma", "stem/conv1/norm/scale"),
    ],
)
def test_names_of_deep_networks(archive, name, path):
    shape = (1, 1, 1, 1) if name.endswith("/w") else (1,)
    assert list(msra.load(archive({name: np.ones(shape, np.float32)}))) == [path]


def test_all_faults_of_an_archive_in_one_error(archive):
    arrays = {
        "res2a_branch2d/w": np.zeros((1, 1, 1, 1), np.float32),
        "res2a_branch2a/w": np.zeros((1, 1), np.float32),
        "bn_conv1/var": np.zeros(3, np.float64),
        "bn_conv1/mean": np.float32([np.nan]),
    }
    pattern = r"(?s)branch2d/w: not a name.*branch2a/w: float32 \(1, 1\).*var: float64.*mean: 1 of 1 values"
    with pytest.raises(ValueError, match=pattern):
        msra.load(archive(arrays))


def test_objects_in_an_archive_are_refused(archive):
    with pytest.raises(ValueError, match=r"no readable \.npz of plain arrays"):
        msra.load(archive({"conv1/w": np.array([{}], dtype=object)}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00", None])
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "weights.npz"
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.npz is no readable"):
        msra.load(path)


def test_an_absent_file(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        msra.load(tmp_path / "weights.npz")


def test_a_config_that_the_weights_do_not_suit_lists_its_fields(tmp_path):
    backbone = BackboneConfig(depth=18, stride_in_1x1=False)
    config = MaskRCNNConfig(backbone=backbone, channel_order="RGB", pixel_std=(58.0, 57.0, 57.0))
    with pytest.raises(
        ValueError, match=r"(?s)depth is 18.*channel_order is RGB.*pixel_std is .58.*stride_in_1x1 is off"
    ):
        msra.initialize_from(tmp_path / "weights.npz", config, {})


def test_the_real_archive(shared):
    loaded = msra.load(shared / "weights" / "msra_resnet50_partial.npz")
    assert loaded["stem/conv1/kernel"].shape == (7, 7, 3, 64)
    assert loaded["res4/block5/conv2/kernel"].shape == (3, 3, 256, 256)
    stages = {path.split("/")[0] for path in loaded}
    assert stages == {"stem", "res2", "res3", "res4", "res5"}
    blocks = {path.split("/")[1] for path in loaded if path.startswith("res4/")}
    assert blocks == {f"block{i}" for i in range(6)}
