"""What the tests of `maskrcnn-jax predict` share: a model that finds colours, images, and the command."""

import pytest
from painted import Painted, discs, paint
from PIL import Image

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import MaskRCNNConfig

pytest.register_assert_rewrite("written_files")


@pytest.fixture
def model(monkeypatch):
    """In place of a bundle: two classes, and a predictor that finds each colour's pixels."""
    model = Painted()
    model.config = MaskRCNNConfig.c4(num_classes=2)
    monkeypatch.setattr("maskrcnn_jax.interop.bundle.load_bundle", lambda folder: (model.config, {}))
    monkeypatch.setattr("maskrcnn_jax.prediction.predictor.Predictor", lambda config, params: model)
    return model


@pytest.fixture
def images(tmp_path, rng):
    """Writes images of discs, at some of which the masks of the objects are known; gives their folder."""
    folder = tmp_path / "in"
    folder.mkdir()

    def make(name, objects=None, size=(60, 80)):
        objects = list(discs(rng, size, 12, 9)) if objects is None else objects
        picture = paint(size, objects)
        Image.fromarray(picture).save(make.folder / name)
        return picture

    make.folder = folder
    return make


@pytest.fixture
def run(tmp_path):
    """Runs the command with all objects kept; gives its exit code."""

    def run(*paths, out=None, bundle="any", score="0", more=()):
        out = tmp_path / "out" if out is None else out
        options = ["--bundle", str(bundle), "--out", str(out), "--min-score", score, *more]
        return main(["predict", *map(str, paths), *options])

    return run
