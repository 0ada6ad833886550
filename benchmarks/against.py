"""What host and models do, beside another commit of this repository, in turns in one run.

    git worktree add ../before cca0d49
    python benchmarks/against.py input ../before [--path ../shared/data/vrdl/train]
    python benchmarks/against.py paste ../before
    python benchmarks/against.py tiles ../before [--path ../shared/data/vrdl/train]
    python benchmarks/against.py model ../before [--case fpn-train] [--ground_truths 150] [--dtype float32]

`input`: batches of the VRDL recipe (configs/nuclei_r50_c4.py), from the densest images of a data set of mask
folders (--path), or drawn ones. `paste`: from the device's arrays to the result of 1000 x 1000 pixels.
`tiles`: an image in tiles by the weights of the model `nuclei`, without options that not both trees have.
`model`: a case of `throughput.py` by each tree's own script, 800 x 800 pixels to train and 1000 x 1000 else.

Each tree runs in a process of its own; before and now take turns, so that a busy machine treats both alike.
Printed are medians, and the median of the rounds' ratios, of seconds on the clock and of the processor.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

HERE = Path(__file__).resolve().parents[1]
AUGMENT = (
    {"op": "random_crop", "size": 500},
    {"op": "resize_shortest_edge", "sizes": (608, 640, 672, 704, 736, 768, 800), "longest": 800},
    {"op": "flip_horizontal"},
)
PASTED = [(500, 20), (500, 60), (500, 200), (2000, 30), (2000, 60)]  # how many, and their side in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=sorted(CASES))
    parser.add_argument("tree", type=Path, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", type=Path, help="a data set of mask folders")
    parser.add_argument("--images", type=int, default=4, help="how many of its images are read, the densest")
    parser.add_argument("--batches", type=int, default=16, help="of two images, in a round")
    parser.add_argument("--side", type=int, default=1408, help="of the image in tiles, in pixels")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--case", default="fpn-train", help="model and task, as in throughput.py")
    parser.add_argument("--ground_truths", type=int, default=150, help="instances of an image to train")
    parser.add_argument("--dtype", default="float32", help="of a model's convolutions and products")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        names = ("batches", "tile", "case", "ground_truths", "dtype")
        options = {name: getattr(arguments, name) for name in names}
        options["file"] = _input_of(arguments, Path(folder, "input.npz"))
        trees = {"before": arguments.tree.resolve(), "now": HERE}
        children = {
            name: stack.enter_context(_Child(arguments.task, tree, options)) for name, tree in trees.items()
        }
        rounds = [{name: child.run() for name, child in children.items()} for _ in range(arguments.rounds)]
    for case in rounds[0]["now"]:
        for clock, unit in enumerate(("s", "s of the processor")):
            seconds = {name: [one[name][case][clock] for one in rounds] for name in children}
            ratio = statistics.median(b / n for b, n in zip(seconds["before"], seconds["now"], strict=True))
            before, now = map(statistics.median, (seconds["before"], seconds["now"]))
            print(f"{case}: {before:.4g} -> {now:.4g} {unit}, {ratio:.2f} times as fast")


class _Child:
    """Another process of this script, which imports the package from a tree."""

    def __init__(self, task: str, tree: Path, options: dict):
        self._command = [sys.executable, __file__, task, json.dumps(options)]
        self._environment = {**os.environ, "PYTHONPATH": str(tree), "AGAINST_CHILD": "1"}

    def __enter__(self) -> "_Child":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(self._command, env=self._environment, **pipes)
        self.run()  # compiles, starts threads
        return self

    def run(self) -> dict[str, tuple[float, float]]:
        """Seconds of each case, by the clock and of the processor."""
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        # It would prepare the next batches while the other one is measured.
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()


def _input_of(arguments: argparse.Namespace, path: Path) -> str:
    """Writes records for both trees; gives the file's path."""
    from maskrcnn_jax.data.entries import read_records
    from maskrcnn_jax.data.readers.formats import list_entries
    from maskrcnn_jax.data.synthetic import draw_records

    if arguments.task in ("paste", "model"):
        return ""
    if arguments.path:
        entries = list_entries("mask_folder", arguments.path).entries
        entries.sort(key=lambda e: -len(list((arguments.path / e.name / "masks").iterdir())))
        records = read_records(entries[: arguments.images])
    else:
        records = draw_records(arguments.images, seed=0, size=1000, nuclei=(1200, 1200))
    fields = ("image", "layers", "classes")
    arrays = {f"{field}{n}": getattr(r, field) for n, r in enumerate(records) for field in fields}
    if arguments.task == "tiles":
        arrays = {"image": _mosaic([record.image for record in records], arguments.side)}
    np.savez(path, **arrays)
    return str(path)


def _mosaic(images: list[np.ndarray], side: int) -> np.ndarray:
    rows = [np.concatenate(images[n : n + 2] * 2, axis=1)[:, :side] for n in (0, 2)]
    return np.concatenate(rows, axis=0)[:side]


def child(task: str, options: dict) -> None:
    """Answers each line with the seconds of a round."""
    cases = CASES[task](options)
    for _ in sys.stdin:
        seconds = {}
        for name, run in cases.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name] = time.perf_counter() - clock, time.process_time() - processor
        print(json.dumps(seconds), flush=True)


def _either(*names: str) -> object:
    """The first of these names that the tree has: modules have moved."""
    package = Path(os.environ["PYTHONPATH"], "maskrcnn_jax")
    for name in names:
        module, _, attribute = name.rpartition(".")
        # An installed package must not lend a tree what it lacks.
        if package.joinpath(*module.split(".")).with_suffix(".py").exists():
            return getattr(import_module(f"maskrcnn_jax.{module}"), attribute)
    raise ImportError(f"none of {names}")


def _input_cases(options: dict) -> dict[str, Callable[[], object]]:
    from maskrcnn_jax.data.pipeline import batches
    from maskrcnn_jax.data.records import Record

    arrays = np.load(options["file"])
    count = len(arrays) // 3
    records = [
        Record(n, str(n), *(arrays[f"{field}{n}"] for field in ("image", "layers", "classes")))
        for n in range(count)
    ]
    stream = batches(records, augment=AUGMENT, canvas=(800, 800), batch_size=2, max_instances=800, seed=0)
    return {f"{options['batches']} batches": lambda: [next(stream) for _ in range(options["batches"])]}


def _paste_cases(_: dict) -> dict[str, Callable[[], object]]:
    from maskrcnn_jax.structures import Detections

    to_result = _either("prediction.predictor.to_result", "inference.predictor.to_result")
    rng = np.random.default_rng(0)
    blob = 1.5 - np.hypot(*(np.mgrid[:28, :28] - 13.5)) / 14
    cases = {}
    for count, side in PASTED:
        masks = (blob + rng.normal(0, 0.1, (count, 28, 28))).clip(0, 1).astype(np.float32)
        centres, halves = rng.uniform(0, 1000, (count, 2)), rng.uniform(0.35, 0.65, (count, 2)) * side
        boxes = np.concatenate([centres - halves, centres + halves], axis=1).clip(0, 1000).astype(np.float32)
        found = Detections(boxes, np.ones(count), np.zeros(count, int), masks, np.ones(count, bool))
        cases[f"{count} masks of {side} px"] = lambda f=found: to_result(f, (1000, 1000), (1000, 1000))
    return cases


def _tile_cases(options: dict) -> dict[str, Callable[[], object]]:
    from maskrcnn_jax.config import MaskRCNNConfig

    places = ("prediction.{}", "inference.{}", "images.{}")
    predictor, predict_tiled, open_source = (
        _either(*(place.format(name) for place in places))
        for name in ("predictor.Predictor", "tiling.predict_tiled", "sources.open_source")
    )
    folder = HERE / "maskrcnn_jax/zoo/nuclei"
    given = json.loads((folder / "config.json").read_text())["config"]
    given |= {"stretch_grey": False, "detection": given["detection"] | {"containment": 1.0}}
    predict = predictor(MaskRCNNConfig.from_dict(_known(MaskRCNNConfig().to_dict(), given)), _weights(folder))
    image = np.load(options["file"])["image"]
    overlap = options["tile"] // 8

    def run() -> object:
        return predict_tiled(predict, open_source(image), tile=options["tile"], overlap=overlap)

    return {f"{image.shape[0]} x {image.shape[1]} px in tiles of {options['tile']}": run}


def _known(names: dict, given: dict) -> dict:
    """What a tree's config knows of another's."""
    return {
        name: _known(names[name], value)
        if isinstance(value, dict) and isinstance(names[name], dict)
        else value
        for name, value in given.items()
        if name in names
    }


def _weights(folder: Path) -> dict:
    from safetensors.numpy import load_file

    params: dict = {}
    for name, values in load_file(folder / "model.safetensors").items():
        *path, last = name.split("/")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node[last] = values.astype(np.float32)
    return params


def _model_cases(options: dict) -> dict[str, Callable[[], object]]:
    sys.path.insert(0, str(Path(os.environ["PYTHONPATH"], "benchmarks")))
    from throughput_case import Case
    from throughput_jax import JaxContender

    model, task = options["case"].split("-")
    given = {name: options[name] for name in ("ground_truths", "dtype")}
    case = Case(model, task, 800 if task == "train" else 1000, **given)
    return {options["case"]: JaxContender(case).run}


CASES = {"input": _input_cases, "model": _model_cases, "paste": _paste_cases, "tiles": _tile_cases}

if __name__ == "__main__":
    if os.environ.get("AGAINST_CHILD"):
        child(sys.argv[1], json.loads(sys.argv[2]))
    else:
        main()
