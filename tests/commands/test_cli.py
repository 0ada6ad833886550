"""The commands from the shell: what they write, what they say, and their exit codes."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import maskrcnn_jax
from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.interop import detectron2
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small Detectron2 model on disk."""
    folder = tmp_path_factory.mktemp("model")
    widths = {"STEM_OUT_CHANNELS": 4, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 2}
    fields = {"MASK_ON": True, "RESNETS": widths, "ANCHOR_GENERATOR": {"SIZES": [[8, 16]]}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"VERSION": 2, "MODEL": fields}))
    config, rng = read_config(folder / "config.yaml"), np.random.default_rng(0)
    flat = {path: rng.normal(size=s).astype(np.float32) for path, s in expected_shapes(config).items()}
    detectron2.save(folder / "model.pkl", config, nest(flat))
    return folder, config, flat


@pytest.fixture
def convert(model, tmp_path):
    """Runs `convert` on the model, with other arguments in place of or after its own."""

    def run(*more, **changes):
        values = {"detectron2": model[0] / "config.yaml", "weights": model[0] / "model.pkl"}
        values |= {"out": tmp_path / "bundle"} | changes
        options = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        return main(["convert", *options, *more])

    return run


def test_converts_into_a_bundle(model, convert, tmp_path, capsys):
    assert convert(out=tmp_path / "new" / "bundle") == 0
    config, params = load_bundle(tmp_path / "new" / "bundle")
    assert config == model[1]
    params = flatten(params)
    assert params.keys() == model[2].keys()
    for path, array in model[2].items():
        np.testing.assert_array_equal(params[path], array)
    said = capsys.readouterr()
    count = sum(array.size for array in model[2].values())
    assert "ResNet-50-C4, classes: 80" in said.out and f"{count:,}" in said.out and not said.err


def test_overwrites_only_when_told(convert, tmp_path, capsys):
    assert convert() == 0
    before = (tmp_path / "bundle" / "config.json").stat().st_mtime_ns
    assert convert() == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "bundle" / "config.json").stat().st_mtime_ns == before
    assert convert("--overwrite") == 0


def test_never_overwrites_what_is_no_bundle(convert, tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("precious")
    assert convert("--overwrite") == 1
    assert "is no bundle" in capsys.readouterr().err
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("changed", "text", "message"),
    [
        ("detectron2", None, "cannot be read"),
        ("weights", None, "No such file|cannot be read"),
        ("detectron2", "MODEL: {KEYPOINT_ON: true}", "keypoints"),
        ("weights", "no weights at all", "weights"),
    ],
)
def test_faults_are_told_in_a_line_not_a_traceback(convert, tmp_path, capsys, changed, text, message):
    path = tmp_path / f"{changed}.file"
    if text is not None:
        path.write_text(text)
    assert convert(**{changed: path}) == 1
    said = capsys.readouterr()
    assert said.err.startswith("maskrcnn-jax convert: ") and path.name in said.err and not said.out
    assert any(part in said.err for part in message.split("|"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["convert"], "--detectron2"),
        (["convert", "--detectron2", "a.yaml", "--weights", "b.pkl"], "--out"),
        (["convert", "--detektron", "a.yaml"], "required"),
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0 and maskrcnn_jax.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["convert", "--help"], ["export", "--help"], ["predict", "--help"]]
)
def test_help_is_there_at_once(arguments):
    """Without JAX and TensorFlow, which take seconds to import."""
    code = (
        "import atexit, sys\n"
        "from maskrcnn_jax.commands.cli import main\n"
        "slow = {'jax', 'flax', 'tensorflow', 'numpy'}\n"
        "atexit.register(lambda: print(sorted(slow & sys.modules.keys())))\n"
        f"main({arguments})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: maskrcnn-jax" in done.stdout and done.stdout.rstrip().endswith("[]")


def test_the_entry_point_exists():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["maskrcnn-jax"].split(":")
    assert getattr(importlib.import_module(module), function) is main
