"""ResNets: their parameters, strides and blocks, what is frozen, and that padding does not matter."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig, RoIConfig
from maskrcnn_jax.models.parameters import init_params, param_shapes
from maskrcnn_jax.models.resnet import Block, ResNet


def leaves_of(tree):
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11176512), (34, 21284672), (50, 23508032), (101, 42500160), (152, 58143808)]
)
def test_as_many_parameters_as_torchvisions(depth, count):
    """Backbone and C4 head together are the ResNet without its classifier: published sums."""
    backbone = BackboneConfig(depth=depth, res2_channels=64 if depth < 50 else 256)
    tree = param_shapes(MaskRCNNConfig(backbone=backbone))
    shapes = leaves_of({"backbone": tree["backbone"], "head": tree["roi_heads"]["res5"]})
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    learned = {path: size for path, size in sizes.items() if not path.endswith(("norm/mean", "norm/var"))}
    assert sum(learned.values()) == count


def test_shapes_of_a_bottleneck_c4():
    tree = param_shapes(MaskRCNNConfig.c4(50))
    shapes = leaves_of(tree)
    assert sorted(tree["backbone"]) == ["res2", "res3", "res4", "stem"]
    assert [len(tree["backbone"][f"res{n}"]) for n in (2, 3, 4)] == [3, 4, 6]
    assert shapes["backbone/stem/conv1/kernel"] == (7, 7, 3, 64)
    assert shapes["backbone/res2/block0/shortcut/kernel"] == (1, 1, 64, 256)
    assert shapes["backbone/res4/block0/conv1/kernel"] == (1, 1, 512, 256)
    assert shapes["backbone/res4/block5/conv2/kernel"] == (3, 3, 256, 256)
    assert shapes["roi_heads/res5/block2/conv3/kernel"] == (1, 1, 512, 2048)
    assert "backbone/res4/block1/shortcut/kernel" not in shapes


@pytest.mark.parametrize(("norm", "head_norm"), [("frozen_bn", "group"), ("group", "frozen_bn")])
def test_the_heads_norm_is_apart_from_the_backbones(norm, head_norm):
    tree = param_shapes(
        MaskRCNNConfig(
            backbone=BackboneConfig(depth=18, stem_channels=2, res2_channels=2, norm=norm, last_stage=2),
            roi=RoIConfig(norm=head_norm),
        )
    )
    leaves = {"frozen_bn": {"scale", "bias", "mean", "var"}, "group": {"scale", "bias"}}
    assert tree["backbone"]["res2"]["block0"]["conv1"]["norm"].keys() == leaves[norm]
    assert tree["roi_heads"]["res3"]["block0"]["conv1"]["norm"].keys() == leaves[head_norm]


SMALL = {"stem_channels": 4, "res2_channels": 8, "bottleneck_channels": 2}


@pytest.mark.parametrize(
    ("changes", "strides"),
    [
        ({"last_stage": 5}, {2: 4, 3: 8, 4: 16, 5: 32}),
        ({"last_stage": 4, "stem_pool": False}, {2: 2, 3: 4, 4: 8}),
        ({"last_stage": 3, "depth": 18, "stage_strides": (1, 1, 2, 2)}, {2: 4, 3: 4}),
        ({"last_stage": 3, "stem_pool": False, "stage_strides": (2, 2, 2, 2)}, {2: 4, 3: 8}),
    ],
)
@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_strides_and_channels(changes, strides, stride_in_1x1):
    """Sides are rounded up at every stride, as those of odd images must be."""
    config = BackboneConfig(**(SMALL | changes), stride_in_1x1=stride_in_1x1)
    images, sizes = jnp.zeros((2, 67, 131, 3)), jnp.array([[67, 131], [5, 9]], jnp.int32)
    stages = jax.eval_shape(lambda: ResNet(config).init_with_output(jax.random.key(0), images, sizes)[0])
    for stage, stride in strides.items():
        assert config.stride(stage) == stride
        assert stages[stage].shape == (2, -(-67 // stride), -(-131 // stride), 8 * 2 ** (stage - 2))
    assert sorted(stages) == sorted(strides)


def conv(x, layer, stride=1):
    """Torch's convolution, and the affine map of its norm."""
    kernel, reach = layer["kernel"], layer["kernel"].shape[0] // 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(reach, reach)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    norm = {name: value.reshape(1, 1, 1, -1) for name, value in layer["norm"].items()}
    return (y - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]


def basic(x, p):
    y = conv(jax.nn.relu(conv(x, p["conv1"], 2)), p["conv2"])
    return jax.nn.relu(y + conv(x, p["shortcut"], 2))


def bottleneck(x, p, first, second):
    y = jax.nn.relu(conv(x, p["conv1"], first))
    y = conv(jax.nn.relu(conv(y, p["conv2"], second)), p["conv3"])
    return jax.nn.relu(y + conv(x, p["shortcut"], 2))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"depth": 18}, basic),
        ({"stride_in_1x1": True}, functools.partial(bottleneck, first=2, second=1)),
        ({"stride_in_1x1": False}, functools.partial(bottleneck, first=1, second=2)),
    ],
)
def test_where_a_block_strides(rng, changes, expected):
    block = Block(BackboneConfig(**(SMALL | changes)), stage=3, stride=2, norm="frozen_bn")
    x = rng.normal(size=(1, 7, 9, 8)).astype(np.float32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x)["params"])
    params = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)
    out = jax.jit(lambda p: block.apply({"params": p}, x))(params)
    np.testing.assert_allclose(out, jax.jit(lambda p: expected(x, p))(params), rtol=1e-4)


def test_a_block_that_keeps_its_shape_has_no_shortcut(rng):
    block = Block(BackboneConfig(**SMALL), stage=2, stride=1, norm="group")
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))["params"])
    assert sorted(shapes) == ["conv1", "conv2", "conv3"]


@pytest.fixture(scope="module")
def random_resnet():
    """A ResNet-18 with group norm, and random parameters."""
    rng = np.random.default_rng(5)
    model = ResNet(BackboneConfig(depth=18, last_stage=4, norm="group", freeze_at=2, **SMALL))
    images, sizes = jnp.zeros((1, 32, 32, 3)), jnp.array([[32, 32]], jnp.int32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, sizes)["params"])
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    return model, params, jax.jit(lambda p, x, s: model.apply({"params": p}, x, s))


def test_padding_does_not_matter(random_resnet, rng):
    """An odd image alone, and among others on a larger canvas full of rubbish."""
    _, params, run = random_resnet
    image = rng.normal(size=(1, 61, 83, 3)).astype(np.float32)
    canvas = rng.normal(0, 100, size=(2, 96, 96, 3)).astype(np.float32)
    canvas[1, :61, :83] = image[0]
    alone = run(params, image, np.array([[61, 83]], np.int32))
    among = run(params, canvas, np.array([[96, 90], [61, 83]], np.int32))
    for stage, features in alone.items():
        _, height, width, _ = features.shape
        np.testing.assert_allclose(
            among[stage][1, :height, :width], features[0], atol=2e-4, err_msg=str(stage)
        )


def test_frozen_stages_get_no_gradient(random_resnet, rng):
    """Not even through the stages behind them."""
    model, params, _ = random_resnet
    image, size = rng.normal(size=(1, 33, 40, 3)).astype(np.float32), np.array([[33, 40]], np.int32)

    @jax.jit
    @jax.grad
    def gradient(params):
        return sum(
            jnp.abs(features).sum() for features in model.apply({"params": params}, image, size).values()
        )

    gradients = gradient(params)
    for stage, tree in gradients.items():
        learns = {path: bool(leaf.any()) for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
        assert set(learns.values()) == {stage in ("res3", "res4")}, (stage, learns)


def test_rematerialised_blocks_have_the_same_parameters_and_gradients(random_resnet, rng):
    """The inside of a block is computed twice, and everything that it gives is the same."""
    model, params, _ = random_resnet
    again = ResNet(model.config, remat=True)
    image, size = rng.normal(size=(1, 33, 40, 3)).astype(np.float32), np.array([[33, 40]], np.int32)
    shapes = [jax.eval_shape(m.init, jax.random.key(0), image, size)["params"] for m in (model, again)]
    assert shapes[0] == shapes[1]

    def gradients(model):
        def total(params):
            stages = model.apply({"params": params}, image, size)
            return sum(jnp.square(features).mean() for features in stages.values())

        return jax.jit(jax.value_and_grad(total))

    wrapped = ["remat" in str(jax.make_jaxpr(gradients(m))(params)) for m in (model, again)]
    assert wrapped == [False, True]
    found, expected = (gradients(m)(params) for m in (again, model))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


def test_rematerialised_blocks_start_from_the_same_kernels():
    """Initial kernels are found by their path, which wrapping a block must not change."""
    plain = MaskRCNNConfig(backbone=BackboneConfig(depth=18, last_stage=2, **SMALL))
    again = dataclasses.replace(plain, remat=True)
    params = [init_params(config, jax.random.key(0)) for config in (plain, again)]
    jax.tree.map(np.testing.assert_array_equal, *params)
