"""Draws H&E-like images with nuclei, so that everything can be tried and tested without any data.

A stained section absorbs light: haematoxylin colours nuclei purple, eosin the rest pink, and optical
densities add (Beer-Lambert). So the picture is composed of two stain maps and turned into RGB last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from maskrcnn_jax.data.records import Record, encode_layers
from maskrcnn_jax.masks.crops import Crop

# Optical density of the stains in R, G, B, of length one; chosen between the published vectors
# (Ruifrok and Johnston 2001; Macenko et al. 2009) to look like scanned sections.
HAEMATOXYLIN = np.array([0.62, 0.69, 0.37])
EOSIN = np.array([0.13, 0.85, 0.51])

_CANDIDATES = 24  # places that are tried for each nucleus


class _Nucleus(NamedTuple):
    """A crop around one nucleus: `depth` is how far inside the outline a pixel centre lies, in pixels."""

    top: int
    left: int
    depth: Float[np.ndarray, "h w"]


def draw_records(
    count: int,
    *,
    seed: int,
    size: int = 256,
    nuclei: tuple[int, int] = (20, 60),
    diameters: tuple[float, float] = (10, 30),
    name: str = "synthetic",
) -> list[Record]:
    """Draws images of stained tissue with touching, crowded and partly overlapping nuclei of one class.

    The section is transparent: where two nuclei overlap, both masks have the pixel and the stains add.
    A mask holds the pixels whose centre lies inside the outline that was drawn and inside the image;
    an outline is blurred symmetrically, so half of the step in stain is at the mask's edge.

    Args:
      count: how many images.
      seed: record i depends on `seed` and i alone.
      size: side of the square images in pixels.
      nuclei: fewest and most nuclei of an image.
      diameters: smallest and largest mean diameter of a nucleus in pixels.
      name: the records are called `name` and a number.
    """
    return [
        _draw(np.random.default_rng([seed, i]), i, f"{name}_{i:04d}", size, nuclei, diameters)
        for i in range(count)
    ]


def _draw(
    rng: np.random.Generator,
    index: int,
    name: str,
    size: int,
    nuclei: tuple[int, int],
    diameters: tuple[float, float],
) -> Record:
    number = rng.integers(nuclei[0], nuclei[1] + 1)
    radii = (diameters[0] + np.ptp(diameters) * rng.triangular(0, 0.4, 1, number)) / 2
    centres = _place(rng, radii, size)
    drawn = [_outline(rng, centre, radius, size) for centre, radius in zip(centres, radii, strict=True)]
    haematoxylin, eosin = _tissue(rng, size)
    _stain_nuclei(rng, drawn, haematoxylin, eosin)
    masks = [Crop(nucleus.top, nucleus.left, nucleus.depth > 0) for nucleus in drawn]
    image = _develop(rng, haematoxylin, eosin)
    layers = encode_layers(masks, (size, size))
    return Record(index + 1, name, image, layers, np.zeros(number, np.int32))


def _place(rng: np.random.Generator, radii: Float[np.ndarray, "N"], size: int) -> Float[np.ndarray, "N 2"]:
    """Centres inside the image: half of them in crowds, beside a nucleus that is there already.

    A place is taken if the distance to each neighbour is at least a share of the sum of both radii
    (below 1 they may overlap a little), else the roomiest candidate.
    """
    centres = np.zeros((len(radii), 2))
    for n, radius in enumerate(radii):
        candidates = rng.uniform(0, size, (_CANDIDATES, 2))
        if n == 0:
            centres[n] = candidates[0]
            continue
        if rng.random() < 0.55:
            neighbour = rng.integers(0, n, _CANDIDATES)
            angle = rng.uniform(0, 2 * np.pi, _CANDIDATES)
            distance = (radii[neighbour] + radius) * rng.uniform(0.9, 1.25, _CANDIDATES)
            step = np.stack([np.sin(angle), np.cos(angle)], axis=1) * distance[:, None]
            candidates = centres[neighbour] + step
        candidates = candidates[((candidates >= 0) & (candidates < size)).all(axis=1)]
        if len(candidates) == 0:
            candidates = rng.uniform(0, size, (1, 2))
        gaps = np.linalg.norm(candidates[:, None] - centres[:n], axis=2) / (radii[:n] + radius)
        room = np.minimum(gaps.min(axis=1), 0.78 if rng.random() < 0.15 else 0.95)
        centres[n] = candidates[room.argmax()]
    return centres


def _outline(rng: np.random.Generator, centre: Float[np.ndarray, "2"], radius: float, size: int) -> _Nucleus:
    """An ellipse with a few low harmonics, as polar radius, scaled to the area of a circle of `radius`."""
    reach = int(np.ceil(radius * 1.9)) + 2  # nothing that is drawn below reaches further
    top, left = np.maximum(np.floor(centre).astype(int) - reach, 0)
    bottom, right = np.minimum(np.floor(centre).astype(int) + reach + 1, size)
    y = (np.arange(top, bottom)[:, None] + 0.5 - centre[0]).astype(np.float32)
    x = (np.arange(left, right)[None, :] + 0.5 - centre[1]).astype(np.float32)
    distance, angle = np.hypot(y, x), np.arctan2(y, x)
    elongation = rng.triangular(0.42, 0.9, 1.0)
    phase = rng.uniform(0, np.pi)
    border = np.sqrt(elongation) / np.sqrt(
        (elongation * np.cos(angle - phase)) ** 2 + np.sin(angle - phase) ** 2
    )
    for harmonic in (2, 3, 4, 5):
        border += rng.normal(0, 0.09 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return _Nucleus(int(top), int(left), border * radius - distance)


def _tissue(rng: np.random.Generator, size: int) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    """Stain maps of the stroma: wavy fibres, cloudy cytoplasm, and clefts without tissue."""
    clouds = _noise(rng, size, 48) + 0.6 * _noise(rng, size, 20) + 0.35 * _noise(rng, size, 8)
    grain = _noise(rng, size, 3) + 0.6 * _noise(rng, size, 1.5)
    fibres = _fibres(rng, size)
    eosin = rng.uniform(0.22, 0.38) + 0.05 * clouds + 0.07 * fibres + 0.02 * grain
    clefts = _noise(rng, size, 40) + 0.45 * _noise(rng, size, 12) + 0.25 * fibres
    openness = _sigmoid((clefts - rng.uniform(1.3, 2.6)) * 5)
    eosin = np.maximum(eosin, 0.05) * (1 - 0.9 * openness)
    haematoxylin = (rng.uniform(0.03, 0.14) + 0.025 * clouds + 0.015 * grain) * (1 - 0.9 * openness)
    return np.maximum(haematoxylin, 0), eosin


def _fibres(rng: np.random.Generator, size: int) -> Float[np.ndarray, "S S"]:
    """Bundles that run in one direction and bend: stripes whose phase drifts slowly."""
    direction = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size]
    across = np.cos(direction) * x + np.sin(direction) * y
    phase = across / rng.uniform(1.6, 2.6) + 4 * _noise(rng, size, 60) + 1.2 * _noise(rng, size, 18)
    bundles = _sigmoid(2.5 * _noise(rng, size, 30))
    return np.sin(phase) * bundles


def _stain_nuclei(
    rng: np.random.Generator,
    nuclei: list[_Nucleus],
    haematoxylin: Float[np.ndarray, "S S"],
    eosin: Float[np.ndarray, "S S"],
) -> None:
    """Adds the nuclei to the stain maps: chromatin, a dark membrane, and nucleoli in the pale ones."""
    size = len(eosin)
    chromatin = 0.7 * _noise(rng, size, 2.2) + 0.7 * _noise(rng, size, 4.5)
    typical = rng.uniform(0.55, 0.85)
    for top, left, depth in nuclei:
        window = np.s_[top : top + depth.shape[0], left : left + depth.shape[1]]
        inside = np.clip(depth + 0.5, 0, 1)
        pale = rng.random() < 0.25
        strength = typical * (rng.uniform(0.5, 0.65) if pale else rng.uniform(0.8, 1.2))
        rim = np.exp(-(((depth - 1.2) / 1.1) ** 2))
        body = 1 + (0.28 if pale else 0.16) * chromatin[window] + (0.5 if pale else 0.15) * rim
        if pale:
            body += _nucleoli(rng, depth)
        haematoxylin[window] += strength * inside * np.maximum(body, 0.3)
        eosin[window] *= 1 - 0.45 * inside


def _nucleoli(rng: np.random.Generator, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """One or two dark dots well inside the nucleus."""
    spots = np.zeros_like(depth)
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    deep = np.argwhere(depth > 0.45 * depth.max())
    for _ in range(rng.integers(1, 3)):
        row, col = deep[rng.integers(len(deep))]
        spots += 0.7 * np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * rng.uniform(0.8, 1.4) ** 2))
    return spots


def _develop(
    rng: np.random.Generator, haematoxylin: Float[np.ndarray, "S S"], eosin: Float[np.ndarray, "S S"]
) -> np.ndarray:
    """Light through the stains, the lens's blur and the camera's noise; each image has its own hues."""
    stains = [_unit(stain + rng.normal(0, 0.03, 3)) for stain in (HAEMATOXYLIN, EOSIN)]
    density = haematoxylin[..., None] * stains[0] + eosin[..., None] * stains[1]
    lamp = rng.uniform(238, 250) * np.array([1.0, 0.995, 1.0])
    light = lamp * np.exp(-np.log(10) * density.astype(np.float32))
    sharp = Image.fromarray(np.rint(light).astype(np.uint8))
    blurred = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 0.9)))
    noise = rng.uniform(1.5, 3.5) * rng.standard_normal(light.shape, np.float32)
    return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, size: int, scale: float) -> Float[np.ndarray, "S S"]:
    """Smooth noise of mean 0 and deviation about 1 whose blobs are about `scale` pixels wide."""
    cells = int(np.ceil(size / scale)) + 3
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    shift = rng.uniform(0, 1, 2)
    extent = (shift[0], shift[1], shift[0] + size / scale, shift[1] + size / scale)
    return 1.4 * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC, box=extent))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
