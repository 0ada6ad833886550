"""OME-Zarr 0.4 and 0.5: images of many levels in folders of chunks; a window reads what it touches."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from maskrcnn_jax.documents import read_json
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.choice import ALL, Choice, ChoiceError, View
from maskrcnn_jax.images.levels import Levels, levels_of
from maskrcnn_jax.images.scale import of_axes
from maskrcnn_jax.images.windows import sample_windows

# Codecs that only move and compress bytes. Zarr knows others, among them one that unpickles.
_CODECS = (
    "blosc",
    "bytes",
    "bz2",
    "crc32c",
    "delta",
    "gzip",
    "lz4",
    "lzma",
    "shuffle",
    "transpose",
    "zlib",
    "zstd",
)
_CODECS += ("sharding_indexed", "default", "v2")
_RGB = ("FF0000", "00FF00", "0000FF")


class OmeZarr:
    """The image in a folder.

    Attributes:
      size: height and width in pixels.
      levels: of its pyramid, `size` first.
      mpp: how many µm a pixel is long; None if the folder does not say.
      fingerprint: of its metadata, and of pixels all over it.
    """

    def __init__(self, folder: Path, choice: Choice = ALL):
        """Finds the image; its pixels are not read yet.

        Raises:
          ImportError: there is no Zarr.
          ChoiceError: there are several and none is chosen, or it is none of those that are read.
          UserError: the folder is no OME-Zarr, or its arrays need a codec that is not read.
        """
        import zarr

        folder, ome = _image_of(folder, choice)
        image = ome["multiscales"][0]
        axes = _letters(image["axes"], ome)
        places = [folder / _inside(dataset["path"]) for dataset in image["datasets"]]
        documents = [_require_harmless(place) for place in places]
        arrays = [zarr.open_array(place, mode="r") for place in places]
        self._views = [View(array, axes, choice) for array in arrays]
        self._dtype = arrays[0].dtype
        if self._dtype.kind not in "biuf":
            raise ChoiceError(f"has values of the type {self._dtype}", "save it with plain numbers")
        self.size = self._views[0].size
        self.mpp = of_axes(image["axes"], _scales(image, image["datasets"][0]))
        self._levels: Levels | None = None
        self.fingerprint = self._hash(f"{image} {documents} {choice}")

    @property
    def levels(self) -> list[tuple[int, int]]:
        return [view.size for view in self._views]

    def read_deep(
        self, level: int, top: int, left: int, height: int, width: int
    ) -> Shaped[np.ndarray, "h w *C"]:
        """A window of a level, grey or RGB, with 16 bits where there are more than 8."""
        if self._levels is None:
            self._levels = levels_of(self._dtype, self._views[0])
        return self._levels.deep(self._views[level].read(top, left, height, width))

    def _hash(self, text: str) -> str:
        digest = hashlib.sha256(text.encode())
        for window in sample_windows(self.size, squares=4, side=64, most=0):
            digest.update(np.ascontiguousarray(self._views[0].read(*window)).data)
        return digest.hexdigest()


def is_ome_zarr(folder: Path) -> bool:
    """Whether a folder is meant as one image."""
    return folder.suffix.lower() == ".zarr" and folder.is_dir()


def _image_of(folder: Path, choice: Choice) -> tuple[Path, dict[str, Any]]:
    """The folder of a multiscale image, and its metadata; in collections of bioformats2raw, of a series."""
    ome = _attributes(folder)
    if "multiscales" in ome:
        if choice.series:
            raise ChoiceError("holds one image alone", "leave out --series, or choose 0")
        return folder, ome
    series = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())
    if not series:
        raise UserError("it is no image of OME-Zarr: there are no multiscales in its attributes")
    if choice.series is None and len(series) > 1:
        listed = ", ".join(map(str, series[:20]))
        raise ChoiceError(f"holds {len(series)} series ({listed})", "choose one with --series N")
    chosen = series[0] if choice.series is None else choice.series
    if chosen not in series:
        raise ChoiceError(f"has no series {chosen}", f"choose from {', '.join(map(str, series[:20]))}")
    return folder / str(chosen), _attributes(folder / str(chosen))


def _attributes(folder: Path) -> dict[str, Any]:
    """What OME has written, of version 0.4 or 0.5."""
    if (folder / "zarr.json").is_file():
        return read_json(folder / "zarr.json").get("attributes", {}).get("ome", {})
    return read_json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}


def _letters(axes: list[dict[str, Any]], ome: dict[str, Any]) -> str:
    """A letter an axis; S for channels that are red, green and blue of one picture."""
    letters = "".join(axis["name"].upper() for axis in axes)
    channels = ome.get("omero", {}).get("channels", [])
    colours = tuple(str(channel.get("color", "")).upper() for channel in channels)
    return letters.replace("C", "S") if colours == _RGB else letters


def _scales(image: dict[str, Any], dataset: dict[str, Any]) -> list[float]:
    """Length of a pixel along each axis."""
    scales = np.ones(len(image["axes"]))
    for transform in (
        *dataset.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ):
        if transform["type"] == "scale":
            scales = scales * transform["scale"]
    return scales.tolist()


def _inside(path: str) -> Path:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise UserError(f"its metadata name {path}, which is not in its folder")
    return Path(path)


def _require_harmless(folder: Path) -> dict[str, Any]:
    """The metadata of an array, none of whose codecs does more than compress."""
    name = next((name for name in ("zarr.json", ".zarray") if (folder / name).is_file()), None)
    if name is None:
        raise UserError(f"its metadata name an array {folder.name}, which is not there")
    document = read_json(folder / name)
    parts = [document.get("compressor"), *(document.get("filters") or ()), *(document.get("codecs") or ())]
    for codec in _codecs([part for part in parts if part]):
        if codec.removeprefix("numcodecs.") not in _CODECS:
            raise UserError(f"its array {folder.name} needs the codec {codec!r}, which is not read")
    return document


def _codecs(parts: list[Any]) -> list[str]:
    """The names of codecs, and of those inside of them."""
    names = []
    for part in parts:
        names.append(str(part.get("id") or part.get("name")))
        inner = part.get("configuration") or {}
        names += _codecs([*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())])
    return names
