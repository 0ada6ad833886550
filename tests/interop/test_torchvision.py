"""torchvision's state dicts: both models in, out, and in again; every fault named; no torch anywhere."""

import dataclasses
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import BackboneConfig, FPNConfig, MaskRCNNConfig
from maskrcnn_jax.interop import torchvision
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.interop.checkpoints import write_torch
from maskrcnn_jax.interop.initialize import initialize_from
from maskrcnn_jax.interop.torchvision import TorchvisionError
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest
from maskrcnn_jax.unpickling import load_tensors

CLASSES = 3  # without the background


def norm(name, channels):
    leaves = {"weight": channels, "bias": channels, "running_mean": channels, "running_var": channels}
    return {f"{name}.{leaf}": (size,) for leaf, size in leaves.items()} | {f"{name}.num_batches_tracked": ()}


def both(name, *shape, bias=None):
    return {f"{name}.weight": shape, f"{name}.bias": (bias or shape[0],)}


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet(depth):
    """A ResNet as torchvision and timm name it, with its classifier and a sixteenth of the channels."""
    shapes = {"conv1.weight": (4, 3, 7, 7), **norm("bn1", 4)}
    inputs, expansion = 4, 1 if depth < 50 else 4
    for n, blocks in enumerate(BLOCKS[depth], 1):
        width, outputs = 4 * 2 ** (n - 1), expansion * 4 * 2 ** (n - 1)
        for i in range(blocks):
            block = f"layer{n}.{i}"
            basic = ((width, inputs, 3, 3), (width, width, 3, 3))
            bottleneck = ((width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1))
            for k, shape in enumerate(basic if expansion == 1 else bottleneck, 1):
                shapes |= {f"{block}.conv{k}.weight": shape, **norm(f"{block}.bn{k}", shape[0])}
            if inputs != outputs:
                shapes[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    return shapes | both("fc", 10, inputs)


def body():
    """The backbone of Mask R-CNN on ResNet-50."""
    return {f"backbone.body.{name}": shape for name, shape in resnet(50).items() if "fc." not in name}


def shapes_of(version):
    """The state dict of `maskrcnn_resnet50_fpn` or `_v2` at small widths."""
    shapes, new = body(), version == "v2"

    def conv(name, outputs, inputs, kernel):
        weight = (outputs, inputs, kernel, kernel)
        if new:
            return {f"{name}.0.weight": weight, **norm(f"{name}.1", outputs)}
        return both(f"{name}.0", *weight)

    for i in range(4):
        shapes |= conv(f"backbone.fpn.inner_blocks.{i}", 8, 16 * 2**i, 1)
        shapes |= conv(f"backbone.fpn.layer_blocks.{i}", 8, 8, 3)
    for i in range(2 if new else 1):
        shapes |= both(f"rpn.head.conv.{i}.0", 8, 8, 3, 3)
    shapes |= both("rpn.head.cls_logits", 3, 8, 1, 1) | both("rpn.head.bbox_pred", 12, 8, 1, 1)
    if new:
        for i in range(4):
            shapes |= conv(f"roi_heads.box_head.{i}", 8, 8, 3)
        shapes |= both("roi_heads.box_head.5", 6, 8 * 49)
    else:
        shapes |= both("roi_heads.box_head.fc6", 6, 8 * 49) | both("roi_heads.box_head.fc7", 6, 6)
    shapes |= both("roi_heads.box_predictor.cls_score", CLASSES + 1, 6)
    shapes |= both("roi_heads.box_predictor.bbox_pred", 4 * (CLASSES + 1), 6)
    for i in range(4):
        shapes |= conv(f"roi_heads.mask_head.{i}", 8, 8, 3)
    shapes |= both("roi_heads.mask_predictor.conv5_mask", 8, 8, 2, 2)
    return shapes | both("roi_heads.mask_predictor.mask_fcn_logits", CLASSES + 1, 8, 1, 1)


@pytest.fixture(scope="module", params=["v1", "v2"])
def state(request):
    """A state dict with other values everywhere."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32) if shape else np.int64(7)
        for name, shape in shapes_of(request.param).items()
    }


def floats(state):
    return {name: array for name, array in state.items() if array.shape}


def test_what_is_read_off_the_tensors(state):
    config, params = torchvision.load(state)
    new = "roi_heads.box_head.5.weight" in state
    assert config.num_classes == CLASSES and config.backbone.depth == 50 and config.fpn.channels == 8
    assert (config.backbone.stem_channels, config.backbone.bottleneck_channels) == (4, 4)
    assert config.fpn.norm == config.roi.box_norm == config.roi.mask_norm == ("frozen_bn" if new else None)
    assert (config.roi.box_convs, config.roi.fc_channels) == ((4, (6,)) if new else (0, (6, 6)))
    assert config.rpn.convs == (2 if new else 1) and not config.backbone.stride_in_1x1
    flat = flatten(params)
    # The background is torchvision's first class and our last; its box and mask are left out.
    scores = state["roi_heads.box_predictor.cls_score.weight"]
    np.testing.assert_array_equal(
        flat["roi_heads/box_predictor/cls_score/kernel"].T, [*scores[1:], scores[0]]
    )
    boxes = state["roi_heads.box_predictor.bbox_pred.bias"]
    np.testing.assert_array_equal(flat["roi_heads/box_predictor/bbox_pred/bias"], boxes[4:])
    masks = state["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    np.testing.assert_array_equal(flat["roi_heads/mask_head/predictor/bias"], masks[1:])


def test_there_and_back_is_bit_identical(state, tmp_path):
    config, params = torchvision.load(state)
    for name in ("model.pth", "model.safetensors"):
        torchvision.save(tmp_path / name, config, params)
        again_config, again = torchvision.load(tmp_path / name)
        assert again_config == config
        for path, array in flatten(again).items():
            assert array.tobytes() == flatten(params)[path].tobytes(), path
    saved = load_tensors(tmp_path / "model.pth")
    assert saved.keys() == floats(state).keys()
    for name, array in floats(state).items():
        unread = 4 if ".bbox_pred" in name and "roi" in name else 1 if "mask_fcn_logits" in name else 0
        np.testing.assert_array_equal(saved[name][unread:], array[unread:])
        assert not saved[name][:unread].any()


def test_torch_itself_reads_what_is_written(tmp_path, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensors = {"a.weight": rng.normal(size=(2, 3, 1, 5)).astype(np.float32), "b": np.zeros(0, np.float32)}
    write_torch(tmp_path / "model.pth", tensors)
    found = torch.load(tmp_path / "model.pth", weights_only=True)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_names_from_before_0_13(state, tmp_path):
    if "roi_heads.box_head.5.weight" in state:
        pytest.skip("this model is younger")
    old = {}
    for name, array in floats(state).items():
        name = name.replace("_blocks.0.0.", "_blocks.0.").replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(1, 4):
            name = name.replace(f"_blocks.{i}.0.", f"_blocks.{i}.")
        for i in range(4):
            name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
        old[name] = array
    assert len(old.keys() & state.keys()) < len(old) - 20
    save_file(old, tmp_path / "old.safetensors")
    (config, params), (_, there) = torchvision.load(state), torchvision.load(tmp_path / "old.safetensors")
    assert config == torchvision.load(old)[0]
    for path, array in flatten(params).items():
        np.testing.assert_array_equal(flatten(there)[path], array)


def test_epsilon_is_torchvisions_unless_told(state):
    assert torchvision.load(state)[0].backbone.norm_epsilon == 1e-5
    assert torchvision.load(state, norm_epsilon=0.0)[0].backbone.norm_epsilon == 0


def test_the_number_of_classes_is_checked(state):
    assert torchvision.load(state, num_classes=CLASSES)[0].num_classes == CLASSES
    with pytest.raises(TorchvisionError, match="3 classes without the background, not 4"):
        torchvision.load(state, num_classes=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("roi_heads.mask_head.0.0.weight"), "roi_heads.mask_head.0.0.weight: missing"),
        (lambda s: s.update({"extra.weight": np.ones(3, np.float32)}), "extra.weight: unexpected"),
        (lambda s: s.pop("backbone.body.layer2.3.conv1.weight"), "no ResNet-18 to 152 has"),
        (lambda s: s.update({"rpn.head.cls_logits.weight": np.ones((5, 8, 1, 1))}), "5 anchors a cell"),
        (
            lambda s: s.update({"rpn.head.bbox_pred.bias": np.ones(7)}),
            r"rpn.head.bbox_pred.bias: shape \(7,\)",
        ),
        (
            lambda s: s.update({"rpn.head.bbox_pred.bias": np.full(12, np.nan)}),
            "12 of 12 values are not finite",
        ),
    ],
)
def test_faults_are_named(state, change, message):
    state = dict(state)
    change(state)
    with pytest.raises(TorchvisionError, match=message):
        torchvision.load(state)


def test_what_torchvision_cannot_be_is_not_written(state, tmp_path):
    config, params = torchvision.load(state)
    config = dataclasses.replace(config, roi=dataclasses.replace(config.roi, aligned=True))
    with pytest.raises(TorchvisionError, match=r"roi.aligned is True; torchvision has False"):
        torchvision.save(tmp_path / "model.pth", config, params)
    with pytest.raises(TorchvisionError, match="torchvision has a pyramid"):
        torchvision.save(tmp_path / "model.pth", MaskRCNNConfig(), {})
    assert not list(tmp_path.iterdir())


def test_command_goes_both_ways(state, tmp_path, capsys):
    write_torch(tmp_path / "model.pth", floats(state))
    options = ["--torchvision", str(tmp_path / "model.pth"), "--out", str(tmp_path / "bundle")]
    assert main(["convert", *options]) == 0
    assert "ResNet-50-FPN, classes: 3" in capsys.readouterr().out
    assert load_bundle(tmp_path / "bundle")[0] == torchvision.load(state)[0]
    options = ["--bundle", str(tmp_path / "bundle"), "--out"]
    assert main(["convert", *options, str(tmp_path / "again.pth")]) == 0
    with zipfile.ZipFile(tmp_path / "again.pth") as archive:
        assert "archive/data.pkl" in archive.namelist()
    assert torchvision.load(tmp_path / "again.pth")[0] == torchvision.load(state)[0]
    assert main(["convert", *options, str(tmp_path / "again.onnx")]) == 1
    assert "--out is FILE.pth" in capsys.readouterr().err


IMAGENET = {
    "channel_order": "RGB",
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}


def narrow(depth, **changes):
    widths = {"stem_channels": 4, "res2_channels": 4 if depth < 50 else 16, "bottleneck_channels": 4}
    backbone = BackboneConfig(depth=depth, last_stage=5, stride_in_1x1=False, **widths)
    return MaskRCNNConfig.resnet_fpn(
        **({"backbone": backbone, "fpn": FPNConfig(channels=4)} | IMAGENET | changes)
    )


def zeros(config):
    """The parameters of its backbone."""
    shapes = {path: shape for path, shape in expected_shapes(config).items() if path.startswith("backbone/")}
    return nest({path: np.zeros(shape, np.float32) for path, shape in shapes.items()})


def write(path, tensors):
    (write_torch if path.suffix == ".pth" else lambda p, t: save_file(t, p))(path, tensors)
    return path


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("name", ["resnet.pth", "resnet.safetensors"])
def test_a_resnet_by_itself_initialises_a_backbone(name, depth, tmp_path, rng):
    """torchvision's files end in .pth, timm's in .safetensors; timm 1.0.31 has the same names."""
    state = {n: rng.normal(size=s).astype(np.float32) for n, s in resnet(depth).items() if s}
    config = narrow(depth)
    params = zeros(config)
    found, report = initialize_from(write(tmp_path / name, state), config, params)
    assert not report.missing and not report.unexpected and len(report.loaded) == len(state) - 2
    body, last = flatten(found["backbone"]), BLOCKS[depth][2] - 1
    for here, there in [
        ("stem/conv1", "conv1"),
        (f"res4/block{last}/conv2", f"layer3.{last}.conv2"),
        ("res3/block0/shortcut", "layer2.0.downsample.0"),
    ]:
        np.testing.assert_array_equal(body[f"{here}/kernel"], state[f"{there}.weight"].transpose(2, 3, 1, 0))
    for here, there in [
        ("stem/conv1/norm/var", "bn1.running_var"),
        ("res3/block0/shortcut/norm/mean", "layer2.0.downsample.1.running_mean"),
        ("res5/block1/conv2/norm/scale", "layer4.1.bn2.weight"),
        (f"res4/block{last}/conv1/norm/bias", f"layer3.{last}.bn1.bias"),
    ]:
        np.testing.assert_array_equal(body[here], state[there])


def test_a_model_gives_its_backbone(state, tmp_path):
    config = narrow(50)
    params = zeros(config)
    found, report = initialize_from(write(tmp_path / "model.pth", floats(state)), config, params)
    assert not report.missing and not report.unexpected
    expected = state["backbone.body.layer3.5.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found["backbone"]["res4"]["block5"]["conv2"]["kernel"], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": BackboneConfig(depth=34, last_stage=5)}, "backbone.depth is 34; these weights have 18"),
        ({"channel_order": "BGR"}, "channel_order is BGR; these weights have RGB"),
        ({"pixel_std": (1.0, 1.0, 1.0)}, "pixel_std is"),
    ],
)
def test_a_resnet_for_another_input_or_depth_is_refused(changes, message, tmp_path):
    state = {n: np.zeros(s, np.float32) for n, s in resnet(18).items() if s}
    path = write(tmp_path / "resnet.pth", state)
    with pytest.raises(TorchvisionError, match=message):
        initialize_from(path, narrow(18, **changes), {})
    write(path, state | {"layer1.0.downsample.2.weight": np.zeros(3, np.float32)})
    with pytest.raises(TorchvisionError, match=r"layer1.0.downsample.2.weight: no layer of a ResNet"):
        initialize_from(path, narrow(18), {})
