"""Where the time of a training step or a prediction goes: each stage alone, forward and with its gradient.

    python benchmarks/profile_step.py [--model c4|fpn] [--task train|detect] [--side 800] [--batch 1]
        [--ground_truths 150] [--dtype float32] [--rounds 3]

Each stage is compiled by itself and fed with what the one before gave. So the stages do not add up exactly to
the whole step, which stands below them: that is compiled as one, and XLA shares work between stages. Times
are medians, after a first call that compiles. (Not named profile.py: Python's cProfile imports that name.)
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from throughput_case import Case
from throughput_jax import make_batch, make_config, tame

from maskrcnn_jax.models import heads, roi_training, rpn
from maskrcnn_jax.models.heads import Features
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.structures import Proposals
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import create_state, make_train_step


class Profile:
    """Runs stages and remembers their times."""

    def __init__(self, rounds: int):
        self._rounds, self.rows = rounds, []

    def stage(self, name: str, function: Callable, *inputs, gradient: bool = False):
        """Times `function(*inputs)`, and its gradient by all inputs; gives the result."""
        forward = jax.jit(function)
        seconds = self._time(forward, *inputs)
        result = forward(*inputs)
        both = None
        if gradient:
            cotangent = jax.tree.map(jnp.ones_like, result)
            both = self._time(jax.jit(lambda c, *x: jax.vjp(function, *x)[1](c)), cotangent, *inputs)
        self.rows.append((name, seconds, both))
        return result

    def whole(self, name: str, function: Callable[[], object]) -> None:
        """Times a call that compiles when it is first made."""
        self.rows.append((name, self._time(function), None))

    def _time(self, function: Callable, *inputs) -> float:
        jax.block_until_ready(function(*inputs))
        seconds = []
        for _ in range(self._rounds):
            start = time.perf_counter()
            jax.block_until_ready(function(*inputs))
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def table(self) -> str:
        """Milliseconds, as Markdown."""
        lines = ["| stage | forward, ms | forward and backward, ms |", "|---|---|---|"]
        for name, forward, both in self.rows:
            lines.append(f"| {name} | {forward * 1e3:.1f} | {'' if both is None else f'{both * 1e3:.1f}'} |")
        return "\n".join(lines)


class Stages:
    """The model's parts as functions of arrays."""

    def __init__(self, case: Case):
        self.case, self.config = case, make_config(case)
        self.model = MaskRCNN(self.config)
        self.params = tame(init_params(self.config, jax.random.key(0)))
        self.batch = jax.device_put(make_batch(case))

    def apply(self, method: Callable, params: dict, *inputs):
        """`method(model, *inputs)` under the parameters."""
        return self.model.apply({"params": params}, *inputs, method=method)

    def backbone(self, profile: Profile) -> Features:
        """Normalisation, ResNet and pyramid."""

        def run(params):
            return self.apply("features", params, self.batch.images, self.batch.sizes).levels

        levels = profile.stage("backbone and pyramid", run, self.params, gradient=self.case.task == "train")
        extents = tuple(jnp.asarray(-(-self.batch.sizes // stride)) for stride in self.config.levels)
        return Features(levels, extents)

    def rpn(self, profile: Profile, features: Features):
        """The head alone, then the choice of proposals."""
        training = self.case.task == "train"

        def head(params, levels):
            return self.apply(lambda m, f: m.rpn(*f), params, Features(levels, features.extents))

        logits, deltas = profile.stage("RPN head", head, self.params, features.levels, gradient=training)
        shapes = [level.shape[1:3] for level in features.levels]
        anchors = rpn.make_anchors(self.config.rpn, shapes, self.config.levels)
        valid = jax.vmap(lambda e: rpn.valid_anchors(self.config.rpn, shapes, e))(features.extents)

        def choose(logits, deltas):
            def one(logits, deltas, valid, size):
                return rpn.propose(self.config.rpn, logits, deltas, anchors, valid, size, training=training)

            return jax.vmap(one)(logits, deltas, valid, self.batch.sizes)

        proposals = profile.stage("top-k, decoding, NMS of proposals", choose, logits, deltas)
        if training:
            self._match_anchors(profile, anchors, valid)
        return proposals

    def _match_anchors(self, profile, anchors, valid):
        keys = jax.random.split(jax.random.key(0), self.case.batch)

        def draw(boxes, usable):
            def one(usable, boxes, valid, key):
                return rpn.sample_anchors(self.config.rpn, anchors, usable, boxes, valid, key)

            return jax.vmap(one)(usable, boxes, self.batch.valid, keys)

        profile.stage("matching and sampling of anchors", draw, self.batch.boxes, valid)

    def training_heads(self, profile: Profile, features: Features, proposals: Proposals) -> None:
        """Sampling of RoIs, RoIAlign, both branches, mask targets."""
        batch, keys = self.batch, jax.random.split(jax.random.key(0), self.case.batch)

        def draw(proposals):
            def one(*inputs):
                return roi_training.sample_rois(self.config, *inputs)

            return jax.vmap(one)(proposals, batch.boxes, batch.classes, batch.valid, keys)

        rois = profile.stage("matching and sampling of RoIs", draw, proposals)
        self._pool(profile, features, rois.boxes, gradient=True)
        self._box_branch(profile, features, rois.boxes, gradient=True)
        most = int(self.config.roi.samples * self.config.roi.positive_fraction)
        foreground = jax.tree.map(lambda x: x[:, :most], rois)

        def targets(foreground):
            one = lambda *x: roi_training.roi_mask_targets(*x, size=self.config.mask_size)  # noqa: E731
            return jax.vmap(one)(batch.instance_map, batch.layers, foreground, batch.sizes)

        profile.stage("mask targets", targets, foreground)
        self._mask_branch(profile, features, foreground.boxes, gradient=True)

    def prediction_heads(self, profile: Profile, features: Features, proposals: Proposals) -> None:
        """RoIAlign, box branch, NMS of detections, mask branch."""
        self._pool(profile, features, proposals.boxes, gradient=False)

        def boxes(params, levels, proposals):
            inputs = Features(levels, features.extents), proposals, self.batch.sizes
            return self.apply("detect_boxes", params, *inputs)

        found, _, classes, valid = profile.stage(
            "RoIAlign, box branch, NMS of detections", boxes, self.params, features.levels, proposals
        )

        def masks(params, levels):
            return self.apply(
                "detect_masks", params, Features(levels, features.extents), found, classes, valid
            )

        profile.stage("RoIAlign, mask branch", masks, self.params, features.levels)

    def _pool(self, profile, features, boxes, gradient):
        roi, fpn = self.config.roi, self.config.fpn
        if fpn is not None:
            run = lambda levels: self.apply(  # noqa: E731
                lambda m, f: m.roi_heads._pool(f, boxes, roi.bins, roi.sampling),
                self.params,
                Features(levels, features.extents),
            )
        else:
            run = lambda levels: heads.pool(  # noqa: E731
                Features(levels, features.extents), boxes, self.config.levels, roi.bins, roi.sampling, step=2
            )
        profile.stage("RoIAlign alone", run, features.levels, gradient=gradient)

    def _box_branch(self, profile, features, boxes, gradient):
        def run(params, levels):
            return self.apply(
                lambda m, f: m.roi_heads.boxes(f, boxes)[:2], params, Features(levels, features.extents)
            )

        profile.stage("RoIAlign and box branch", run, self.params, features.levels, gradient=gradient)

    def _mask_branch(self, profile, features, boxes, gradient):
        def run(params, levels):
            return self.apply(
                lambda m, f: m.roi_heads.masks(f, boxes), params, Features(levels, features.extents)
            )

        label = "RoIAlign and mask branch" + (
            "" if self.config.fpn else " (a C4 step shares res5 with the boxes)"
        )
        profile.stage(label, run, self.params, features.levels, gradient=gradient)

    def step(self, profile: Profile) -> None:
        """The optimiser alone, and the step as it is run."""
        optimizer = make_optimizer(self.config, warmup_steps_decay(1e-4, warmup=0, milestones=()))
        state = create_state(self.params, optimizer)
        profile.stage(
            "optimiser",
            lambda g, s, p: optimizer.update(g, s, p)[0],
            state.params,
            state.opt_state,
            state.params,
        )
        step, holder = make_train_step(self.model, optimizer), [state]

        def run():
            holder[0], metrics = step(holder[0], self.batch, jax.random.key(0))
            return holder[0], metrics

        profile.whole("**the whole step**", run)

    def detect(self, profile: Profile) -> None:
        """The prediction as it is run, up to probabilities on the device."""
        run = jax.jit(lambda p: self.apply("detect", p, self.batch.images, self.batch.sizes))
        profile.whole("**the whole prediction**", lambda: run(self.params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=("c4", "fpn"), default="c4")
    parser.add_argument("--task", choices=("train", "detect"), default="train")
    parser.add_argument("--side", type=int, default=800)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--ground_truths", type=int, default=150)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    profile = Profile(a.rounds)
    stages = Stages(Case(a.model, a.task, a.side, a.batch, a.ground_truths, a.dtype, a.rois))
    features = stages.backbone(profile)
    proposals = stages.rpn(profile, features)
    if a.task == "train":
        stages.training_heads(profile, features, proposals)
        stages.step(profile)
    else:
        stages.prediction_heads(profile, features, proposals)
        stages.detect(profile)
    device = jax.devices()[0].device_kind
    print(f"{a.model} {a.task}, {a.batch} x {a.side}², {a.ground_truths} instances, {a.dtype}, on {device}\n")
    print(profile.table())


if __name__ == "__main__":
    main()
