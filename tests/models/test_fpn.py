"""The pyramid against its sums written out, and the level that each RoI is pooled from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.config import FPNConfig, MaskRCNNConfig
from maskrcnn_jax.models.fpn import FPN, assign_levels
from maskrcnn_jax.models.parameters import param_shapes


def upsample(x):
    return np.kron(x, np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("fuse", ["sum", "avg"])
@pytest.mark.parametrize("extra", [0, 2])
def test_equals_the_sums_written_out(rng, fuse, extra):
    """Output convolutions that only scale their input leave what stands before them readable."""
    stages = {
        2: rng.normal(size=(1, 8, 12, 3)),
        3: rng.normal(size=(1, 4, 6, 5)),
        4: rng.normal(size=(1, 2, 3, 7)),
    }
    stages = {n: x.astype(np.float32) for n, x in stages.items()}
    lateral = {n: rng.normal(size=(x.shape[-1], 4)).astype(np.float32) for n, x in stages.items()}
    params = {}
    for n in stages:
        centre = np.zeros((3, 3, 4, 4), np.float32)
        centre[1, 1] = n * np.eye(4)
        params[f"lateral{n}"] = {"kernel": lateral[n][None, None], "bias": np.full(4, n, np.float32)}
        params[f"output{n}"] = {"kernel": centre, "bias": np.zeros(4, np.float32)}
    extents = [jnp.array([side], jnp.int32) for side in ((8, 12), (4, 6), (2, 3))]
    model = FPN(FPNConfig(channels=4, first_stage=2, extra_levels=extra, fuse=fuse))
    levels = jax.jit(lambda s: model.apply({"params": params}, s, extents))(stages)

    merged = {n: x @ lateral[n] + n for n, x in stages.items()}
    for n in (3, 2):
        merged[n] = merged[n] + upsample(merged[n + 1])
        if fuse == "avg":
            merged[n] /= 2
    expected = [n * merged[n] for n in (2, 3, 4)]
    for _ in range(extra):
        expected.append(expected[-1][:, ::2, ::2])
    assert len(levels) == 3 + extra
    for found, wanted in zip(levels, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_parameters_of_detectron2s_pyramid():
    """3.3 million weights, as in Detectron2's R50-FPN; the heads have 1024-wide layers and 28 x 28 masks."""
    tree = param_shapes(MaskRCNNConfig.resnet_fpn(50, num_classes=80))
    count = sum(leaf.size for leaf in jax.tree.leaves(tree["neck"]))
    assert count == (256 + 512 + 1024 + 2048) * 256 + 4 * 9 * 256**2 + 8 * 256
    heads = tree["roi_heads"]
    assert heads["box_head"]["fc1"]["kernel"].shape == (7 * 7 * 256, 1024)
    assert sorted(heads["mask_head"]) == ["deconv", *(f"mask_fcn{i}" for i in range(1, 5)), "predictor"]
    assert heads["mask_head"]["predictor"]["kernel"].shape == (1, 1, 256, 80)
    assert heads["box_predictor"]["bbox_pred"]["kernel"].shape == (1024, 320)
    assert tree["rpn"]["deltas"]["kernel"].shape == (1, 1, 256, 12)


STRIDES = (4, 8, 16, 32)


def squares(sides):
    sides = np.asarray(sides, np.float32)
    return np.stack([sides * 0 + 3, sides * 0 + 5, sides + 3, sides + 5], axis=1)


@pytest.mark.parametrize("compile_", [jax.jit, lambda f: f])
def test_levels_by_size(compile_):
    """224 pixels belong to stride 16; each half of that to a level below, the boundary to the upper one."""
    sides = [0, 1, 55.9, 56, 111.9, 112, 223.9, 224, 447.9, 448, 5000]
    assign = compile_(lambda boxes: assign_levels(boxes, STRIDES))
    assert assign(squares(sides)).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_levels_round_at_boundaries_as_float32_does():
    """Areas in the last bits around each boundary, by Detectron2's formula, which rounds some of them up."""
    areas = [np.float32((224 * stride / 16) ** 2) for stride in STRIDES[1:]]
    around = np.concatenate([area.view(np.int32) + np.arange(-30, 31, dtype=np.int32) for area in areas])
    areas = around.view(np.float32)
    boxes = np.stack([areas * 0, areas * 0, areas, areas * 0 + 1], axis=1)
    levels = np.floor(4 + np.log2(np.sqrt(areas) / np.float32(224) + np.float32(1e-8)))
    assert assign_levels(boxes, STRIDES).tolist() == (np.clip(levels, 2, 5) - 2).tolist()


def test_levels_by_area():
    """Long boxes count by their area; empty and inverted ones are finest."""
    boxes = np.array([[0, 0, 49, 1024], [0, 0, 48, 1024], [9, 9, 9, 700], [50, 50, 20, 20]], np.float32)
    assert assign_levels(boxes, STRIDES).tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize(
    ("strides", "levels"), [((16,), [0, 0, 0, 0]), ((8, 16), [0, 0, 1, 1]), ((2, 4), [1] * 4)]
)
def test_levels_of_other_pyramids(strides, levels):
    assert assign_levels(squares([60, 112, 224, 600]), strides).tolist() == levels


def test_levels_with_a_batch_and_without_boxes():
    assert assign_levels(jnp.zeros((2, 0, 4)), STRIDES).shape == (2, 0)
    batch = np.stack([squares([112, 10]), squares([448, 224])])
    assert assign_levels(batch, STRIDES).tolist() == [[1, 0], [3, 2]]


def test_levels_equal_detectron2s(golden):
    data = golden("comp_levels")
    for assign in (assign_levels, jax.jit(assign_levels, static_argnums=1)):
        np.testing.assert_array_equal(assign(data["boxes"], STRIDES), data["levels"])


def test_slack_lets_smaller_boxes_up():
    sides = [223.9, 223.999, 224]
    assert assign_levels(squares(sides), STRIDES).tolist() == [1, 1, 2]
    assert assign_levels(squares(sides), STRIDES, slack=1e-4).tolist() == [1, 2, 2]
