"""The peer: torchvision's Mask R-CNN, eager, and Detectron2's C4 model made of torchvision's parts."""

import time

import numpy as np
import torch
from throughput_case import DETECTIONS, NMS_IOU, RESIDUAL_SCALE, Case, draw, process_peak_gib, serve
from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

CLASSES = 2  # torchvision counts the background


class C4RoIHeads(RoIHeads):
    """Detectron2's Res5ROIHeads: both branches read res5, in training the mask branch its foreground rows."""

    def forward(self, features, proposals, image_shapes, targets=None):
        if self.training:
            proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        shared = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, deltas = self.box_predictor(shared.mean(dim=(2, 3)))
        if self.training:
            loss_class, loss_box = fastrcnn_loss(logits, deltas, labels, regression)
            positive = [torch.where(label > 0)[0] for label in labels]
            masks = self.mask_predictor(shared[torch.where(torch.cat(labels) > 0)[0]])
            loss_mask = maskrcnn_loss(
                masks,
                [boxes[keep] for boxes, keep in zip(proposals, positive, strict=True)],
                [target["masks"] for target in targets],
                [target["labels"] for target in targets],
                [index[keep] for index, keep in zip(matched, positive, strict=True)],
            )
            return [], {"loss_classifier": loss_class, "loss_box_reg": loss_box, "loss_mask": loss_mask}
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        shared = self.box_head(self.box_roi_pool(features, boxes, image_shapes))
        masks = maskrcnn_inference(self.mask_predictor(shared), labels)
        names = ("boxes", "scores", "labels", "masks")
        return [
            dict(zip(names, one, strict=True)) for one in zip(boxes, scores, labels, masks, strict=True)
        ], {}


def make_model(case: Case) -> MaskRCNN:
    """The model, with the case's limits and images left at their size."""
    limits = {
        "min_size": case.side,
        "max_size": case.side,
        "rpn_pre_nms_top_n_train": case.pre_nms[0],
        "rpn_pre_nms_top_n_test": case.pre_nms[1],
        "rpn_post_nms_top_n_train": case.post_nms[0],
        "rpn_post_nms_top_n_test": case.post_nms[1],
        "box_batch_size_per_image": case.rois,
        "box_detections_per_img": DETECTIONS,
        "box_nms_thresh": NMS_IOU,
    }
    if case.model == "fpn":
        # As maskrcnn_resnet50_fpn, whose norms are frozen only where weights are downloaded.
        pyramid = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
        )
        return MaskRCNN(pyramid, num_classes=CLASSES, **limits)
    resnet = resnet50(norm_layer=FrozenBatchNorm2d)
    for layer in (resnet.layer2, resnet.layer3, resnet.layer4):  # the stride in the first 1x1, as MSRA
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    backbone = nn.Sequential(*(getattr(resnet, name) for name in names))
    backbone.out_channels = 1024
    for frozen in (resnet.conv1, resnet.layer1):
        frozen.requires_grad_(False)
    pool = MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2)
    model = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(case.anchor_sizes, ((0.5, 1.0, 2.0),)),
        box_roi_pool=pool,
        box_head=resnet.layer4,
        box_predictor=FastRCNNPredictor(2048, CLASSES),
        mask_roi_pool=pool,
        mask_head=nn.Identity(),
        mask_predictor=MaskRCNNPredictor(2048, 256, CLASSES),
        **limits,
    )
    model.roi_heads.__class__ = C4RoIHeads
    return model


def tame(model: MaskRCNN) -> MaskRCNN:
    """See `RESIDUAL_SCALE`; every class is as likely, so that nothing falls below a threshold."""
    for name, module in model.named_modules():
        if name.endswith(".bn3"):
            module.weight.fill_(RESIDUAL_SCALE)
    for values in model.roi_heads.box_predictor.parameters():
        nn.init.zeros_(values)
    return model


class TorchContender:
    """See `throughput_case.Contender`."""

    def __init__(self, case: Case):
        torch.manual_seed(0)
        self._case = case
        self._cuda = torch.cuda.is_available()
        self._device = torch.device("cuda" if self._cuda else "cpu")
        self._model = tame(make_model(case)).to(self._device).train(case.task == "train")
        if self._cuda or case.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)
        trainable = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(trainable, 1e-4, momentum=0.9, weight_decay=1e-4)
        images, boxes, labels = draw(case)
        self._images = [self._image(image) for image in images]
        self._targets = [self._target(*one) for one in zip(boxes, labels, strict=True)]
        start = time.perf_counter()
        self.run()
        self._first = time.perf_counter() - start

    def _image(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1).to(self._device, torch.float32) / 255

    def _target(self, boxes: np.ndarray, labels: np.ndarray) -> dict[str, torch.Tensor]:
        masks = labels[None] == np.arange(1, len(boxes) + 1)[:, None, None]
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
            "masks": torch.from_numpy(masks.astype(np.uint8)),
        }
        return {name: value.to(self._device) for name, value in target.items()}

    def run(self) -> int:
        half = self._case.dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            count = {"train": self._train, "detect": self._detect, "predict": self._predict}[
                self._case.task
            ]()
        if self._cuda:
            torch.cuda.synchronize()
        return count

    def _train(self) -> int:
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._model(self._images, self._targets)
        sum(losses.values()).backward()
        self._optimizer.step()
        return 0

    @torch.inference_mode()
    def _detect(self) -> int:
        model = self._model
        images, _ = model.transform(self._images)
        features = model.backbone(images.tensors)
        if isinstance(features, torch.Tensor):
            features = {"0": features}
        proposals, _ = model.rpn(images, features)
        found, _ = model.roi_heads(features, proposals, images.image_sizes)
        return sum(len(one["scores"]) for one in found)

    @torch.inference_mode()
    def _predict(self) -> int:
        found = self._model(self._images)
        return sum(len((one["masks"] > 0.5).cpu()) for one in found)

    def facts(self) -> dict[str, float]:
        return {"compile_s": self._first}

    def peak_gib(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if self._cuda else process_peak_gib()


if __name__ == "__main__":
    serve(TorchContender)
