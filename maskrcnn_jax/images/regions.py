"""Regions of an image that a person has drawn, as GeoJSON in pixels: what QuPath calls annotations."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maskrcnn_jax.documents import DATA_SET, read_json
from maskrcnn_jax.errors import UserError

Ring = Float[np.ndarray, "n 2"]


class Regions:
    """Polygons with holes.

    Attributes:
      fingerprint: tells them from others.
    """

    def __init__(self, polygons: list[list[Ring]]):
        """Takes the rings of each polygon as x and y in pixels: its border, then its holes."""
        self._polygons = polygons
        rings = b"".join(ring.tobytes() for rings in polygons for ring in rings)
        self.fingerprint = hashlib.sha256(rings).hexdigest()

    def contain(self, points: Float[np.ndarray, "N 2"]) -> Bool[np.ndarray, "N"]:
        """Which points (x, y) lie in a polygon and in none of its holes."""
        inside = np.zeros(len(points), bool)
        for border, *holes in self._polygons:
            near = np.flatnonzero(
                ((points >= border.min(axis=0)) & (points <= border.max(axis=0))).all(axis=1)
            )
            here = _within(border, points[near])
            for hole in holes:
                here &= ~_within(hole, points[near])
            inside[near] |= here
        return inside

    def touch(self, top: int, left: int, height: int, width: int) -> bool:
        """Whether a window has a place in common with a polygon, or with one of its borders."""
        low, high = np.array([left, top], float), np.array([left + width, top + height], float)
        edges = any(_crosses(ring, low, high) for rings in self._polygons for ring in rings)
        return edges or bool(self.contain(low[None])[0])


def read_regions(path: str | os.PathLike[str]) -> Regions:
    """The polygons of a GeoJSON file: a collection, a list of features, a feature or a geometry.

    Raises:
      UserError: it is none, or holds no polygon.
    """
    try:
        polygons = list(_polygons(read_json(path, most_bytes=DATA_SET)))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is no GeoJSON with polygons ({error!r}): export annotations from QuPath"
        ) from error
    if not polygons:
        raise UserError(f"{path} holds no polygon: draw regions as areas, not as points or lines")
    return Regions(polygons)


def _polygons(item: Any) -> Iterator[list[Ring]]:
    if isinstance(item, list):
        for part in item:
            yield from _polygons(part)
        return
    kind = item["type"]
    if kind in ("FeatureCollection", "GeometryCollection"):
        yield from _polygons(item["features" if kind == "FeatureCollection" else "geometries"])
    elif kind == "Feature":
        yield from _polygons(item["geometry"] or [])
    elif kind in ("Polygon", "MultiPolygon"):
        for rings in [item["coordinates"]] if kind == "Polygon" else item["coordinates"]:
            yield [_ring(points) for points in rings]


def _ring(points: Any) -> Ring:
    ring = np.array(points, np.float64)
    if ring.ndim != 2 or len(ring) < 3 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError("a ring of a polygon is a list of three or more points")
    return ring[:, :2]


def _within(ring: Ring, points: Float[np.ndarray, "N 2"]) -> Bool[np.ndarray, "N"]:
    from matplotlib.path import Path as Outline  # late: few images have regions, and it is slow to import

    return Outline(np.concatenate([ring, ring[:1]]), closed=True).contains_points(points)


def _crosses(ring: Ring, low: Float[np.ndarray, "2"], high: Float[np.ndarray, "2"]) -> bool:
    """Whether an edge has a point in a rectangle: the share of each edge that lies between its sides."""
    step = np.roll(ring, -1, axis=0) - ring
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.sort(np.stack([(low - ring) / step, (high - ring) / step]), axis=0)
    still = step == 0
    between = (ring >= low) & (ring <= high)
    enter = np.where(still, np.where(between, -np.inf, np.inf), ends[0]).max(axis=1)
    leave = np.where(still, np.where(between, np.inf, -np.inf), ends[1]).min(axis=1)
    return bool((np.maximum(enter, 0) <= np.minimum(leave, 1)).any())
