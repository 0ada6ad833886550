"""How the public names are used, for the type checker: `pyright` must find nothing here; no test runs it."""

import numpy as np

import maskrcnn_jax as mrcnn

config: mrcnn.MaskRCNNConfig
config, params = mrcnn.load_bundle("bundle")
config = mrcnn.MaskRCNNConfig.from_dict(mrcnn.MaskRCNNConfig.resnet_fpn(50, num_classes=3).to_dict())
mrcnn.save_bundle("again", config, params)
predictor = mrcnn.Predictor(config, params)
result: mrcnn.Result = predictor(np.zeros((8, 8, 3), np.uint8))
sides = result.boxes[:, 2:] - result.boxes[:, :2]
labels = result.label_map()
best = float(result.scores.max())
model = mrcnn.MaskRCNN(config)
