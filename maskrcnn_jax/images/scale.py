"""How many µm a pixel of an image is long, as far as its file says."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tifffile

# What microscopes and scanners have. A TIFF's resolution is more often that of a printer: 300 dots an inch
# are 85 µm a pixel.
_PLAUSIBLE = (0.01, 30.0)
_MICROMETRES = {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "nanometer": 1e-3, "millimeter": 1e3, "micrometer": 1.0}
_MICROMETRES |= dict.fromkeys(
    ("\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "um", "micron", "microns"), 1.0
)
_MICRO = ("&#181;", "&#xB5;", "\\u00B5")  # in XML, and as ImageJ writes it
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0}  # of TIFF, in µm: inch and centimetre


def of_slide(properties: Mapping[str, str]) -> float | None:
    """From what OpenSlide says of a slide."""
    return _mean(properties.get(f"openslide.mpp-{axis}") for axis in "xy")


def of_axes(axes: Sequence[Mapping[str, Any]], scales: Sequence[float]) -> float | None:
    """From OME-Zarr's axes and their scales."""
    lengths = {
        axis.get("name"): _micrometres(axis.get("unit")) * scale
        for axis, scale in zip(axes, scales, strict=True)
    }
    return _mean(lengths.get(axis) for axis in "xy")


def of_tiff(file: tifffile.TiffFile, series: int, page: tifffile.TiffPage) -> float | None:
    """From OME-XML, ImageJ's unit, Aperio's description, or the resolution, whichever says it first.

    Args:
      file: the file.
      series: number of the one that is read.
      page: its first.
    """
    with contextlib.suppress(Exception):  # whatever damaged tags make tifffile raise
        return _of_tiff(file, series, page)
    return None


def _of_tiff(file: tifffile.TiffFile, series: int, page: tifffile.TiffPage) -> float | None:
    resolution = [_ratio(page.tags.get(f"{axis}Resolution")) for axis in "XY"]
    if file.ome_metadata:
        return _of_ome(file.ome_metadata, series)
    if file.is_imagej:
        unit = _micrometres((file.imagej_metadata or {}).get("unit"))
        return _mean(unit / pixels for pixels in resolution if pixels)
    if found := re.search(r"\bMPP\s*=\s*([\d.]+)", page.description[:100_000]):
        return _mean([found[1]])
    tag = page.tags.get("ResolutionUnit")
    unit = _RESOLUTION_UNITS.get(int(tag.value) if tag else 0, math.nan)
    return _mean(unit / pixels for pixels in resolution if pixels)


def _of_ome(xml: str, series: int) -> float | None:
    """By the tags alone: what a file says of itself is not expanded."""
    images = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if series >= len(images):
        return None
    attributes = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", images[series]))
    lengths = []
    for axis in "XY":
        unit = _micrometres(attributes.get(f"PhysicalSize{axis}Unit", "um"))
        lengths.append(unit * _number(attributes.get(f"PhysicalSize{axis}")))
    return _mean(lengths)


def _micrometres(unit: Any) -> float:
    name = str(unit)
    for code in _MICRO:
        name = name.replace(code, "u")
    return _MICROMETRES.get(name, math.nan)


def _ratio(tag: Any) -> float:
    """Pixels a unit; 0 where there is no such tag."""
    try:
        above, below = tag.value
        return above / below
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _mean(lengths: Iterable[Any]) -> float | None:
    """Of both axes; None where one is missing, or is no length of a microscope's pixel."""
    numbers = [_number(length) for length in lengths]
    good = numbers and all(_PLAUSIBLE[0] <= number <= _PLAUSIBLE[1] for number in numbers)
    return sum(numbers) / len(numbers) if good else None


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
