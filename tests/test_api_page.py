"""The page of the API has every public name, and no other name that does not exist."""

import importlib
import re
from pathlib import Path

import maskrcnn_jax

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
NAMES = re.findall(r"^::: (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_public_name_is_on_the_page():
    assert set(maskrcnn_jax.__all__) <= {name.rsplit(".", 1)[1] for name in NAMES}
    assert set(maskrcnn_jax.__all__) == set(maskrcnn_jax._PUBLIC)


def test_every_name_on_the_page_exists_and_is_explained():
    for name in NAMES:
        module, attribute = name.rsplit(".", 1)
        assert getattr(importlib.import_module(module), attribute).__doc__
