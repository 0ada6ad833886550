"""The models that come with the package find in the two images beside them what their cards say."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.evaluation.nuclei import summarize, tally
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.prediction.scale import Scale
from maskrcnn_jax.zoo import SAMPLES, load_model, models


@pytest.fixture(scope="module")
def samples():
    return read_records(list_entries("labels", SAMPLES).entries)


def found(name, record):
    """How many nuclei score enough, and their F1 as label image."""
    config, params = load_model(name)
    result = Predictor(config, params)(record.image)
    sure = result.take(np.flatnonzero(result.scores >= config.detection.min_score))
    return len(sure), summarize(tally(record.layers[0].astype(np.int32), sure.label_map()))["F1@0.5"]


@pytest.mark.parametrize(
    ("name", "image", "count", "f1"),
    [("nuclei", "fluorescence", 46, 0.98), ("nuclei", "tissue", 70, 0.61), ("nuclei-he", "tissue", 60, 0.57)],
)
def test_the_count_and_f1_are_those_of_the_card(samples, name, image, count, f1):
    record = next(record for record in samples if record.name == image)
    number, score = found(name, record)
    # Another processor may round a detection over a threshold.
    assert abs(number - count) <= 1 and abs(score - f1) < 0.02
    card = next(model for model in models() if model.name == name).folder.joinpath("card.md").read_text()
    assert re.search(rf"{count}( found)? of {len(record.classes)}[^;]*F1 {f1}", card), (
        "the card says otherwise"
    )


def test_one_picture_at_two_scales_has_the_same_nuclei(samples, tmp_path):
    """At 0.25 µm a pixel, the model's own, and at 0.5, where half of what the picture shows is lost."""
    config, params = load_model("nuclei-he")
    predictor = Predictor(config, params)
    picture = Image.fromarray(next(r.image for r in samples if r.name == "tissue")).crop((0, 0, 160, 160))

    def find(picture, mpp, scale):
        dots = round(10_000 / mpp)
        options = {"photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
        tifffile.imwrite(tmp_path / "x.tif", np.asarray(picture), resolution=(dots, dots), **options)
        with open_source(tmp_path / "x.tif") as source:
            zoom, _ = scale.of(source)
            (found,) = predictor.batch([source.read(0, 0, *source.size)], zoom=zoom)
        labels = found.take(np.flatnonzero(found.scores >= config.detection.min_score)).label_map()
        return labels.repeat(round(mpp / 0.25), axis=0).repeat(round(mpp / 0.25), axis=1)

    fine = find(picture, 0.25, Scale(config.mpp))
    coarse = find(picture.reduce(2), 0.5, Scale(config.mpp))
    assert predictor.compilations == 1, "the model sees both as large"
    unscaled = find(picture.reduce(2), 0.5, Scale(config.mpp, zoom=1))
    assert share_found(fine, coarse) > 0.75 and share_found(coarse, fine) > 0.85
    assert share_found(fine, unscaled) < 0.5


def share_found(labels, others):
    """Of the nuclei in a label image, how many another has, too, with IoU 0.5."""
    names = np.unique(labels[labels > 0])
    pairs = ((labels == n, others == m) for n in names for m in np.unique(others[labels == n]) if m)
    return sum((a & b).sum() >= 0.5 * (a | b).sum() for a, b in pairs) / len(names)


def test_each_has_its_card_licence_and_a_failure_and_is_small():
    for model in models():
        names = {path.name for path in model.folder.iterdir()}
        assert {"card.md", "LICENSE", "config.json", "model.safetensors"} <= names
        assert any(name.startswith("failure_") for name in names)
        assert model.megabytes < 20.5 and model.about["licence"]
