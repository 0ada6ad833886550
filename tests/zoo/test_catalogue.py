"""Models by name: listed, loaded, their terms told, and a misspelt name answered with the nearest."""

import logging

import jax
import numpy as np
import pytest
from tiny_config import get_config

import maskrcnn_jax
from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.zoo import catalogue, load_model, models, resolve

ABOUT = {
    "summary": "nuclei in H&E",
    "licence": "CC BY-NC-SA 4.0",
    "metrics": {"AJI": 0.61},
    "object_size": 20.9,
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two models: one free, one restricted."""
    config = MaskRCNNConfig.from_dict(get_config().model.to_dict())
    params = jax.device_get(init_params(config, jax.random.key(0)))
    save_bundle(tmp_path / "nuclei", config, params, half=True, about={"licence": "CC0"})
    save_bundle(tmp_path / "nuclei-he", config, params, about=ABOUT | {"terms": "for research use only"})
    (tmp_path / "__pycache__").mkdir()
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    return config, params


def test_a_model_is_loaded_by_its_name(shelf, caplog):
    config, params = load_model("nuclei-he")
    assert config == shelf[0]
    jax.tree.map(np.testing.assert_array_equal, params, shelf[1])
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage() == "nuclei-he: for research use only"
    caplog.clear()
    maskrcnn_jax.load_model("nuclei")
    assert not caplog.records


@pytest.mark.parametrize("name", ["nuclei_he", "nucleihe"])
def test_an_unknown_name_gives_the_nearest(shelf, name):
    with pytest.raises(ValueError, match=r"did you mean 'nuclei-he'.*there are nuclei, nuclei-he"):
        load_model(name)
    assert resolve(name) is None and resolve("nuclei").is_dir()


def test_all_are_listed_with_licence_terms_size_and_metrics(shelf, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert [model.name for model in models()] == ["nuclei", "nuclei-he"]
    assert models()[0].megabytes < models()[1].megabytes
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    for word in (
        "nuclei-he",
        "CC0",
        "CC BY-NC-SA 4.0",
        "for research use only",
        "AJI 0.61",
        "median size 20.9 px",
        "card.md",
    ):
        assert word in said
