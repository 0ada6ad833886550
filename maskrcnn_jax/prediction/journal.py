"""What a run over many images has done so far, so that the same command goes on where one was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn_jax.documents import DocumentError, read_json_lines
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import as_json, write_json, write_json_lines
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.prediction import identity

Row = dict[str, Any]


class Job(NamedTuple):
    """One image.

    Attributes:
      image: its file.
      name: what its results are called; no two are the same.
      image_id, file_name: what COCO calls it.
    """

    image: Path
    name: str
    image_id: int
    file_name: str


class Journal:
    """A folder with `run.json`, which says of which run; of an image that is done `NAME.done`, of another its
    finished tiles.

    An image is done where `NAME.done` is of its very file and all of its results are there. That note is
    written last and at once, so there is none of what was half written.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]):
        """Reads what is there; nothing is written yet.

        Args:
          folder: for the journal alone. It goes when the run ends.
          options: what the results depend on, but for the images: JSON values by their names.
        """
        self._folder, self._manifest = folder, folder / "run.json"
        self._options = as_json(options)
        self._found = identity.read(self._manifest)

    def begin(self, outputs: Outputs, jobs: Sequence[Job], *, overwrite: bool) -> dict[str, int]:
        """Makes sure that all can be written, before any work is done, and notes what the run sets out for.

        Args:
          outputs: where the results go.
          jobs: the images.
          overwrite: whether results of other runs may go, and what is left of one with other options.

        Returns:
          The number of objects of each image that is done already, by its name.

        Raises:
          UserError: that is not allowed; or the folder holds something else.
          OSError: nothing can be written.
        """
        self._discard_other(allowed=overwrite)
        own = set(self._found["images"]) if self._found else None
        before = {}
        for job in jobs:
            objects = self._objects(job)
            if objects is not None and all(path.exists() for path in outputs.files(job.name).values()):
                before[job.name] = objects
        rest = [job.name for job in jobs if job.name not in before]
        outputs.check(rest, [job.image for job in jobs], own=own, overwrite=overwrite)
        names = sorted({*(own or ()), *(job.name for job in jobs)})
        self._found = {"options": self._options, "images": names}
        write_json(self._manifest, self._found)
        return before

    def save(self, job: Job, size: tuple[int, int], objects: int, rows: Iterable[Row]) -> None:
        """Notes that an image is done.

        Args:
          job: the image.
          size: its height and width.
          objects: how many it has.
          rows: what COCO's results shall say of it.
        """
        first = {"job": _signature(job), "size": size, "objects": objects}
        write_json_lines(self._note(job), chain([first], rows))
        shutil.rmtree(self.tiles(job), ignore_errors=True)

    def tiles(self, job: Job) -> Path:
        """A folder for the image's finished tiles, which goes when the image is done."""
        return self._folder / f"{job.name}.tiles"

    def rows(self, jobs: Iterable[Job]) -> Iterator[Row]:
        """The COCO rows of all of these images that are done."""
        for job in jobs:
            if self._objects(job) is not None:
                lines = read_json_lines(self._note(job))
                next(lines)
                yield from lines

    def images(self, jobs: Iterable[Job]) -> list[Row]:
        """What COCO says of the images that are done."""
        images = []
        for job in jobs:
            if (first := self._first(job)) is not None:
                height, width = first["size"]
                images.append(
                    {"id": job.image_id, "file_name": job.file_name, "height": height, "width": width}
                )
        return images

    @property
    def has_tiles(self) -> bool:
        """Whether an image that is not done has finished tiles."""
        return any(self._folder.glob("*.tiles/tile_*"))

    def remove(self) -> None:
        """Ends the run."""
        shutil.rmtree(self._folder)

    def _discard_other(self, *, allowed: bool) -> None:
        """Throws away what is left of a run with other options."""
        if self._found is None:
            if self._folder.exists() and any(not _is_half(path) for path in self._folder.iterdir()):
                raise UserError(f"{self._folder} is needed for what is not finished: move what is in it away")
            return
        changes = identity.differences(self._found["options"], self._options, "then")
        if not changes:
            return
        if not allowed:
            raise UserError(
                f"{self._folder} is of a run with other options that was not finished. Give the same, or "
                "another folder for --out, or --overwrite to start anew:" + changes
            )
        shutil.rmtree(self._folder)
        self._found = None

    def _objects(self, job: Job) -> int | None:
        """The number of the image's objects; None if it is not done, or its file is another now."""
        first = self._first(job)
        return None if first is None else first["objects"]

    def _first(self, job: Job) -> Row | None:
        """The first line of the note on this very file, before COCO's rows."""
        try:
            first = next(read_json_lines(self._note(job)), None)
        except DocumentError:
            return None
        return first if isinstance(first, dict) and first.get("job") == _signature(job) else None

    def _note(self, job: Job) -> Path:
        return self._folder / f"{job.name}.done"


def _is_half(path: Path) -> bool:
    """Whether a kill has left this of the manifest's temporary file, before there was one."""
    return path.name.startswith(".run.json.")


def _signature(job: Job) -> Row:
    """Tells the job from others of its name."""
    status = job.image.stat()
    return {
        "image": str(job.image.resolve()),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "image_id": job.image_id,
        "file_name": job.file_name,
    }
