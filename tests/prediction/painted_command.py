"""`maskrcnn-jax` with a predictor that finds each colour's pixels: for tests of its processes."""

import sys

import painters
from painted import Painted

from maskrcnn_jax.commands import predict
from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import MaskRCNNConfig

if __name__ == "__main__":
    predict.load_chosen = lambda arguments: (MaskRCNNConfig.c4(num_classes=2), {"weights": 7})
    predict._predictor = lambda params, config, tta: Painted()
    predict._make_worker = painters.make_for_command
    sys.exit(main(sys.argv[1:]))
