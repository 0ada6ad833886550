"""Mask R-CNN: backbone, optional pyramid, RPN and RoI heads, composed into losses and detections."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.models import cascade, detections, roi_training, rpn
from maskrcnn_jax.models.chunks import map_valid
from maskrcnn_jax.models.fpn import FPN
from maskrcnn_jax.models.heads import C4Heads, Features, FPNHeads, select_class
from maskrcnn_jax.models.layers import inside
from maskrcnn_jax.models.resnet import ResNet
from maskrcnn_jax.ops.boxes import decode, grow
from maskrcnn_jax.ops.sampling import Sample
from maskrcnn_jax.structures import Batch, Detections, Proposals, Term

LOSSES = ("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")

# RoIs at a time in prediction: enough for full matrix products, few enough to skip most of the padding.
_CHUNK = 128


class MaskRCNN(nn.Module):
    """The whole model as pure functions of (params, arrays, key); see `losses` and `detect`.

    Images may be padded at the right and bottom: the results do not depend on how much.
    """

    config: MaskRCNNConfig

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.backbone = ResNet(self.config.backbone, dtype, self.config.remat)
        if self.config.fpn is not None:
            self.neck = FPN(self.config.fpn, dtype)
        self.rpn = rpn.RPNHead(self.config.rpn, dtype)
        self.roi_heads = (C4Heads if self.config.has_residual_head else FPNHeads)(self.config)

    def __call__(self, images: UInt8[Array, "B H W 3"], sizes: Int[Array, "B 2"]):
        """Runs every layer once, on one RoI an image; the parameters are known from it."""
        features = self.features(images, sizes)
        return self.rpn(*features), self.roi_heads(features)

    def features(self, images: UInt8[Array, "B H W 3"], sizes: Int[Array, "B 2"]) -> Features:
        """The levels that RPN and RoI heads read.

        Args:
          images: RGB, 0..255, content at the top left.
          sizes: height and width of the content in pixels.
        """
        images, padded = normalize(self.config, images, sizes)
        stages = self.backbone(images, padded)
        extents = tuple(-(-padded // stride) for stride in self.config.levels)
        if self.config.fpn is None:
            return Features((stages[self.config.backbone.last_stage],), extents)
        return Features(tuple(self.neck(stages, extents)), extents)

    def propose(
        self, features: Features, sizes: Int[Array, "B 2"], *, training: bool
    ) -> tuple[Proposals, Float[Array, "B N"], Float[Array, "B N 4"]]:
        """Proposals of each image, and the RPN's logits and deltas of all anchors."""
        logits, deltas = self.rpn(*features)
        shapes = [level.shape[1:3] for level in features.levels]

        def one(logits, deltas, extents, size):
            anchors, valid = self._anchors(shapes, extents)
            return rpn.propose(self.config.rpn, logits, deltas, anchors, valid, size, training=training)

        proposals = jax.vmap(one)(*jax.lax.stop_gradient((logits, deltas)), features.extents, sizes)
        return proposals, logits, deltas

    def losses(
        self,
        batch: Batch,
        key: PRNGKeyArray,
        *,
        anchor_sample: Sample | None = None,
        proposals: Proposals | None = None,
        roi_sample: Sample | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """The five losses of a training step; their sum is what is minimised.

        Args:
          batch, key, anchor_sample, proposals, roi_sample: as for `terms`.

        Returns:
          `loss_cls`, `loss_box_reg`, `loss_mask`, `loss_rpn_cls`, `loss_rpn_loc`, with Detectron2's
          normalisers; float32 scalars. Of a cascade also `loss_cls_2`, `loss_box_reg_2` and so on.
        """
        choices = {"anchor_sample": anchor_sample, "proposals": proposals, "roi_sample": roi_sample}
        return {name: term.mean for name, term in self.terms(batch, key, **choices).items()}

    def terms(
        self,
        batch: Batch,
        key: PRNGKeyArray,
        first: int | Int[Array, ""] = 0,
        *,
        anchor_sample: Sample | None = None,
        proposals: Proposals | None = None,
        roi_sample: Sample | None = None,
    ) -> dict[str, Term]:
        """The five losses of some images of a step's batch, as sums and what they are divided by.

        Args:
          batch: padded images and ground truths.
          key: of the step; decides which anchors and RoIs are drawn.
          first: the place of the first of these images in the whole batch. The draws of an image depend on
            its place alone, and not on which others are computed with it.
          anchor_sample, proposals, roi_sample: fixed choices (with a batch axis) in place of the model's
            own, to compare losses and gradients with another implementation.

        Returns:
          By the names of `losses`.
        """
        features = self.features(batch.images, batch.sizes)
        found, logits, deltas = self.propose(features, batch.sizes, training=True)
        places = first + jnp.arange(len(batch.index))
        anchor_keys, roi_keys = (
            jax.vmap(jax.random.fold_in, (None, 0))(purpose, places) for purpose in jax.random.split(key)
        )
        terms = self._rpn_terms(features, logits, deltas, batch, anchor_keys, anchor_sample)
        return terms | self._roi_terms(features, proposals or found, batch, roi_keys, roi_sample)

    def detect(self, images: UInt8[Array, "B H W 3"], sizes: Int[Array, "B 2"]) -> Detections:
        """The best detections of each image, with their masks as probabilities over their boxes.

        Args:
          images: RGB, 0..255, content at the top left.
          sizes: height and width of the content in pixels.
        """
        features = self.features(images, sizes)
        proposals = self.propose(features, sizes, training=False)[0]
        boxes, scores, classes, valid = self.detect_boxes(features, proposals, sizes)
        masks = self.detect_masks(features, boxes, classes, valid)
        found = Detections(boxes, scores, classes, masks, valid)
        weight = self.config.detection.mask_weight
        return jax.vmap(lambda one: detections.rescore_by_masks(one, weight))(found) if weight else found

    def detect_boxes(self, features: Features, proposals: Proposals, sizes: Int[Array, "B 2"]):
        """Boxes (B, D, 4), scores, classes and validity (B, D) of the detections among the proposals."""
        heads, params = self.roi_heads.unbind()
        last = self.config.roi.stage(len(self.config.roi.cascade_ious))

        def predict(boxes):
            stages = self._run_stages(
                functools.partial(heads.apply, params, method="boxes"), features, boxes, sizes
            )
            logits, deltas, starts = (x[-1] for x in stages)
            return cascade.mean_logits(stages[0]) if len(stages[0]) > 1 else logits, deltas, starts

        logits, deltas, boxes = map_valid(predict, (proposals.boxes,), _most(proposals.valid), chunk=_CHUNK)
        one = functools.partial(detections.select_detections, self.config.detection, last.box_weights)
        return jax.vmap(one)(logits, deltas, proposals._replace(boxes=boxes), sizes)

    def _run_stages(self, run, features, boxes, sizes):
        """Logits, deltas and starting boxes of each box head, every one from the boxes of the one before."""
        found = []
        for number in range(len(self.config.roi.cascade_ious) + 1):
            if number:
                refine = functools.partial(cascade.refine, self.config.roi.stage(number - 1))
                boxes = jax.vmap(refine)(found[-1][1], boxes, sizes)
            options = {"stage": number} if number else {}
            outputs = run(features, boxes, **options)[:2]
            found.append((*(x.reshape(*boxes.shape[:2], *x.shape[1:]) for x in outputs), boxes))
        return tuple(zip(*found, strict=True))

    def detect_masks(
        self,
        features: Features,
        boxes: Float[Array, "B D 4"],
        classes: Int[Array, "B D"],
        valid: Bool[Array, "B D"],
    ) -> Float[Array, "B D M M"]:
        """Mask probabilities of each valid box, grown by `roi.mask_margin`, for its class.

        They are moved so that `detection.mask_threshold` lies at one half. Padding must come last, and gets
        zeros.
        """
        heads, params = self.roi_heads.unbind()
        threshold = self.config.detection.mask_threshold
        level = math.log(threshold / (1 - threshold))
        boxes = grow(boxes, self.config.roi.mask_margin)

        def predict(boxes, classes):
            logits = heads.apply(params, features, boxes, method="masks")
            chosen = select_class(logits, classes.reshape(-1), axis=-1)
            return (jax.nn.sigmoid(chosen - level).reshape(*classes.shape, *chosen.shape[1:]),)

        return map_valid(predict, (boxes, classes), _most(valid), chunk=_CHUNK)[0]

    def _anchors(self, shapes, extents):
        """The anchors of one image, and which of them may be used."""
        config, strides = self.config.rpn, self.config.levels
        if config.anchor_spacing == "content":
            strides = rpn.content_spacing(strides, extents)
        return rpn.make_anchors(config, shapes, strides), rpn.valid_anchors(config, shapes, extents)

    def _rpn_terms(self, features, logits, deltas, batch, keys, fixed):
        shapes = [level.shape[1:3] for level in features.levels]

        def one(logits, deltas, extents, boxes, valid, crowd, key, fixed):
            anchors, usable = self._anchors(shapes, extents)
            drawn, matched = rpn.sample_anchors(self.config.rpn, anchors, usable, boxes, valid, key, crowd)
            return rpn.rpn_losses(self.config.rpn, logits, deltas, anchors, boxes, fixed or drawn, matched)

        truths = batch.boxes, batch.valid, batch.crowd
        return jax.tree.map(jnp.sum, jax.vmap(one)(logits, deltas, features.extents, *truths, keys, fixed))

    def _roi_terms(self, features, proposals, batch, keys, fixed):
        one = functools.partial(roi_training.sample_rois, self.config)
        rois = jax.vmap(one)(proposals, batch.boxes, batch.classes, batch.valid, keys, fixed, batch.crowd)
        matched = jnp.take_along_axis(batch.boxes, rois.instance[..., None], axis=1)
        logits, deltas, shared = self.roi_heads.boxes(features, rois.boxes)

        def flat(x):
            return x.reshape(-1, *x.shape[2:])

        terms = roi_training.box_losses(self.config, logits, deltas, jax.tree.map(flat, rois), flat(matched))
        terms |= self._cascade_terms(features, rois, deltas, batch)
        # Foreground comes first, so that the mask branch needs only this many rows.
        most = int(self.config.roi.samples * self.config.roi.positive_fraction)
        foreground = jax.tree.map(lambda x: x[:, :most], rois)
        if self.config.roi.mask_boxes == "predicted":
            foreground = foreground._replace(boxes=self._predicted(rois, deltas)[:, :most])
        foreground = foreground._replace(boxes=grow(foreground.boxes, self.config.roi.mask_margin))
        if shared is not None:
            shared = flat(shared.reshape(*rois.valid.shape, *shared.shape[1:])[:, :most])
        options = {"size": self.config.mask_size, "soft": self.config.roi.mask_targets == "soft"}
        targets = functools.partial(roi_training.roi_mask_targets, **options)
        targets = jax.vmap(targets)(batch.instance_map, batch.layers, foreground, batch.sizes)
        masks = self.roi_heads.masks(features, foreground.boxes, shared)
        foreground = jax.tree.map(flat, foreground)
        mask_term = roi_training.mask_loss(masks, foreground.classes, flat(targets), foreground.positive)
        return terms | {"loss_mask": mask_term}

    def _cascade_terms(self, features, rois, deltas, batch):
        """The box losses of a cascade's further heads: the names of the first's, with `_2` and so on."""
        terms, truths = {}, (batch.boxes, batch.classes, batch.valid, batch.crowd)
        for number in range(1, len(self.config.roi.cascade_ious) + 1):
            deltas = deltas.reshape(*rois.valid.shape, 1, 4)
            refine = functools.partial(cascade.refine, self.config.roi.stage(number - 1))
            refined, roi = jax.vmap(refine)(deltas, rois.boxes, batch.sizes), self.config.roi.stage(number)
            label = functools.partial(cascade.label_again, roi, background=self.config.num_classes)
            rois = jax.vmap(label)(rois, refined, *truths)
            matched = jnp.take_along_axis(batch.boxes, rois.instance[..., None], axis=1)
            logits, deltas, _ = self.roi_heads.boxes(features, rois.boxes, stage=number)
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rois, matched))
            config = dataclasses.replace(self.config, roi=roi)
            found = roi_training.box_losses(config, logits, deltas, *flat)
            terms |= {f"{name}_{number + 1}": term for name, term in found.items()}
        return terms

    def _predicted(self, rois, deltas):
        """Where each RoI's own class moves it, without a gradient."""
        chosen = select_class(deltas, rois.classes.reshape(-1)).reshape(rois.boxes.shape)
        return jax.lax.stop_gradient(decode(chosen, rois.boxes, self.config.roi.box_weights))


def _most(valid: Bool[Array, "B R"]) -> Int[Array, ""]:
    """Valid rows of the image that has most."""
    return valid.sum(axis=1).max().astype(jnp.int32)


def normalize(
    config: MaskRCNNConfig, images: UInt8[Array, "B H W 3"], sizes: Int[Array, "B 2"]
) -> tuple[Float[Array, "B h w 3"], Int[Array, "B 2"]]:
    """Network input, and the extent that counts as image: sizes rounded up to `config.divisibility`.

    Zeros fill everything outside the content, as Detectron2 pads after normalising.
    """
    mean, std = (jnp.array(v, jnp.float32).reshape(1, 1, 1, 3) for v in (config.pixel_mean, config.pixel_std))
    order = images if config.channel_order == "RGB" else images[..., ::-1]
    height, width = images.shape[1:3]
    pixels = jnp.where(inside(sizes, height, width), (order.astype(jnp.float32) - mean) / std, 0.0)
    step = config.divisibility
    pixels = jnp.pad(pixels, ((0, 0), (0, -height % step), (0, -width % step), (0, 0)))
    return pixels, -(-sizes // step) * step
