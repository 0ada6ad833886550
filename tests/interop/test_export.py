"""Exported models, run by their own runtimes in fresh processes, find what the predictor finds."""

import functools
import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import (
    BackboneConfig,
    DetectionConfig,
    FPNConfig,
    MaskRCNNConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.interop import export
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.masks.pasting import paste
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.zoo import SAMPLES, load_model

pytest_plugins = ("tiny",)

HEIGHT, WIDTH, ROOM = 40, 52, 12  # ROOM: the most detections of an image
# What a user of the file would write, in a process that knows neither this package nor its config.
RUNTIMES = {
    "stablehlo": """
from pathlib import Path
import jax.export
exported = jax.export.deserialize(Path(path).read_bytes())
assert exported.platforms == ("cpu", "cuda")
found = exported.call(images)
""",
    "savedmodel": """
import tensorflow as tf
model = tf.saved_model.load(path)
found = model.predict(images)
assert list(model.signatures) == ["serving_default"]
""",
}
RUN = """
import sys
import numpy as np
path, images, out = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
{runtime}
assert "maskrcnn_jax" not in sys.modules
np.savez(out, **{{name: np.asarray(array) for name, array in found.items()}})
"""


SMALL = MaskRCNNConfig(
    num_classes=2,
    stretch_grey=True,
    backbone=BackboneConfig(depth=18, last_stage=3, stem_channels=8, res2_channels=8, norm="group"),
    fpn=FPNConfig(channels=8, first_stage=2, extra_levels=0),
    rpn=RPNConfig(anchor_sizes=((10,), (24,)), anchor_ratios=(1.0,), pre_nms=(9, 60), post_nms=(9, 40)),
    roi=RoIConfig(bins=4, mask_bins=4, fc_channels=(16,), mask_convs=1, mask_channels=8),
    detection=DetectionConfig(score_threshold=0.1, max_detections=ROOM),
)
# All that a config can ask of prediction: ours, and what torchvision does otherwise.
CONFIGS = {
    "ours": replace(
        SMALL,
        test_zoom=1.3,
        roi=replace(SMALL.roi, mask_margin=0.1),
        detection=replace(
            SMALL.detection, containment=0.6, mask_weight=1.5, mask_threshold=0.55, offset=(0.5, -1.5)
        ),
    ),
    "torchvision": replace(
        SMALL,
        channel_order="RGB",
        stretch_grey=False,
        test_resize=(50, 80),
        test_resize_method="bilinear",
        rpn=replace(SMALL.rpn, anchor_rounding=True, anchor_spacing="content", min_size=1e-3),
        roi=replace(SMALL.roi, aligned=False, level_slack=1e-6),
        detection=replace(SMALL.detection, score_threshold=0.84, min_size=1e-2, pasting="whole_pixels"),
    ),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request, compiled_once, tmp_path_factory):
    """A bundle, two images, and what the predictor finds in them."""
    rng, folder, config = np.random.default_rng(0), tmp_path_factory.mktemp("model"), CONFIGS[request.param]
    params = jax.tree.map(np.asarray, init_params(config, jax.random.key(1)))
    # Apart, so that no score is another's equal, and masks have an inside and an outside.
    heads = params["roi_heads"]
    for part, factor in ((heads["box_predictor"]["cls_score"], 40), (heads["mask_head"]["predictor"], 2000)):
        part["kernel"] = np.float32(factor) * part["kernel"]
    save_bundle(folder / "bundle", config, params)
    images = np.kron(rng.integers(0, 256, (2, 5, 4, 3)), np.ones((1, 8, 13, 1))).astype(np.uint8)
    images[1] = images[1, :, :, :1] // 3
    np.save(folder / "images.npy", images)
    return folder, Predictor(config, params, buckets=(80,)).batch(list(images))


def run(kind, path, folder):
    """What the format's own runtime finds in the images."""
    program, out = RUN.format(runtime=RUNTIMES[kind]), folder / f"{kind}.npz"
    command = [sys.executable, "-c", program, str(path), str(folder / "images.npy"), str(out)]
    # Most optimisations of the compiler take longer than all that is run.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = os.environ | {"XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return dict(found)


@pytest.mark.parametrize(("kind", "masks"), [("stablehlo", "image"), ("savedmodel", "boxes")])
def test_its_own_runtime_finds_what_the_predictor_finds(model, kind, masks, capsys):
    """In any number of images, one grey and one in colour: boxes, scores, classes and pixels of masks."""
    folder, expected = model
    path = folder / f"model.{kind}"
    options = ["--format", kind, "--size", str(HEIGHT), str(WIDTH), "--masks", masks]
    assert main(["export", "--bundle", str(folder / "bundle"), *options, "--out", str(path)]) == 0
    assert f"scores: float32 (N, {ROOM})" in capsys.readouterr().out
    assert_same(run(kind, path, folder), expected, masks)
    assert any(len(result) < ROOM for result in expected)


# What comes with the package, at its full width: a crop of a sample that holds a few nuclei.
@pytest.mark.parametrize(
    ("kind", "name", "masks", "sample", "corner"),
    [
        ("stablehlo", "nuclei", "boxes", "fluorescence", (170, 120)),
        ("savedmodel", "nuclei-he", "image", "tissue", (10, 0)),
    ],
)
def test_shipped_models_find_what_the_predictor_finds(
    compiled_once, tmp_path, capsys, kind, name, masks, sample, corner
):
    """With `mask_weight`, `mask_threshold`, `test_zoom` and containment, as each says of itself."""
    config, params = load_model(name)
    config = replace(config, detection=replace(config.detection, max_detections=ROOM))
    rows, columns = (slice(first, first + side) for first, side in zip(corner, (HEIGHT, WIDTH), strict=True))
    pixels = read_image(SAMPLES / "images" / f"{sample}.png")[rows, columns]
    np.save(tmp_path / "images.npy", pixels[None])
    path = tmp_path / f"model.{kind}"
    options = ["--format", kind, "--size", str(HEIGHT), str(WIDTH), "--masks", masks, "--batch", "1"]
    options += ["--detections", str(ROOM), "--out", str(path)]
    assert main(["export", "--model", name, *options]) == 0
    told = capsys.readouterr().out
    assert f"{config.detection.min_score:g}, this model's min_score" in told
    assert ("not brought to 0.25 µm a pixel" in told) == (name == "nuclei-he")
    expected = Predictor(config, params, buckets=(80,))(pixels)
    assert expected.scores.max() > config.detection.min_score
    assert_same(run(kind, path, tmp_path), [expected], masks)


def assert_same(found, expected, masks):
    """Arrays of an exported model, and results of the predictor: the same but for rounding."""
    for i, result in enumerate(expected):
        count = len(result)
        one = {name: array[i] for name, array in found.items()}
        assert one.pop("count") == count > 1
        assert not any(array[count:].any() for array in one.values())
        one = {name: array[:count] for name, array in one.items()}
        np.testing.assert_allclose(one["boxes"], result.boxes, atol=1e-3)
        np.testing.assert_allclose(one["scores"], result.scores, atol=1e-5)
        np.testing.assert_array_equal(one["classes"], result.classes)
        pixels = one["masks"]
        if masks == "boxes":
            pixels = pixels_of(paste(one["masks"], one["mask_boxes"], (HEIGHT, WIDTH)))
        assert (pixels != pixels_of(result.crops)).sum() <= 2 and pixels.any()


def pixels_of(crops):
    """(D, H, W) bool."""
    pixels = np.zeros((len(crops), HEIGHT, WIDTH), bool)
    for d, (top, left, bottom, right) in enumerate(crops.rectangles):
        pixels[d, top:bottom, left:right] = crops.pixels(d)
    return pixels


def brightest(params, images):
    """What runtimes of another age than JAX have had trouble with, in a function that compiles at once."""
    grey = params["weight"] * images.astype(np.float32).reshape(images.shape[0], -1)
    values, places = jax.lax.top_k(grey, 2)
    forms = {"cpu": lambda x: x + 1, "cuda": lambda x: x + 2, "default": lambda x: x + 3}
    return {"values": jax.lax.platform_dependent(values, **forms), "places": places}


@pytest.mark.parametrize("kind", ["stablehlo", "savedmodel"])
def test_a_file_is_replaced_and_other_folders_are_not(tmp_path, rng, kind):
    save = functools.partial(export.save, function=brightest, params={"weight": np.float32(2)}, kind=kind)
    for batch in (3, None):
        save(tmp_path / "model", shape=(batch, 4, 4, 3))
    images = rng.permuted(np.arange(2 * 48).reshape(2, 48), axis=1).astype(np.uint8).reshape(2, 4, 4, 3)
    np.save(tmp_path / "images.npy", images)
    found = run(kind, tmp_path / "model", tmp_path)
    np.testing.assert_array_equal(found["values"], [[95, 93], [191, 189]])
    np.testing.assert_array_equal(
        images.reshape(2, -1)[[0, 0, 1, 1], found["places"].ravel()], [47, 46, 95, 94]
    )
    if kind == "savedmodel":
        (tmp_path / "mine").mkdir()
        with pytest.raises(UserError, match="is no SavedModel"):
            save(tmp_path / "mine", shape=(3, 4, 4, 3))
    assert {path.name for path in tmp_path.iterdir()} - {"mine"} == {"model", "images.npy", f"{kind}.npz"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0", "5"], "positive whole number, found '0'"),
        (["--size", "5"], "expected 2 arguments"),
        (["--size", "5", "5", "--batch", "some"], "found 'some'"),
        (["--size", "5", "5", "--format", "pickle"], "invalid choice: 'pickle'"),
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main(["export", "--out", "x", "--format", "stablehlo", *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_what_cannot_be_written_is_told_at_once(tmp_path, capsys):
    out = ["--out", str(tmp_path / "model.onnx")]
    assert main(["export", "--bundle", "nowhere", "--format", "onnx", "--size", "64", "64", *out]) == 1
    assert "jax2onnx 0.17.1" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_told(tmp_path, capsys):
    (tmp_path / "there").write_text("mine")
    out = ["--out", str(tmp_path / "there")]
    assert main(["export", "--format", "stablehlo", "--size", "64", "64", *out]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"
