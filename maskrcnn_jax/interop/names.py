"""Names and layouts of tensors: Detectron2's, and those of backbones from Caffe2, beside ours.

A convolution's weight is O I H W there and H W I O here, a dense one O I and I O. The first layer of
the FPN box head reads a flattened C H W there and H W C here. Numbers are never changed, only moved.
"""

import re

import numpy as np

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.errors import UserError

# Our layers: Detectron2's. `{body}` is where the model keeps its ResNet.
_LAYERS = [
    (r"backbone/stem/conv1", r"{body}stem.conv1"),
    (r"backbone/(res\d)/block(\d+)/(conv\d|shortcut)", r"{body}\1.\2.\3"),
    (r"backbone/(res\d)/block(\d+)/conv2/offset", r"{body}\1.\2.conv2_offset"),
    (r"neck/(lateral|output)(\d)", r"backbone.fpn_\1\2"),
    (r"rpn/objectness", r"proposal_generator.rpn_head.objectness_logits"),
    (r"rpn/deltas", r"proposal_generator.rpn_head.anchor_deltas"),
    (r"roi_heads/(res\d)/block(\d+)/(conv\d|shortcut)", r"roi_heads.\1.\2.\3"),
    (r"roi_heads/(box_head|box_predictor|mask_head)/(\w+)", r"roi_heads.\1.\2"),
    (r"roi_heads/(box_head|box_predictor)/(\d)/(\w+)", r"roi_heads.\1.\2.\3"),  # of a cascade
]
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_BACKBONE = re.compile(
    r"(?:backbone\.(?:bottom_up\.)?)?(stem|res[2-5])(?:\.(\d+))?\.(conv\d|shortcut)"
    r"(\.norm)?\.(weight|bias|running_mean|running_var)"
)
_CAFFE2 = re.compile(
    r"(?:(?:res_)?conv1|(res[2-5])_(\d+)_(branch(?:1|2[abc])))(?:_([bg]n))?_(w|(?<=n_)(?:s|b|rm|riv))"
)
# Caffe2 keeps batch norm as an affine layer (s, b), with statistics (rm, riv) only in a few files.
_CAFFE2_LEAVES = {"s": "scale", "b": "bias", "rm": "mean", "riv": "var", "w": "kernel"}
_BRANCHES = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_IGNORED = re.compile(
    r"pixel_(mean|std)"
    r"|proposal_generator\.anchor_generator\.cell_anchors\.\d+"
    r"|.*\.num_batches_tracked"
    r"|(backbone\.(bottom_up\.)?)?(stem\.fc|linear|fc)\.(weight|bias)"  # ImageNet classifiers
    r"|(fc1000|pred)_[wb]|conv1_b|.*_momentum"  # Detectron2 drops conv1_b too: 1e-8 at most
)


def is_ignored(name: str) -> bool:
    """Whether a tensor is known and has no place here: classifiers, counters, constants of the config."""
    return _IGNORED.fullmatch(name) is not None


def detectron2_name(path: str, config: MaskRCNNConfig) -> str:
    """Detectron2's name of a parameter: `backbone.res2.0.conv1.norm.weight`."""
    *layers, leaf = path.split("/")
    norm = ".norm" if layers[-1] == "norm" else ""
    layer = "/".join(layers).removesuffix("/norm")
    body = "backbone." if config.fpn is None else "backbone.bottom_up."
    if match := re.fullmatch(r"rpn/conv(\d*)", layer):
        place = f".conv{int(match[1] or 1) - 1}" if config.rpn.convs > 1 else ""
        return f"proposal_generator.rpn_head.conv{place}.{_LEAVES[leaf]}"
    if config.roi.cascade_ious:
        layer = re.sub(r"^(roi_heads/box_(?:head|predictor))(\d*)", _cascade_place, layer)
    for pattern, name in _LAYERS:
        if match := re.fullmatch(pattern, layer):
            return f"{match.expand(name.format(body=body))}{norm}.{_LEAVES[leaf]}"
    raise UserError(f"{path} has no name in Detectron2")


def backbone_path(name: str) -> str | None:
    """The path in a ResNet, `res2/block0/conv1/kernel`, of a name in a backbone's file; None if it has none.

    Known are Detectron2's names, with or without the backbone's place in a model, and Caffe2's.
    """
    if match := _BACKBONE.fullmatch(name):
        stage, block, conv, norm, leaf = match.groups()
        leaf = {"weight": "scale" if norm else "kernel", "running_mean": "mean", "running_var": "var"}.get(
            leaf, leaf
        )
    elif match := _CAFFE2.fullmatch(name):
        stage, block, branch, norm, leaf = match.groups()
        stage, conv = (stage, _BRANCHES[branch]) if branch else ("stem", "conv1")
        leaf = _CAFFE2_LEAVES[leaf]
    else:
        return None
    return "/".join([stage, *([f"block{block}"] if block else []), conv, *(["norm"] if norm else []), leaf])


def shape_there(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that Detectron2 has for a parameter of our shape."""
    return tuple(shape[axis] for axis in _axes(path, len(shape)))


def to_there(path: str, array: np.ndarray, config: MaskRCNNConfig) -> np.ndarray:
    """A parameter in Detectron2's layout."""
    if _is_first_dense(path):
        array = array.reshape(*_pooled(array.shape[0], config), -1).transpose(2, 0, 1, 3).reshape(array.shape)
    return np.ascontiguousarray(array.transpose(_axes(path, array.ndim)))


def to_here(path: str, array: np.ndarray, config: MaskRCNNConfig) -> np.ndarray:
    """The inverse of `to_there`."""
    array = array.transpose(np.argsort(_axes(path, array.ndim)))
    if _is_first_dense(path):
        height, width, channels = _pooled(array.shape[0], config)
        array = array.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(array.shape)
    return np.ascontiguousarray(array)


def _cascade_place(match: re.Match) -> str:
    """`box_head/0`, `box_head/1`, ... of `box_head`, `box_head2`, ..."""
    return f"{match[1]}/{int(match[2] or 1) - 1}"


def _axes(path: str, rank: int) -> tuple[int, ...]:
    """Our axis for each of Detectron2's; torch keeps a transposed convolution as I O H W."""
    if not path.endswith("/kernel"):
        return tuple(range(rank))
    if rank == 2:
        return (1, 0)
    return (2, 3, 0, 1) if "/deconv" in path else (3, 2, 0, 1)


def _is_first_dense(path: str) -> bool:
    return re.fullmatch(r"roi_heads/box_head\d*/fc1/kernel", path) is not None


def _pooled(rows: int, config: MaskRCNNConfig) -> tuple[int, int, int]:
    """Height, width and channels of what the first dense layer reads."""
    bins = config.roi.bins
    return bins, bins, rows // bins**2
