"""Seconds and peak memory of the report's model at full size: training steps, or one large prediction.

    python benchmarks/full_size.py train   [--config configs/nuclei_r50_c4.py] [--steps 3]
    python benchmarks/full_size.py predict [--config configs/nuclei_r50_c4.py] [--side 1000]

Uses the config's real images where they are, else images that the package draws, and says which. Peak
memory is that of the whole process, so run one mode a process. The first step compiles.
"""

import argparse
import os
import resource
import time
from importlib import util
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.interop.initialize import initialize_from
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import create_state, make_train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mode", choices=("train", "predict"))
    parser.add_argument("--config", default="configs/nuclei_r50_c4.py", type=Path)
    parser.add_argument("--steps", default=3, type=int)
    parser.add_argument("--side", default=1000, type=int, help="of drawn images, in pixels")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    # On a CPU bfloat16 is slower than float32, and this is a benchmark of one.
    model_config = MaskRCNNConfig.from_dict(config.model.to_dict() | {"dtype": "float32"})
    params = timed("initial parameters", lambda: init_params(model_config, jax.random.key(0)))
    if config.init_from and Path(config.init_from).exists():
        params, report = initialize_from(config.init_from, model_config, params)
        print(str(report).splitlines()[0])
    if arguments.mode == "train":
        train(config, model_config, params, arguments.steps)
    else:
        predict(config, model_config, params, arguments.side)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'peak memory of the process':32s} {peak:8.2f} GiB")


def train(config, model_config, params, steps):
    root = Path(config.data.path)
    if root.is_dir():
        entries = list_entries("mask_folder", root).entries[:2]
        records = timed("read 2 training images", lambda: read_records(entries))
    else:
        records = draw_records(2, seed=0, size=1000, nuclei=(500, 700))
    print(f"training images: {', '.join(record.name for record in records)}")
    optimizer = make_optimizer(model_config, warmup_steps_decay(**config.schedule), **config.optimizer)
    state, step = create_state(params, optimizer), make_train_step(MaskRCNN(model_config), optimizer)
    stream = batches(
        records,
        augment=config.data.augment,
        canvas=tuple(config.data.canvas),
        batch_size=config.batch_size,
        max_instances=config.data.max_instances,
        seed=0,
        steps=steps + 1,
    )
    for number, batch in enumerate(stream):
        label = "first step, with compilation" if number == 0 else f"step {number + 1}"
        state, metrics = timed(label, lambda b=batch, s=state: step(s, b, jax.random.key(0)))
        losses = {name: round(float(value), 3) for name, value in sorted(metrics.items())}
        print(f"  {int(batch.valid.sum())} nuclei, {losses}")


def predict(config, model_config, params, side):
    folder = Path(config.data.test_images)
    if folder.is_dir():
        path = sorted(folder.glob("*.png"))[0]
        name, image = path.name, read_image(path)
    else:
        name, image = "a drawn image", draw_records(1, seed=0, size=side, nuclei=(500, 700))[0].image
    predictor = Predictor(model_config, params, buckets=(max(image.shape[:2]),))
    print(f"predicting {name}, {image.shape[1]} x {image.shape[0]} pixels")
    timed("first image, with compilation", lambda: predictor(image))
    result = timed("an image, masks on the host", lambda: predictor(image))
    print(f"  {len(result)} detections")


def timed(label, run):
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    print(f"{label:32s} {time.perf_counter() - start:8.1f} s", flush=True)
    return result


def load_config(path):
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


if __name__ == "__main__":
    main()
