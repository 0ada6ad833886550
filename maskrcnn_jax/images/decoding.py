"""Image and label files as arrays: PNG, JPEG, TIFF, BMP and NPY, with a fault for whatever is none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Int, Shaped, UInt8
from PIL import Image, ImageOps

from maskrcnn_jax.errors import DataError, Fault, MissingPackage, UserError
from maskrcnn_jax.files import require_regular
from maskrcnn_jax.images.choice import ALL, Choice, ChoiceError
from maskrcnn_jax.images.intensity import stretch_grey
from maskrcnn_jax.images.pixels import as_rgb
from maskrcnn_jax.images.tiff import SUFFIXES, Tiff, is_plain, open_tiff

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")

# On damaged files Pillow, tifffile and the decoders below them raise whatever comes: struct.error,
# IndexError, MemoryError for a side of a billion pixels. So all of it is caught, around the decoding alone.
UNREADABLE = (Exception,)
_RGB_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def read_image(path: str | os.PathLike, choice: Choice = ALL) -> UInt8[np.ndarray, "H W 3"]:
    """One image file as RGB.

    Grey and palette images are spread over the channels, 16-bit values keep their high byte (grey ones are
    stretched, if that is chosen), values of types without range become levels by the image's percentiles, and
    transparency is dropped: a pixel keeps its stored colour. A photograph that says how the camera was held
    is turned upright, as viewers, annotation tools and Detectron2 show it.

    Args:
      path: the file.
      choice: what to read of a TIFF with several series, planes or channels.

    Raises:
      DataError: names the file that cannot be read and says why, or lists what can be chosen in it.
    """
    image = read_deep(path, choice)
    return as_rgb(stretch_grey(image) if choice.stretch_grey and image.dtype.itemsize > 1 else image)


def read_deep(path: str | os.PathLike, choice: Choice = ALL) -> Shaped[np.ndarray, "H W *C"]:
    """As `read_image`, but grey ones may stay (H, W), and values of more than 8 bits keep 16.

    Raises:
      DataError: as `read_image`.
    """
    path = Path(path)
    try:
        require_regular(path)
        if path.suffix.lower() in SUFFIXES and path.stat().st_size:
            with open_tiff(path) as file:
                if not is_plain(file):
                    tiff = Tiff(file, choice)
                    return tiff.read_deep(0, 0, *tiff.size)
        return choice.of_plain(_pixels_of_file(path))
    except UNREADABLE as error:
        raise DataError([unreadable(path, error)]) from error


def decode_image(code: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """As `read_image`, from the bytes of a file that Pillow reads."""
    return as_rgb(_pixels_of_file(io.BytesIO(code)))


def read_labels(path: str | os.PathLike) -> Int[np.ndarray, "H W"]:
    """One label image: whole numbers, 0 for the background. A palette image gives its indices.

    Whole numbers may be stored as floats, and one axis of length 1 may stand before or after the others.

    Raises:
      DataError: names the file that cannot be read, or is no label image, and says why.
    """
    path = Path(path)
    try:
        require_regular(path)
        if path.suffix.lower() == ".npy":
            labels = _npy_array(path)
        elif path.suffix.lower() in SUFFIXES and not _pillow_reads_exactly(path):
            labels = _tiff_page(path)
        else:
            with Image.open(path) as image:
                require_one_page(image)
                labels = np.asarray(image)
    except UNREADABLE as error:
        raise DataError([unreadable(path, error, "a 16-bit PNG")]) from error
    if labels.ndim == 3 and 1 in (labels.shape[0], labels.shape[2]):
        labels = labels.squeeze(0 if labels.shape[0] == 1 else 2)
    if labels.dtype.kind == "f" and (np.abs(labels) < np.float64(2**53)).all() and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 2 or 0 in labels.shape or labels.dtype.kind not in "bui":
        what = f"is no label image: {labels.dtype} of shape {labels.shape}"
        raise DataError([Fault(str(path), what, "save one whole number a pixel, 0 for the background")])
    if labels.dtype.kind == "i" and labels.min() < 0:
        remedy = "use 0 for the background and what is not labelled"
        raise DataError([Fault(str(path), f"holds the label {labels.min()}", remedy)])
    return labels


def image_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The files of a folder with these suffixes, sorted; hidden ones are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and is_visible_file(p))


def is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def unexpected_files(folder: Path, suffixes: tuple[str, ...]) -> list[Fault]:
    """What lies in a folder of images and is none of these types."""
    others = (p for p in sorted(folder.iterdir()) if is_visible_file(p) and p.suffix.lower() not in suffixes)
    remedy = f"move it away, or save it as one of {', '.join(suffixes)}"
    return [Fault(str(path), "is a file of a type that is not read here", remedy) for path in others]


def unreadable(path: Path, error: Exception, safe: str = "an 8-bit PNG") -> Fault:
    """The fault of a file that raised one of `UNREADABLE`; `safe` is what surely can be read."""
    if isinstance(error, ChoiceError):
        return Fault(str(path), error.what, error.remedy)
    if not path.exists():
        return Fault(str(path), "cannot be read: it is not there", "restore the file or correct its name")
    if isinstance(error, OSError) and not path.is_file():
        return Fault(str(path), f"cannot be read: {error.strerror}", "copy what it gives into a file")
    if path.stat().st_size == 0:
        return Fault(str(path), "cannot be read: it has zero bytes", "copy it again from its source")
    if "imagecodecs" in str(error):
        missing = MissingPackage("imagecodecs")
        return Fault(str(path), missing.what, missing.remedy)
    what = str(error).replace(str(path), path.name) or type(error).__name__
    remedy = f"copy it again from its source; if it is whole, save it as {safe}"
    return Fault(str(path), f"cannot be read: {what}", remedy)


def _pixels_of_file(file: Path | io.BytesIO) -> Shaped[np.ndarray, "H W *C"]:
    """RGB, or grey of 16 bits."""
    with Image.open(file) as image:
        require_one_page(image)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16, copy=False)  # in the machine's byte order
        if image.mode not in _RGB_MODES:
            raise UserError(f"its pixels are {image.mode!r}, which has no fixed range")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def require_one_page(image: Image.Image) -> None:
    """Raises ValueError where an open file holds a stack: Pillow would show its first page."""
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"it holds {image.n_frames} pages, expected one")


def _npy_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY" and path.stat().st_size:
            raise UserError("it is no array; a pickle is never opened")  # np.load would offer to
    return np.load(path, allow_pickle=False)


def _pillow_reads_exactly(path: Path) -> bool:
    """Whether a label TIFF has at most 16 bits; Pillow also knows the compressions that tifffile lacks."""
    if path.stat().st_size == 0:
        return True  # it has the better message
    with tifffile.TiffFile(path) as file:
        return file.pages[0].dtype in (np.bool_, np.uint8, np.uint16) and len(file.pages[0].shape) == 2


def _tiff_page(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) > 1:
            raise UserError(f"it holds {len(file.pages)} pages, expected one")
        return file.pages[0].asarray()
