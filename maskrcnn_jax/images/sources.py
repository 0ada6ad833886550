"""Images that are read window by window: arrays, image files, tiled TIFF and whole slides.

A window of a large file costs the file's own tiles that it touches; no more is ever decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from maskrcnn_jax.errors import DataError, Fault, MissingPackage, UserError
from maskrcnn_jax.files import require_regular
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.decoding import UNREADABLE, read_deep, unreadable
from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.images.ome_zarr import OmeZarr, is_ome_zarr
from maskrcnn_jax.images.pixels import fault_of
from maskrcnn_jax.images.scale import of_slide, of_tiff
from maskrcnn_jax.images.tiff import SUFFIXES as TIFF_SUFFIXES
from maskrcnn_jax.images.tiff import Tiff, is_plain, is_small, open_tiff

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".czi", ".dcm")


def open_source(
    image: str | os.PathLike[str] | Shaped[np.ndarray, "H W *C"], choice: Choice = ALL
) -> ImageSource:
    """Opens whatever holds an image; of a pyramid, its finest level.

    Args:
      image: an array as `Predictor` takes it (also memory-mapped), or a file: PNG, JPEG, BMP, TIFF, a slide
        in a format of OpenSlide, or the folder of an OME-Zarr, whose name ends in `.zarr`.
      choice: what to read of a file with several series, planes or channels.

    Raises:
      UserError: the array is no image.
      DataError: names the file that cannot be read and says why, or which package it needs.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        with _faults_of(path):
            if is_ome_zarr(path):
                return _ZarrSource(path, choice)
            require_regular(path)
            if path.suffix.lower() in SLIDE_SUFFIXES:
                return _SlideSource(path, choice)
            if large := _large_tiff(path, choice):
                return large
            mpp = _mpp_of_tiff(path, choice)
        return _ArraySource(read_deep(path, choice), _file_fingerprint(path, choice), mpp)
    if fault := fault_of(image):
        raise UserError(f"this image cannot be read: {fault}")
    return _ArraySource(image)


class _ArraySource(ImageSource):
    def __init__(
        self, pixels: Shaped[np.ndarray, "H W *C"], fingerprint: str | None = None, mpp: float | None = None
    ):
        self.mpp = mpp
        self.size = tuple(pixels.shape[:2])
        self._pixels = pixels
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """Hashed on demand, row by row: the array may be mapped from a file larger than memory."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{self._pixels.dtype} {self._pixels.shape}".encode())
            for row in self._pixels:
                digest.update(np.ascontiguousarray(row).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        return np.asarray(self._pixels[top : top + height, left : left + width])


class _TiffSource(ImageSource):
    """The finest level of a TIFF; a window decodes only the file's tiles that it touches."""

    def __init__(self, path: Path, stack: contextlib.ExitStack, tiff: Tiff, choice: Choice):
        """Takes over the open file: `stack` closes it."""
        try:
            stack.enter_context(tiff.stream())
        except ImportError as error:
            stack.close()
            raise _missing(path, "zarr") from error
        self._tiff, self._open = tiff, stack
        self.size, self.mpp = tiff.size, tiff.mpp
        self._path, self.fingerprint = path, _file_fingerprint(path, choice)

    @property
    def levels(self) -> list[tuple[int, int]]:
        return self._tiff.levels

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        with _faults_of(self._path):
            return self._tiff.read_deep(top, left, height, width, level=level)

    def close(self) -> None:
        self._open.close()


class _ZarrSource(ImageSource):
    def __init__(self, path: Path, choice: Choice):
        try:
            self._image = OmeZarr(path, choice)
        except ImportError as error:
            raise _missing(path, "zarr") from error
        self._path, self.size, self.mpp = path, self._image.size, self._image.mpp
        self.fingerprint = self._image.fingerprint

    @property
    def levels(self) -> list[tuple[int, int]]:
        return self._image.levels

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        with _faults_of(self._path):
            return self._image.read_deep(level, top, left, height, width)


class _SlideSource(ImageSource):
    """A slide that OpenSlide reads; what the scanner left out gets the background colour."""

    def __init__(self, path: Path, choice: Choice):
        try:
            import openslide
        except ImportError as error:
            raise _missing(path, "openslide") from error
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise UserError(f"OpenSlide says: {error}") from error
        width, height = self._slide.dimensions
        colour = self._slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        self.size, self.mpp = (height, width), of_slide(self._slide.properties)
        self._background = f"#{colour}"
        choice.of_plain(np.zeros((1, 1, 3), np.uint8))
        self._choice = choice
        self._path, self.fingerprint = path, _file_fingerprint(path, choice)

    @property
    def levels(self) -> list[tuple[int, int]]:
        return [size[::-1] for size in self._slide.level_dimensions]

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        from openslide import OpenSlideError

        with _faults_of(self._path):
            try:
                ratio = self._slide.level_downsamples[level]
                corner = round(left * ratio), round(top * ratio)
                region = self._slide.read_region(corner, level, (width, height))
            except OpenSlideError as error:
                raise UserError(f"OpenSlide says: {error}") from error
        canvas = Image.new("RGB", region.size, self._background)
        canvas.paste(region, mask=region.getchannel("A"))
        return self._choice.of_plain(np.asarray(canvas))

    def close(self) -> None:
        slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()


@contextlib.contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one error that names the file."""
    try:
        yield
    except DataError:
        raise
    except (*UNREADABLE, RuntimeError) as error:  # The last is what image codecs raise.
        raise DataError([unreadable(path, error)]) from error


def _large_tiff(path: Path, choice: Choice) -> ImageSource | None:
    """Of a TIFF that is not decoded whole, its source."""
    if path.suffix.lower() not in TIFF_SUFFIXES or path.stat().st_size == 0:
        return None  # `read_image` has the better message.
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_tiff(path))
        if is_plain(file) and is_small(file):
            return None
        tiff = Tiff(file, choice)
        return _TiffSource(path, stack.pop_all(), tiff, choice) if tiff.is_large else None


def _mpp_of_tiff(path: Path, choice: Choice) -> float | None:
    """Of one that is decoded whole; None for other files."""
    if path.suffix.lower() not in TIFF_SUFFIXES or path.stat().st_size == 0:
        return None
    with open_tiff(path) as file:
        return of_tiff(file, choice.series or 0, file.pages[0])


def _missing(path: Path, module: str) -> DataError:
    missing = MissingPackage(module)
    return DataError([Fault(str(path), missing.what, missing.remedy)])


def _file_fingerprint(path: Path, choice: Choice) -> str:
    """From the file's length and blocks all over it: a slide of gigabytes is not read twice."""
    length = path.stat().st_size
    digest = hashlib.sha256((str(length) if choice == ALL else f"{length} {choice}").encode())
    with path.open("rb") as file:
        for place in np.linspace(0, max(length - 65536, 0), 32, dtype=np.int64).tolist():
            file.seek(place)
            digest.update(file.read(65536))
    return digest.hexdigest()
