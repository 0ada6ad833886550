"""The guides in docs/: every command and every block of Python runs, on less data and with a tiny model."""

import argparse
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_config

from maskrcnn_jax.commands import predict

ROOT = Path(__file__).parents[1]
# In this order, as a reader would follow them: what one leaves the next uses.
GUIDES = ("train_your_own", "fine_tune", "slides_qupath", "python")
# What makes a guide's commands quick; each must be in a guide, or it has been forgotten here.
SMALLER = {
    "sample --out nuclei": "sample --out nuclei --images 5 --size 64",
    "sample --out slide.tif": "sample --out slide.tif --size 300",
    "--bundle runs/mine/bundle slide.tif": "--bundle runs/mine/bundle slide.tif --tile 160",
    "tile=1024": "tile=160",
    "configs/nuclei_small.py:scratch": "tiny.py",
    "configs/nuclei_he.py:few": "tiny.py",
}
# The experiment that stands in for `nuclei_small.py:scratch`.
TINY = """
from ml_collections import ConfigDict
from tiny_config import get_config as tiny


def get_config():
    config = tiny()
    fields = {name: config.data[name] for name in ("augment", "canvas", "max_instances")}
    config.data = ConfigDict({"format": "mask_folder", "path": "", "validation_images": 1, **fields})
    config.steps = config.checkpoint_every = 30
    return config
"""
MADE = (
    "nuclei/drawn_0004/masks/0000.png",
    *(
        f"runs/mine/evaluation/{name}"
        for name in ("metrics.json", "images.csv", "curves.png", "results.json")
    ),
    "runs/mine/evaluation/overlay_drawn_0004.png",
    *(f"predictions/drawn_0000{ending}" for ending in ("_labels.tif", ".csv", ".geojson", "_overlay.png")),
    "predictions/coco_results.json",
    "compared/metrics.json",
    "runs/fine/bundle/model.safetensors",
    "fine_predictions/coco_results.json",
    *(f"slide_results/slide{ending}" for ending in (".geojson", ".csv", "_overlay.png")),
    "overlay.png",
    "nuclei.geojson",
)


def blocks(guide):
    """Language and text of each fenced block."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def smaller(text):
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder that looks like the repository to whoever types a command in it, and its environment."""
    folder = tmp_path_factory.mktemp("guides")
    for name in ("train.py", "evaluate.py", "configs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tiny.py").write_text(TINY)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "tests"),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    return folder, environment


def run(command, folder, environment):
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_the_guides_run_from_end_to_end(workspace):
    for guide in GUIDES:
        found = [(language, smaller(text)) for language, text in blocks(guide)]
        for language, text in found:
            if language == "sh":
                run(["bash", "-euo", "pipefail", "-c", text], *workspace)
        if python := "\n".join(text for language, text in found if language == "python"):
            run([sys.executable, "-W", "error", "-c", python], *workspace)
    missing = [path for path in MADE if not (workspace[0] / path).is_file()]
    assert not missing


def test_every_block_is_known_and_every_substitution_used():
    everything = [block for guide in GUIDES for block in blocks(guide)]
    assert {language for language, _ in everything} == {"sh", "python", "groovy"}, "groovy is QuPath's"
    text = "\n".join(text for _, text in everything)
    assert [large for large in SMALLER if large not in text] == []


def test_what_other_tools_users_are_told_to_type_exists():
    """The last column of each table: fields of a config, options of `predict`, imports."""
    text = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    cells = [line.rstrip(" |").rpartition(" | ")[2] for line in text.splitlines() if line.startswith("| ")]
    spans = re.findall(r"`([^`]+)`", "\n".join(cells))
    words = " ".join(spans).split()
    fields = [word.removeprefix("--config.").partition("=")[0] for word in words]
    known = r"init_from|(model|schedule|data)\.[\w.]+(?<!\.pkl)(?<!\.pth)"  # which two are files
    fields = [field for field in fields if re.fullmatch(known, field)]
    assert len(fields) > 10
    for field in fields:
        operator.attrgetter(field)(tiny_config.get_config())
    imports = [span for span in spans if span.startswith("from ")]
    assert len(imports) > 1
    for statement in imports:
        exec(statement, {})
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    options = [span for span in spans if re.fullmatch("--[a-z-]+", span)]
    assert set(options) == {"--min-score", "--channel"} <= set(parser.format_help().replace(",", " ").split())


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken
