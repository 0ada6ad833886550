"""Detectron2's checkpoints: the same numbers in, out, and in again; every fault named."""

import dataclasses
import logging
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.interop import detectron2, names
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest

WIDTHS = {"STEM_OUT_CHANNELS": 4, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 2}
C4 = {
    "MASK_ON": True,
    "RESNETS": WIDTHS,
    "ANCHOR_GENERATOR": {"SIZES": [[8, 16]]},
    "ROI_HEADS": {"NUM_CLASSES": 2},
    "ROI_MASK_HEAD": {"CONV_DIM": 6},
}
STAGES = ["res2", "res3", "res4", "res5"]
FPN = {
    "MASK_ON": True,
    "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
    "RESNETS": {**WIDTHS, "OUT_FEATURES": STAGES},
    "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": 5},
    "ANCHOR_GENERATOR": {"SIZES": [[8], [16], [32], [64], [128]]},
    "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"]},
    "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"], "NUM_CLASSES": 2},
    "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "FC_DIM": 7, "POOLER_RESOLUTION": 3},
    "ROI_MASK_HEAD": {"CONV_DIM": 6, "NUM_CONV": 4},
}


@pytest.fixture(scope="module", params=["c4", "fpn"])
def model(request, tmp_path_factory):
    """A YAML file, its config, and random parameters."""
    path = tmp_path_factory.mktemp("model") / "config.yaml"
    path.write_text(yaml.safe_dump({"VERSION": 2, "MODEL": {"c4": C4, "fpn": FPN}[request.param]}))
    config, rng = read_config(path), np.random.default_rng(0)
    flat = {p: rng.normal(size=shape).astype(np.float32) for p, shape in expected_shapes(config).items()}
    return path, config, nest(flat)


@pytest.fixture(scope="module")
def c4(tmp_path_factory):
    path = tmp_path_factory.mktemp("c4") / "config.yaml"
    path.write_text(yaml.safe_dump({"VERSION": 2, "MODEL": C4}))
    return path, read_config(path)


def write(path, tensors):
    path.write_bytes(pickle.dumps({"model": tensors, "__author__": "a test"}))
    return path


def stored(path):
    with path.open("rb") as file:
        return pickle.load(file)


def assert_same(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == np.float32 and a[path].shape == b[path].shape, path
        assert a[path].tobytes() == b[path].tobytes(), path


def test_out_and_in_again_is_bit_identical(model, tmp_path):
    path, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    loaded_config, loaded = detectron2.load(path, tmp_path / "model.pkl")
    assert loaded_config == config
    assert_same(loaded, params)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pkl"]


def test_layouts_are_torchs(model, tmp_path):
    """Each layer computes the same when its weight is read as torch reads it."""
    _, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    there, rng = stored(tmp_path / "model.pkl")["model"], np.random.default_rng(1)
    kernel, weight = params["rpn"]["conv"]["kernel"], there["proposal_generator.rpn_head.conv.weight"]
    patch = rng.normal(size=(kernel.shape[2], 3, 3))
    expected = np.einsum("chw,ochw->o", patch, weight)
    np.testing.assert_allclose(np.einsum("chw,hwco->o", patch, kernel), expected)
    kernel, weight = (
        params["roi_heads"]["mask_head"]["deconv"]["kernel"],
        there["roi_heads.mask_head.deconv.weight"],
    )
    cell = rng.normal(size=kernel.shape[2])
    np.testing.assert_allclose(np.einsum("c,hwco->hwo", cell, kernel), np.einsum("c,cohw->hwo", cell, weight))
    kernel = params["roi_heads"]["box_predictor"]["cls_score"]["kernel"]
    np.testing.assert_array_equal(there["roi_heads.box_predictor.cls_score.weight"], kernel.T)
    if config.fpn is not None:
        kernel, weight = (
            params["roi_heads"]["box_head"]["fc1"]["kernel"],
            there["roi_heads.box_head.fc1.weight"],
        )
        pooled = rng.normal(size=(config.roi.bins, config.roi.bins, config.fpn.channels))
        np.testing.assert_allclose(
            pooled.reshape(-1) @ kernel, weight @ pooled.transpose(2, 0, 1).reshape(-1)
        )


def test_a_saved_file_is_read_by_numpy_1_and_2(model, tmp_path):
    _, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    assert b"numpy._core" not in (tmp_path / "model.pkl").read_bytes()
    content = stored(tmp_path / "model.pkl")
    assert content.keys() == {"model", "__author__"}
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in content["model"].values())


@pytest.mark.parametrize("name", ["c4", "fpn"])
def test_the_goldens_come_back_as_they_were(shared, tmp_path, name):
    golden = shared / "goldens"
    yaml_path = golden / f"{name}_config.yaml"
    config, params = detectron2.load(yaml_path, golden / f"{name}_model.pkl")
    assert_same(detectron2.load(yaml_path, golden / f"{name}_model.pth")[1], params)
    detectron2.save(tmp_path / "model.pkl", config, params)
    assert_same(detectron2.load(yaml_path, tmp_path / "model.pkl")[1], params)
    expected, written = stored(golden / f"{name}_model.pkl")["model"], stored(tmp_path / "model.pkl")["model"]
    assert written.keys() == expected.keys()
    for key, array in expected.items():
        assert written[key].shape == array.shape and written[key].tobytes() == array.tobytes(), key


def test_names_that_files_carry_besides_are_ignored(model, tmp_path):
    path, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    tensors = stored(tmp_path / "model.pkl")["model"]
    extras = {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),
        "pixel_std": np.ones((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
        "backbone.stem.conv1.norm.num_batches_tracked": np.int64(4),
    }
    tensors = {f"module.{name}": array for name, array in (tensors | extras).items()}
    assert_same(detectron2.load(path, write(tmp_path / "more.pkl", tensors))[1], params)


def test_half_and_double_precision_become_float32(model, tmp_path):
    path, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    tensors = stored(tmp_path / "model.pkl")["model"]
    for dtype in (np.float16, np.float64):
        cast = {name: array.astype(dtype) for name, array in tensors.items()}
        loaded = detectron2.load(path, write(tmp_path / "cast.pkl", cast))[1]
        flat = {name: array.astype(dtype).astype(np.float32) for name, array in flatten(params).items()}
        assert_same(loaded, nest(flat))


def test_every_fault_of_the_tensors_in_one_error(model, tmp_path):
    path, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    tensors = stored(tmp_path / "model.pkl")["model"]
    del tensors["proposal_generator.rpn_head.conv.bias"]
    tensors["roi_heads.mask_head.predictor.bias"] = np.zeros(9, np.float32)
    tensors["roi_heads.keypoint_head.score.weight"] = np.zeros(1, np.float32)
    with pytest.raises(Detectron2Error) as error:
        detectron2.load(path, write(tmp_path / "bad.pkl", tensors))
    lines = str(error.value).splitlines()
    assert "bad.pkl does not fit" in lines[0] and "config.yaml" in lines[0]
    assert lines[1].startswith("  proposal_generator.rpn_head.conv.bias: missing")
    assert lines[2] == "  roi_heads.keypoint_head.score.weight: unexpected, shape (1,)"
    assert lines[3] == "  roi_heads.mask_head.predictor.bias: shape (9,) where the config asks for (2,)"
    assert len(lines) == 4


def test_values_that_are_no_numbers_are_refused(model, tmp_path):
    path, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    tensors = stored(tmp_path / "model.pkl")["model"]
    name = "proposal_generator.rpn_head.conv.bias"
    bad = tensors[name].astype(np.float64)
    bad[:2] = np.nan, 1e300
    with pytest.raises(Detectron2Error, match=rf"{name}: 2 of \d+ values are not finite"):
        detectron2.load(path, write(tmp_path / "bad.pkl", tensors | {name: bad}))
    with pytest.raises(Detectron2Error, match=rf"{name}: int64, no floating-point numbers"):
        detectron2.load(path, write(tmp_path / "bad.pkl", tensors | {name: np.arange(8)}))


# Backbones


def caffe2(params, statistics=False):
    """A C4 model's ResNet as Caffe2 names it; with the batch norm folded into scale and bias."""
    convs = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    leaves = {"scale": "bn_s", "bias": "bn_b"} | ({"mean": "bn_rm", "var": "bn_riv"} if statistics else {})
    out = {"fc1000_w": np.zeros((9, 4), np.float32), "fc1000_b": np.zeros(9), "conv1_b": np.zeros(4)}
    for path, array in flatten(params).items():
        parts = path.split("/")
        stem = parts[1] == "stem"
        if not stem and not parts[1].startswith("res"):
            continue
        layer = "conv1" if stem else f"{parts[1]}_{parts[2][5:]}_{convs[parts[3]]}"
        if parts[-1] == "kernel":
            out[f"{layer}_w"] = np.moveaxis(array, (3, 2), (0, 1))
        elif parts[-1] in leaves:
            out[f"{'res_' * stem}{layer}_{leaves[parts[-1]]}"] = array
    return out


@pytest.fixture(autouse=True)
def init_params(monkeypatch):
    """Fresh parameters at once: compiling the model's own initialisation takes half a minute."""

    def init(config, key):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        shapes = expected_shapes(config).items()
        return nest({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes})

    monkeypatch.setattr(detectron2, "init_params", init)
    return init


@pytest.fixture
def random_params(c4, rng):
    return nest({p: rng.normal(size=s).astype(np.float32) for p, s in expected_shapes(c4[1]).items()})


def test_a_folded_backbone_with_a_fresh_head(c4, random_params, tmp_path, caplog, init_params):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(caffe2(random_params), protocol=2))
    with caplog.at_level(logging.WARNING):
        config, params = detectron2.load(c4[0], path, key=jax.random.key(3))
    assert "R-50.pkl is a backbone; all else is random" in caplog.text
    assert "loaded: stem, res2, res3, res4, res5" in caplog.text
    fresh, source, got = (
        flatten(init_params(config, jax.random.key(3))),
        flatten(random_params),
        flatten(params),
    )
    for name in got:
        if name.endswith("/norm/mean"):
            assert not got[name].any()
        elif name.endswith("/norm/var"):
            # What frozen batch norm computes of it must be exactly neutral.
            assert np.all(got[name] + np.float32(1e-5) == 1)
        else:
            resnet = name.startswith("backbone/") or "/res5/" in name
            np.testing.assert_array_equal(got[name], (source if resnet else fresh)[name])


def test_a_backbone_with_statistics(c4, random_params, tmp_path):
    tensors = caffe2(random_params, statistics=True)
    params = detectron2.load(c4[0], write(tmp_path / "R-50.pkl", tensors))[1]
    assert_same(params["backbone"], random_params["backbone"])


def test_detectron2s_own_names_of_a_backbone(c4, random_params, tmp_path):
    """As its converter from torchvision writes them, and as a trained model has them."""
    config, flat = c4[1], flatten(random_params)
    full = {
        names.detectron2_name(path, config): names.to_there(path, flat[path], config)
        for path in flat
        if path.startswith(("backbone/", "roi_heads/res5/"))
    }
    bare = {name.removeprefix("backbone.").removeprefix("roi_heads."): array for name, array in full.items()}
    bare["stem.fc.weight"] = np.zeros((2, 2), np.float32)
    params = detectron2.load(c4[0], write(tmp_path / "R-50.pkl", bare))[1]
    assert_same(params["backbone"], random_params["backbone"])
    assert_same(params["roi_heads"]["res5"], random_params["roi_heads"]["res5"])


def test_a_backbone_without_the_heads_stage(c4, random_params, tmp_path, caplog, init_params):
    tensors = {name: array for name, array in caffe2(random_params).items() if not name.startswith("res5_2")}
    params = detectron2.load(c4[0], write(tmp_path / "R-50.pkl", tensors))[1]
    fresh = init_params(c4[1], jax.random.key(0))
    assert_same(params["roi_heads"]["res5"], fresh["roi_heads"]["res5"])
    assert "kept as initialised: not in the file" in caplog.text


def test_half_a_backbone_is_an_error(c4, random_params, tmp_path):
    tensors = caffe2(random_params)
    del tensors["res3_1_branch2b_w"]
    tensors["conv1_w"] = np.zeros((5, 3, 7, 7), np.float32)
    pattern = r"(?s)whole backbone.*block1/conv2/kernel: not in the file.*conv1/kernel: shape \(7, 7, 3, 5\)"
    with pytest.raises(Detectron2Error, match=pattern):
        detectron2.load(c4[0], write(tmp_path / "R-50.pkl", tensors))


def test_other_tensors_are_no_resnet(c4, tmp_path):
    tensors = {"conv1_w": np.zeros((4, 3, 7, 7), np.float32), "blocks.0.attn.qkv": np.zeros(2, np.float32)}
    with pytest.raises(Detectron2Error, match=r"is no ResNet:\n  blocks\.0\.attn\.qkv: unexpected$"):
        detectron2.load(c4[0], write(tmp_path / "vit.pkl", tensors))


def test_a_backbone_for_a_model_of_ours(c4, random_params, tmp_path, init_params):
    """Group norm and another end: the trainer's way to initialise, which Detectron2's YAML cannot say."""
    backbone = BackboneConfig(
        last_stage=3, stem_channels=4, res2_channels=8, bottleneck_channels=2, norm="group"
    )
    config = MaskRCNNConfig.from_dict(
        MaskRCNNConfig().to_dict()
        | {"backbone": backbone.__dict__, "roi": {"norm": "group", "mask_channels": 4}}
    )
    path = write(tmp_path / "R-50.pkl", caffe2(random_params))
    fresh = init_params(config, jax.random.key(0))
    params, report = detectron2.initialize_from(path, config, fresh)
    source = random_params["backbone"]["res4"]["block5"]["conv2"]["kernel"]
    np.testing.assert_array_equal(params["roi_heads"]["res4"]["block5"]["conv2"]["kernel"], source)
    assert all(reason == "group norm here, batch norm in the file" for _, reason in report.missing)
    assert "res5: " in str(report) and "not in the model" in str(report)


# Models that Detectron2 does not have


def test_what_detectron2_lacks_is_named(tmp_path):
    backbone = BackboneConfig(depth=18, last_stage=2, stem_pool=False, stage_strides=(1, 1, 1, 1))
    config = MaskRCNNConfig.from_dict(
        MaskRCNNConfig().to_dict()
        | {"backbone": backbone.__dict__, "roi": {"norm": "group", "mask_deconvs": 2}}
    )
    with pytest.raises(Detectron2Error) as error:
        detectron2.save(tmp_path / "model.pkl", config, {})
    for field in ("stage_strides", "stem_pool", "roi.norm", "mask_deconvs", "last_stage is 2", "depth"):
        assert field in str(error.value)
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_model_are_not_written(model, tmp_path):
    _, config, params = model
    with pytest.raises(Detectron2Error, match=r"rpn/conv/bias: missing"):
        detectron2.save(tmp_path / "model.pkl", config, params | {"rpn": {}})


def test_the_public_way_needs_one_import():
    script = (
        "import maskrcnn_jax as m; print(m.interop.detectron2.load.__name__, m.interop.msra.load.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["load", "load"]


def test_a_model_of_other_classes_gives_all_but_the_layers_that_count_them(model, tmp_path):
    _, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    other = dataclasses.replace(
        config,
        num_classes=5,
        roi=dataclasses.replace(config.roi, mask_deconvs=2),
        detection=DetectionConfig(),
    )
    fresh = nest({p: np.full(s, 7, np.float32) for p, s in expected_shapes(other).items()})
    got, report = detectron2.initialize_from(tmp_path / "model.pkl", other, fresh)
    counting = (
        "box_predictor/cls_score",
        "box_predictor/bbox_pred",
        "mask_head/predictor",
        "mask_head/deconv2",
    )
    reasons, source = dict(report.missing), flatten(params)
    assert set(reasons) == {f"roi_heads/{name}/{leaf}" for name in counting for leaf in ("kernel", "bias")}
    for name, array in flatten(got).items():
        np.testing.assert_array_equal(array, 7 if name in reasons else source[name])


def test_a_first_dense_layer_of_other_bins_stays_fresh(model, tmp_path):
    _, config, params = model
    detectron2.save(tmp_path / "model.pkl", config, params)
    other = dataclasses.replace(config, roi=dataclasses.replace(config.roi, bins=4))
    fresh = nest({p: np.zeros(s, np.float32) for p, s in expected_shapes(other).items()})
    _, report = detectron2.initialize_from(tmp_path / "model.pkl", other, fresh)
    dense = [] if config.fpn is None else ["kernel", "bias"]
    assert set(dict(report.missing)) == {f"roi_heads/box_head/fc1/{leaf}" for leaf in dense}
