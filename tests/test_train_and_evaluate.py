"""From nothing to numbers, as a user does it: train a tiny model, train on, evaluate from the shell."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_config import get_config

from maskrcnn_jax.commands.train import train
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.evaluation.nuclei import averages, tally
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.interop.trees import flatten
from maskrcnn_jax.masks.rle import rles_of_labels
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.training.checkpoint import load_latest
from maskrcnn_jax.training.optimizer import averaged_params
from maskrcnn_jax.training.step import create_state

pytest_plugins = ("tiny",)
ROOT = Path(__file__).parents[1]


def history(workdir):
    return [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    """The folder of a finished training, with what it printed and gave."""
    folder, console = tmp_path_factory.mktemp("run"), Console(file=io.StringIO(), width=120)
    config = get_config()
    config.eval_every = 40
    evaluation = train(config, folder, console=console)
    return folder, console.file.getvalue(), evaluation


def test_the_losses_fall(run):
    lines = [line for line in history(run[0]) if "loss" in line]
    assert [line["step"] for line in lines] == [1, *range(10, 81, 10)]
    # A loss is that of one batch of two, and differs by a tenth from one processor to another.
    assert np.mean([line["loss"] for line in lines[-3:]]) < 0.96 * lines[0]["loss"]
    assert lines[-1]["loss_mask"] < 0.75 * lines[0]["loss_mask"]
    assert lines[-1]["loss_rpn_cls"] < 0.9 * lines[0]["loss_rpn_cls"]


def test_every_file_is_there(run):
    folder, printed, evaluation = run
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundle",
        "checkpoints",
        "config.json",
        "evaluation",
        "history.jsonl",
        "run.lock",
        "tensorboard",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["40", "80"]
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert metrics == {name: value if value == value else None for name, value in evaluation.metrics.items()}
    rows = json.loads((folder / "evaluation" / "results.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2} and all(row["category_id"] == 1 for row in rows)
    with Image.open(folder / "evaluation" / "overlay_validation_0000.png") as picture:
        assert picture.width >= 2 * 96 and np.asarray(picture).std() > 10
    assert "AP50 @2000" in printed and f"bundle, metrics and pictures are in {folder}" in printed


def test_evaluations_on_the_way_are_in_the_history(run):
    folder, _, evaluation = run
    lines = {line["step"]: line for line in history(folder) if "validation/segm/AP50@2000" in line}
    assert list(lines) == [40, 80]
    assert lines[80]["validation/segm/AP50@2000"] == evaluation.metrics["segm/AP50@2000"]


def test_the_bundle_holds_the_average_of_the_parameters(run, model_config, optimizer):
    config, params = load_bundle(run[0] / "bundle")
    assert config == model_config
    shape = jax.eval_shape(lambda: create_state(init_params(config, jax.random.key(0)), optimizer))
    state = load_latest(run[0], shape, get_config().to_dict())
    average, last = (flatten(tree) for tree in (averaged_params(state.params, state.opt_state), state.params))
    for name, array in flatten(params).items():
        np.testing.assert_array_equal(array, average[name])
    assert any((average[name] != last[name]).any() for name in last)


def test_running_it_again_only_evaluates(run):
    folder, _, evaluation = run
    before = (folder / "history.jsonl").read_bytes()
    console = Console(file=io.StringIO(), width=120)
    again = train(get_config(), folder, console=console)
    assert again.metrics == pytest.approx(evaluation.metrics, nan_ok=True)
    assert (
        "resumed at step 80" in console.file.getvalue() and "step 80/80  loss" not in console.file.getvalue()
    )
    assert (folder / "history.jsonl").read_bytes() == before


def evaluate(*arguments):
    """Runs evaluate.py on the tiny config."""
    command = [
        sys.executable,
        ROOT / "evaluate.py",
        f"--config={ROOT / 'tests' / 'tiny_config.py'}",
        *arguments,
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_evaluate_gives_the_numbers_of_the_training(run, tmp_path):
    folder, _, evaluation = run
    done = evaluate(f"--workdir={folder}", f"--out={tmp_path}", "--max_dets=7,2000")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["segm/AP@2000"] == pytest.approx(evaluation.metrics["segm/AP@2000"], abs=0.02)
    assert metrics["bbox/AP@7"] <= metrics["bbox/AP@2000"] and "bbox/AP@100" not in metrics
    assert (
        "AP75 @7" in done.stdout and "nuclei" in done.stdout and f"results are in {tmp_path}" in done.stdout
    )
    assert "all as one" in done.stdout and "F1 at IoU 0.5 is highest" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png", ".csv"}


def score(*arguments):
    """Runs evaluate.py, which may not import what it does not need."""
    script = """
import runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = {"jax", "tensorflow"} & sys.modules.keys()
    assert not heavy, heavy
"""
    flags = [str(ROOT / "evaluate.py"), f"--config={ROOT / 'tests' / 'tiny_config.py'}", *arguments]
    script = f"import sys; sys.argv = {flags!r}{script}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)


def test_results_of_any_tool_are_scored_without_a_model(run, tmp_path):
    """Our own results are the other tool's: the same numbers, without JAX."""
    folder, _, evaluation = run
    results = folder / "evaluation" / "results.json"
    done = score(f"--results={results}", f"--out={tmp_path}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {name: value if value == value else None for name, value in evaluation.metrics.items()}
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {path.name for path in results.parent.iterdir()} - {"results.json"}


def test_label_images_of_any_tool_are_scored(tmp_path):
    """The ground truth itself, as Cellpose would write it: what is beneath another nucleus is lost."""
    data, tallies = get_config().data, []
    for record in draw_records(data.validation_images, seed=2 * data.seed + 1, size=96, name="validation"):
        labels = record.layers[0].copy()
        for layer in record.layers[1:]:
            labels[labels == 0] = layer[labels == 0]
        truth = rles_of_labels(record.layers, len(record.classes))
        tallies.append(tally(truth, labels))
        Image.fromarray(labels).save(tmp_path / f"{record.name}_cp_masks.png")
    done = score(f"--results={tmp_path}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "note: label images have no scores" in done.stdout and "average precision @" not in done.stdout
    out = tmp_path.with_name(f"{tmp_path.name}_evaluation")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == pytest.approx(averages(tallies)) and metrics["nuclei/PQ"] < 1
    assert sorted(path.name for path in out.iterdir())[:2] == ["images.csv", "metrics.json"]


def test_results_that_do_not_fit_are_told(tmp_path):
    done = score(f"--results={tmp_path}")
    assert done.returncode == 1 and done.stderr.startswith("evaluate.py: 2 faults in the data:")
    assert "holds no label image of validation_0001" in done.stderr


def test_evaluate_answers_the_test_images_with_their_ids(run, tmp_path):
    """From the checkpoint, as there is no bundle yet while a model trains."""
    folder = tmp_path / "running"
    folder.mkdir()
    for name in ("checkpoints", "config.json"):
        (folder / name).symlink_to(run[0] / name)
    images = tmp_path / "images"
    images.mkdir()
    ids = [{"file_name": "b.png", "id": 41}, {"file_name": "a.png", "id": 7}]
    for entry, record in zip(ids, draw_records(2, seed=9, size=96), strict=True):
        Image.fromarray(record.image).save(images / entry["file_name"])
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    done = evaluate(
        f"--workdir={folder}",
        "--split=test",
        f"--config.data.test_images={images}",
        f"--config.data.test_ids={tmp_path / 'ids.json'}",
    )
    assert done.returncode == 0, done.stderr
    assert "step 80 of" in done.stdout
    rows = json.loads((folder / "evaluation_test" / "answer.json").read_text())
    assert {row["image_id"] for row in rows} == {7, 41}
    assert rows[0]["segmentation"]["size"] == [96, 96]
    assert sorted(path.name for path in (folder / "evaluation_test").iterdir()) == [
        "answer.json",
        "overlay_a.png",
        "overlay_b.png",
    ]
