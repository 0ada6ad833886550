"""The files that a prediction leaves, format by format, and that none of them is lost."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_jax.evaluation.coco import to_results
from maskrcnn_jax.inference.geojson import write_geojson
from maskrcnn_jax.inference.label_image import write_labels
from maskrcnn_jax.inference.object_table import write_table
from maskrcnn_jax.inference.overview import draw_overview
from maskrcnn_jax.inference.sources import ImageSource
from maskrcnn_jax.inference.writers import coco_results, write_image, write_json
from maskrcnn_jax.structures import Result

# What each format adds to the name of an image.
_SUFFIXES = {"labels": "_labels.tif", "geojson": ".geojson", "csv": ".csv", "overlay": "_overlay.png"}
# One file for all images, and one that says what its ids mean.
_COCO, _COCO_IMAGES = "coco_results.json", "coco_images.json"
FORMATS = ("coco", *_SUFFIXES)


class Outputs:
    """A folder that takes the results of images, one after the other. Use as a context manager.

    Object d of an image is d + 1 in all files: the value in the label image, the `id` in the table, the
    name of the feature, and the `object_id` of the COCO row.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str],
        categories: dict[int, str],
        *,
        color_by: str = "object",
    ):
        """Nothing is written yet.

        Args:
          folder: where the files go.
          formats: some of `FORMATS`.
          categories: id and name of each class, in order.
          color_by: "class" or "object", the outlines' colours in overlays.
        """
        self._folder, self._formats, self._categories = folder, formats, categories
        self._classes = list(categories.values())
        self._color_by = color_by
        self._images: list[dict[str, Any]] = []
        self._stack = contextlib.ExitStack()
        self._add_rows: Callable[[Iterable[dict[str, Any]]], None] | None = None

    def files(self, name: str) -> dict[str, Path]:
        """What will be written for the image of this name, by format."""
        return {
            format: self._folder / (name + suffix)
            for format, suffix in _SUFFIXES.items()
            if format in self._formats
        }

    def check(self, names: Iterable[str], images: Iterable[Path], *, overwrite: bool) -> None:
        """Makes the folder, and makes sure that all can be written without losing what is there.

        Args:
          names: of all images that will be written.
          images: the files that are read; they are never overwritten.
          overwrite: whether results that are there may go.

        Raises:
          ValueError: files would be overwritten.
          OSError: nothing can be written into the folder.
        """
        files = [path for name in names for path in self.files(name).values()]
        if "coco" in self._formats:
            files += [self._folder / _COCO, self._folder / _COCO_IMAGES]
        inputs = {image.resolve() for image in images}
        lost = [path for path in files if path.exists() and path.resolve() in inputs]
        if lost:
            raise ValueError(
                f"the result would overwrite the image {lost[0]}: choose another folder for --out"
            )
        there = [path.name for path in files if path.exists()]
        if there and not overwrite:
            listed = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
            raise ValueError(
                f"{self._folder} has results already, {listed}: choose another folder or give --overwrite"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if self._images and error[0] is None:
            categories = [{"id": number, "name": name} for number, name in self._categories.items()]
            images = {"images": self._images, "annotations": [], "categories": categories}
            write_json(self._folder / _COCO_IMAGES, images)

    def write(self, name: str, image_id: int, file_name: str, source: ImageSource, result: Result) -> None:
        """Writes all formats for one image.

        Args:
          name: of its files.
          image_id, file_name: what COCO calls the image.
          source: the image.
          result: its objects.
        """
        for format, path in self.files(name).items():
            if format == "labels":
                write_labels(path, result)
            elif format == "geojson":
                write_geojson(path, result, self._classes, image=source.fingerprint)
            elif format == "csv":
                write_table(path, result, self._classes, source)
            elif format == "overlay":
                classes = self._classes if self._color_by == "class" else None
                write_image(path, draw_overview(source, result, classes=classes))
        if "coco" in self._formats:
            if self._add_rows is None:  # Late, so that nothing is left if all images fail.
                self._add_rows = self._stack.enter_context(coco_results(self._folder / _COCO))
            rows = to_results([(image_id, result)], self._categories)
            self._add_rows({**row, "object_id": n} for n, row in enumerate(rows, 1))
            height, width = source.size
            self._images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
