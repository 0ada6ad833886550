"""Bundles: a model to hand on, as a folder of `config.json` and `model.safetensors`.

`config.json` holds `format`, `version`, `package` (which release wrote it), `sha256` (of the weights'
file), `config`, and `about`, what its maker says of the model. The weights are named by their paths joined by
"/"; they are float32, or, where a bundle is to be small, float16 but for variances, which go beyond it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

import maskrcnn_jax
from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.documents import DocumentError, read_json
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop.trees import (
    Flat,
    Tree,
    expected_shapes,
    flatten,
    mismatches,
    nest,
    non_finite,
    shapes,
)

FORMAT = "maskrcnn_jax bundle"
VERSION = 2  # 1 knew neither float16 nor `about`
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_DEFAULTS = {"about": {}}  # of fields that version 1 did not have


class BundleError(UserError):
    """A bundle cannot be read or written; the message says which file, what is wrong and what to do."""


def save_bundle(
    folder: str | os.PathLike,
    config: MaskRCNNConfig,
    params: Tree,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a bundle, replacing the one that may be there.

    Everything is written beside `folder` first and moved in place at the end: a reader never meets half
    a bundle, and a crash leaves the old one.

    Args:
      folder: of the bundle; its parents are made.
      config: of the model.
      params: nested dicts of float32 arrays.
      half: all but variances is rounded to float16, which halves the file.
      about: plain values that `read_about` gives back.

    Raises:
      BundleError: a tensor is not float32, not finite (as float16, where `half`) or not the config's; or
        `folder` holds something else than a bundle.
    """
    folder = Path(folder).absolute()
    flat = _fit(folder, config, params, half)
    if folder.exists() and not _is_replaceable(folder):
        raise BundleError(f"{folder} exists and is no bundle: choose another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        save_file(flat, new / WEIGHTS_FILE)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "package": maskrcnn_jax.__version__,
            "sha256": _digest(new / WEIGHTS_FILE),
            "config": config.to_dict(),
            "about": dict(about or {}),
        }
        (new / CONFIG_FILE).write_text(json.dumps(header, indent=2) + "\n")
        # safetensors writes for the owner alone; a bundle is to be handed on.
        (new / WEIGHTS_FILE).chmod((new / CONFIG_FILE).stat().st_mode)
        _swap(new, folder)


def _fit(folder: Path, config: MaskRCNNConfig, params: Tree, half: bool) -> Flat:
    """The tensors as they are written; all that makes them unfit for it is told at once."""
    flat = {path: np.ascontiguousarray(array) for path, array in flatten(params).items()}
    faults = [
        f"{path}: {array.dtype}, not float32" for path, array in flat.items() if array.dtype != np.float32
    ]
    if half:
        with np.errstate(over="ignore"):  # told below as not finite
            flat = {path: a if path.endswith("/var") else a.astype(np.float16) for path, a in flat.items()}
    faults = (faults or non_finite(flat)) + mismatches(expected_shapes(config), shapes(flat))
    if faults:
        raise BundleError(_listing(f"{folder}: these parameters are not fit for a bundle", faults))
    return flat


def load_bundle(folder: str | os.PathLike) -> tuple[MaskRCNNConfig, Tree]:
    """Reads and checks a bundle.

    Returns:
      The model's configuration and its parameters, nested dicts of NumPy arrays, float32 in any case.

    Raises:
      BundleError: a file is missing, damaged, of a newer version, or its tensors do not fit the config.
    """
    folder = Path(folder)
    header = _read_header(folder)
    config = _config_of(folder, header)
    flat = _read_weights(folder / WEIGHTS_FILE, header["sha256"])
    faults = mismatches(expected_shapes(config), shapes(flat))
    if faults:
        raise BundleError(_listing(f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}; restore it", faults))
    return config, nest(flat)


def read_config(folder: str | os.PathLike) -> MaskRCNNConfig:
    """The configuration of the bundle's model, without its weights. Raises as `load_bundle`."""
    return _config_of(Path(folder), _read_header(Path(folder)))


def read_about(folder: str | os.PathLike) -> dict[str, Any]:
    """What the bundle's maker says of the model; empty where nothing is said. Raises as `load_bundle`."""
    return _read_header(Path(folder))["about"]


def _read_header(folder: Path) -> dict[str, Any]:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder} is no bundle: {' and '.join(missing)} not found there; check the path")
    path = folder / CONFIG_FILE
    try:
        header = read_json(path)
    except DocumentError as error:
        raise BundleError(f"{path} is damaged: it {error.what}; copy or save the bundle again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BundleError(f"{path} is of another kind: its field 'format' is not '{FORMAT}'; check the path")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: version {version!r} is no positive number; save the bundle again")
    if version > VERSION:
        raise BundleError(
            f"{path}: format version {version}, written by maskrcnn_jax {header.get('package')}; this is "
            f"{maskrcnn_jax.__version__}, which reads up to version {VERSION}: upgrade maskrcnn_jax"
        )
    header = _DEFAULTS | header
    kinds = {"config": dict, "sha256": str, "about": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(header.get(name), kind)]
    if wrong:
        raise BundleError(f"{path}: {' and '.join(wrong)} missing or of another type; save the bundle again")
    return header


def _config_of(folder: Path, header: dict[str, Any]) -> MaskRCNNConfig:
    try:
        return MaskRCNNConfig.from_dict(header["config"])
    except ValueError as error:
        raise BundleError(
            f"{folder / CONFIG_FILE}: {error}\nCorrect these fields or save it again."
        ) from error


def _read_weights(path: Path, sha256: str) -> Flat:
    try:
        flat = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"{path} is damaged or cut short ({error}): copy or save the bundle again"
        ) from error
    if _digest(path) != sha256:
        raise BundleError(
            f"{path} is not the file that {CONFIG_FILE} was written with (its sha256 differs): "
            "copy or save the bundle again"
        )
    faults = [
        f"{path}: {array.dtype}, neither float32 nor float16"
        for path, array in flat.items()
        if array.dtype not in (np.float32, np.float16)
    ]
    faults = faults or non_finite(flat)
    if faults:
        raise BundleError(_listing(f"{path}: unusable tensors; save the bundle again", faults))
    return {path: array.astype(np.float32, copy=False) for path, array in flat.items()}


def _listing(title: str, faults: list[str]) -> str:
    return "\n  ".join([title, *faults])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_replaceable(folder: Path) -> bool:
    """Whether `folder` holds a bundle, whole or broken, or nothing: other people's files are not deleted."""
    return folder.is_dir() and {item.name for item in folder.iterdir()} <= {CONFIG_FILE, WEIGHTS_FILE}


def _swap(new: Path, folder: Path) -> None:
    """Moves `new` to `folder`; folders cannot be renamed over full ones, so the old one steps aside."""
    if not folder.exists():
        new.rename(folder)
        return
    old = new.with_name("old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
