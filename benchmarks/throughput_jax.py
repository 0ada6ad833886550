"""Ours: the public model, training step and predictor, with the case's limits."""

import os
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer shares the device

import jax
import jax.numpy as jnp
import numpy as np
from throughput_case import DETECTIONS, NMS_IOU, RESIDUAL_SCALE, Case, draw, process_peak_gib, serve

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.models import mask_rcnn
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.structures import Batch
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import create_state, make_train_step


def make_config(case: Case) -> MaskRCNNConfig:
    """Detectron2's R50-C4, or torchvision's R50-FPN, whose stride is in the 3x3."""
    fpn = case.model == "fpn"
    base = MaskRCNNConfig.resnet_fpn(50) if fpn else MaskRCNNConfig.c4(50)
    backbone = BackboneConfig(depth=50, last_stage=5 if fpn else 4, stride_in_1x1=not fpn)
    rpn = RPNConfig(anchor_sizes=case.anchor_sizes, pre_nms=case.pre_nms, post_nms=case.post_nms)
    roi = RoIConfig(samples=case.rois, bins=base.roi.bins, mask_convs=base.roi.mask_convs)
    return MaskRCNNConfig(
        dtype=case.dtype,
        backbone=backbone,
        fpn=base.fpn,
        rpn=rpn,
        roi=roi,
        detection=DetectionConfig(nms_iou=NMS_IOU, max_detections=DETECTIONS),
    )


def tame(params: dict) -> dict:
    """See `RESIDUAL_SCALE`; every class is as likely, so that nothing falls below a threshold."""

    def value(path, leaf):
        names = [key.key for key in path]
        if names[-3:] == ["conv3", "norm", "scale"]:
            return jnp.full_like(leaf, RESIDUAL_SCALE)
        return jnp.zeros_like(leaf) if "box_predictor" in names else leaf

    return jax.tree_util.tree_map_with_path(value, params)


def make_batch(case: Case) -> Batch:
    """The drawn input as a training batch."""
    images, boxes, labels = draw(case)
    shape = (case.batch, case.ground_truths)
    return Batch(
        images=images,
        sizes=np.full((case.batch, 2), case.side, np.int32),
        boxes=boxes,
        classes=np.zeros(shape, np.int32),
        valid=np.ones(shape, bool),
        crowd=np.zeros(shape, bool),
        layers=np.zeros(shape, np.int32),
        instance_map=labels[:, None],
        index=np.arange(case.batch, dtype=np.int32),
        cut=np.zeros(case.batch, np.int32),
    )


class JaxContender:
    """See `throughput_case.Contender`."""

    def __init__(self, case: Case):
        self._case, config = case, make_config(case)
        model, params = MaskRCNN(config), tame(init_params(config, jax.random.key(0)))
        self._model, batch = model, make_batch(case)
        start = time.perf_counter()
        if case.task == "train":
            optimizer = make_optimizer(config, warmup_steps_decay(1e-4, warmup=0, milestones=()))
            self._state, self._key = create_state(params, optimizer), jax.random.key(0)
            self._batch = jax.device_put(batch)
            lowered = make_train_step(model, optimizer).lower(self._state, self._batch, self._key)
        elif case.task == "detect":
            self._inputs = jax.device_put((params, batch.images, batch.sizes))
            lowered = _lower_detect(model, self._inputs)
        else:
            self._predictor, self._images = (
                Predictor(config, params, buckets=(case.side,)),
                list(batch.images),
            )
            lowered = None
        self._compiled = None if lowered is None else lowered.compile()
        if lowered is None:
            self.run()
        self._compile = time.perf_counter() - start
        if lowered is not None:
            self.run()

    def run(self) -> int:
        if self._case.task == "train":
            self._state, metrics = self._compiled(self._state, self._batch, self._key)
            jax.block_until_ready((self._state, metrics))
            return 0
        if self._case.task == "detect":
            return int(self._compiled(*self._inputs).valid.sum())
        return sum(map(len, self._predictor.batch(self._images)))

    def facts(self) -> dict[str, float]:
        facts = {"compile_s": self._compile, "matmul_gflops": _matmul_rate(self._case.dtype)}
        if self._case.task == "train":
            facts["gflop"] = self._compiled.cost_analysis()["flops"] / 1e9
        if self._case.task == "detect":
            # XLA counts the body of a loop once. One chunk of all rows does the same work in one turn.
            mask_rcnn._CHUNK = max(self._case.post_nms)
            facts["gflop"] = _lower_detect(self._model, self._inputs).cost_analysis()["flops"] / 1e9
        return facts

    def peak_gib(self) -> float:
        stats = jax.local_devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**30 if stats else process_peak_gib()


def _lower_detect(model: MaskRCNN, inputs: tuple) -> jax.stages.Lowered:
    return jax.jit(lambda p, i, s: model.apply({"params": p}, i, s, method="detect")).lower(*inputs)


def _matmul_rate(dtype: str) -> float:
    """GFLOP/s of the best of some large matrix products: what the device gives, not what its sheet says."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds) / 1e9


if __name__ == "__main__":
    serve(JaxContender)
