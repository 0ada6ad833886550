"""The files that a prediction leaves, format by format, and that none of them is lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.evaluation.coco import to_results
from maskrcnn_jax.files import write_json
from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.stored import StoredResult
from maskrcnn_jax.outputs.geojson import write_geojson
from maskrcnn_jax.outputs.label_image import write_labels
from maskrcnn_jax.outputs.label_zarr import write_label_zarr
from maskrcnn_jax.outputs.object_table import write_table
from maskrcnn_jax.outputs.overview import draw_overview
from maskrcnn_jax.outputs.writers import write_coco_results, write_image

# What each format adds to the name of an image.
_SUFFIXES = {
    "labels": "_labels.tif",
    "geojson": ".geojson",
    "csv": ".csv",
    "overlay": "_overlay.png",
    "ome-zarr": "_labels.zarr",
}
# One file for all images, and one that says what its ids mean.
_COCO, _COCO_IMAGES = "coco_results.json", "coco_images.json"
FORMATS = ("coco", *_SUFFIXES)


class Outputs:
    """A folder that takes the results of images.

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

    def files(self, name: str) -> dict[str, Path]:
        """What will be written for the image of this name, by format."""
        return {
            format: self._folder / (name + suffix)
            for format, suffix in _SUFFIXES.items()
            if format in self._formats
        }

    def check(
        self, names: Iterable[str], images: Iterable[Path], *, own: Container[str] | None, overwrite: bool
    ) -> None:
        """Makes the folder, and makes sure that all can be written without losing what is there.

        Args:
          names: of all images that will be written.
          images: the files that are read; they are never overwritten.
          own: names of images whose files, and COCO's, are of the run that goes on and may be replaced; None
            if a run begins.
          overwrite: whether results that are there may go.

        Raises:
          UserError: files would be overwritten.
          OSError: nothing can be written into the folder.
          ImportError: a format needs a package that is not there.
        """
        if "ome-zarr" in self._formats:
            import zarr  # noqa: F401 - to miss it before anything is predicted
        files = [path for name in names for path in self.files(name).values()]
        kept = [path for name in names if name not in (own or ()) for path in self.files(name).values()]
        if "coco" in self._formats:
            coco = [self._folder / _COCO, self._folder / _COCO_IMAGES]
            files += coco
            kept += coco if own is None else []
        inputs = {image.resolve() for image in images}
        lost = [path for path in files if path.exists() and path.resolve() in inputs]
        if lost:
            raise UserError(
                f"the result would overwrite the image {lost[0]}: choose another folder for --out"
            )
        there = [path.name for path in kept if path.exists()]
        if there and not overwrite:
            listed = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
            raise UserError(
                f"{self._folder} has results already, {listed}: choose another folder or give --overwrite"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def write(self, name: str, source: ImageSource, result: Result | StoredResult) -> None:
        """Writes all formats of one image but COCO's.

        Args:
          name: of its files.
          source: the image.
          result: its objects. For GeoJSON they need not be in memory all at once.
        """
        files = self.files(name)
        if isinstance(result, StoredResult) and files.keys() - {"geojson"}:
            result = result.load()
        for format, path in files.items():
            if format == "labels":
                write_labels(path, result)
            elif format == "ome-zarr":
                write_label_zarr(path, result, source.mpp)
            elif format == "geojson":
                write_geojson(path, result, self._classes, image=source.fingerprint)
            elif format == "csv":
                write_table(path, result, self._classes, source)
            elif format == "overlay":
                classes = self._classes if self._color_by == "class" else None
                write_image(path, draw_overview(source, result, classes=classes))

    def remove(self, name: str) -> None:
        """Removes what there is of an image that could not be finished."""
        for path in self.files(name).values():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def rows(self, image_id: int, result: Result | StoredResult) -> Iterator[dict[str, Any]]:
        """The COCO rows of one image, made as they are asked for; none if that format is not wanted."""
        if "coco" not in self._formats:
            return
        rows = (row for part in result.split() for row in to_results([(image_id, part)], self._categories))
        for n, row in enumerate(rows, 1):
            yield {**row, "object_id": n}

    def finish(self, images: Sequence[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> None:
        """Writes the COCO files, if they are asked for and there is an image.

        Args:
          images: what COCO says of each.
          rows: of all of them.
        """
        if "coco" in self._formats and images:
            write_coco_results(self._folder / _COCO, rows)
            categories = [{"id": number, "name": name} for number, name in self._categories.items()]
            content = {"images": images, "annotations": [], "categories": categories}
            write_json(self._folder / _COCO_IMAGES, content)
