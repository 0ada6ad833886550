"""Initial weights from files of every kind: each goes to its reader; of a bundle every layer that fits."""

import dataclasses
import pickle

import numpy as np
import pytest

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.interop.initialize import initialize_from
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest


def small(num_classes=1, norm="frozen_bn", depth=18, **changes):
    return MaskRCNNConfig(
        num_classes=num_classes,
        backbone=BackboneConfig(depth=depth, stem_channels=4, res2_channels=4, norm=norm),
        rpn=RPNConfig(anchor_sizes=((8, 16),), channels=4),
        roi=RoIConfig(norm="group", mask_channels=4),
        **changes,
    )


def filled(config, value):
    """Parameters that are `value` plus the number of the tensor, so that each can be told from the others."""
    shapes = expected_shapes(config)
    return nest(
        {path: np.full(shape, value + i, np.float32) for i, (path, shape) in enumerate(shapes.items())}
    )


@pytest.fixture
def bundle(tmp_path):
    def write(config):
        params = filled(config, 0.5)
        save_bundle(tmp_path / "bundle", config, params)
        return tmp_path / "bundle", flatten(params)

    return write


def test_a_bundle_of_the_same_model_is_taken_whole(bundle):
    folder, source = bundle(small())
    # How detections are chosen is no part of the weights.
    config = small(detection=DetectionConfig(max_detections=7))
    params, report = initialize_from(folder, config, filled(config, -900.0))
    assert {path: array.tolist() for path, array in flatten(params).items()} == {
        path: array.tolist() for path, array in source.items()
    }
    assert len(report.loaded) == len(source) and not report.missing and not report.unexpected


def test_layers_that_do_not_fit_keep_their_fresh_values_with_kernel_and_bias(bundle):
    folder, source = bundle(small(num_classes=3))
    config = small(num_classes=1)
    fresh = filled(config, -900.0)
    params, report = initialize_from(folder, config, fresh)
    fresh, got, reasons = flatten(fresh), flatten(params), dict(report.missing)
    foreign = {"box_predictor/cls_score", "box_predictor/bbox_pred", "mask_head/predictor"}
    assert set(reasons) == {f"roi_heads/{name}/{leaf}" for name in foreign for leaf in ("kernel", "bias")}
    assert reasons["roi_heads/box_predictor/cls_score/bias"] == "shape (4,) in the file, (2,) here"
    for path, array in got.items():
        np.testing.assert_array_equal(array, (fresh if path in reasons else source)[path])
    assert {path for path, _ in report.unexpected} == set(reasons)


def test_a_bias_is_not_taken_without_its_kernel(bundle):
    folder, _ = bundle(small())
    config = dataclasses.replace(small(), roi=RoIConfig(norm="group", mask_channels=6))
    _, report = initialize_from(folder, config, filled(config, -900.0))
    # One class: the predictor's bias has the same shape in both, its kernel has not.
    assert dict(report.missing)["roi_heads/mask_head/predictor/bias"] == "the rest of this layer does not fit"


@pytest.mark.parametrize(
    ("there", "here", "reason"),
    [
        ("frozen_bn", "group", "group norm here, batch norm in the file"),
        ("group", "frozen_bn", "batch norm here, group norm in the file"),
    ],
)
def test_norms_of_another_kind_are_not_mixed(bundle, there, here, reason):
    folder, source = bundle(small(norm=there))
    fresh = filled(small(norm=here), -900.0)
    params, report = initialize_from(folder, small(norm=here), fresh)
    reasons, got = dict(report.missing), flatten(params)
    norms = {path for path in got if path.startswith("backbone/") and "/norm/" in path}
    assert set(reasons) == norms
    assert reasons["backbone/stem/conv1/norm/scale"] == reason
    np.testing.assert_array_equal(got["backbone/stem/conv1/kernel"], source["backbone/stem/conv1/kernel"])


def test_the_report_is_short_and_names_parts(bundle):
    folder, _ = bundle(small(num_classes=3))
    lines = str(initialize_from(folder, small(), filled(small(), 0.0))[1]).splitlines()
    assert lines[0].endswith("6 kept, 6 unused")
    assert lines[1] == "  loaded: stem, res2, res3, res4, res5, mask_head, rpn"
    assert lines[2].startswith("  box_predictor: 1 kept as initialised: shape (") and len(lines) <= 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_order": "RGB"}, "channel_order is RGB; the bundle has BGR"),
        ({"pixel_std": (2.0, 1.0, 1.0)}, "pixel_std is"),
        ({"pixel_mean": (0.0, 1.0, 1.0)}, "pixel_mean is"),
        ({"depth": 34}, "backbone.depth is 34; the bundle has 18"),
    ],
)
def test_weights_for_another_input_are_refused(bundle, changes, words):
    folder, _ = bundle(small())
    config = small(**changes)
    with pytest.raises(ValueError, match=words):
        initialize_from(folder, config, filled(config, 0.0))


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_detectron2_and_msra_files_go_to_their_readers(tmp_path, suffix):
    config = MaskRCNNConfig(
        backbone=BackboneConfig(
            depth=50, last_stage=2, stem_channels=4, res2_channels=8, bottleneck_channels=4
        ),
        rpn=RPNConfig(anchor_sizes=((8,),)),
    )
    fresh = filled(config, 0.0)
    stem = np.arange(7 * 7 * 3 * 4, dtype=np.float32).reshape(7, 7, 3, 4)
    there = stem.transpose(3, 2, 0, 1).copy()
    norm = {name: np.full(4, i + 1, np.float32) for i, name in enumerate(("weight", "bias"))}
    norm |= {"running_mean": np.zeros(4, np.float32), "running_var": np.ones(4, np.float32)}
    tensors = {"stem.conv1.weight": there} | {f"stem.conv1.norm.{k}": v for k, v in norm.items()}
    path = tmp_path / f"backbone.{suffix}"
    path.write_bytes(pickle.dumps({"model": tensors}, protocol=2))
    np.savez(
        tmp_path / "backbone.npz",
        **{"conv1/w": there},
        **{
            f"bn_conv1/{name}": array
            for name, array in zip(("gamma", "beta", "mean", "var"), norm.values(), strict=True)
        },
    )
    for file in (path, tmp_path / "backbone.npz"):
        params, report = initialize_from(file, config, fresh)
        np.testing.assert_array_equal(params["backbone"]["stem"]["conv1"]["kernel"], stem)
        assert len(report.loaded) == 5 and len(report.missing) > 5


def test_what_cannot_be_read_is_refused(tmp_path):
    config = small()
    (tmp_path / "weights.h5").touch()
    for path, words in [
        (tmp_path / "weights.h5", "none of"),
        (tmp_path / "gone.npz", "does not exist"),
        (tmp_path, "is no bundle"),
    ]:
        with pytest.raises(ValueError, match=words):
            initialize_from(path, config, {})
