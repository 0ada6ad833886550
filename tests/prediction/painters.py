"""Workers for the tests of many machines, which make them from their module's name."""

import os
import time

from painted import Painted

from maskrcnn_jax.prediction.worker import Worker


class Painter(Painted):
    """Takes its time, and dies of an image with a pixel of the colour (1, 2, 3)."""

    def batch(self, images, **options):
        time.sleep(0.05)
        if any((image == (1, 2, 3)).all(axis=-1).any() for image in images):
            os._exit(1)
        return super().batch(images, **options)


def make(params, fields):
    assert params == {"weights": 7}
    return Worker(Painter(), **fields)


def make_for_command(params, config, tta, fields):
    return make(params, fields)
