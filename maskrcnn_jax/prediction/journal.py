"""What a run over many images has done so far, so that the same command goes on where one was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import write_json
from maskrcnn_jax.outputs.writers import write_coco_results

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
    """A folder with `run.json`, which says of which run; of an image that is done, `NAME.done` and its COCO
    rows; of another, its finished tiles.

    Attributes:
      names: of the images that the run which was stopped here has set out for; None if there is none.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        """Reads what is there; nothing is written yet.

        Args:
          folder: for the journal alone. It goes when the run ends.
          identity: what the results depend on, but for the images: JSON values by their names.
        """
        self._folder, self._manifest = folder, folder / "run.json"
        self._identity = json.loads(json.dumps(identity))
        found = _load(self._manifest)
        self._found = found["options"] if found else {}
        self.names: set[str] | None = set(found["images"]) if found else None

    def discard_other(self, *, allowed: bool) -> None:
        """Throws the journal away if it is of a run with other options.

        Raises:
          UserError: it is, and that is not allowed; or the folder holds something else.
        """
        if self.names is None:
            if self._folder.exists() and any(not _is_half(path) for path in self._folder.iterdir()):
                raise UserError(f"{self._folder} is needed for what is not finished: move what is in it away")
            return
        names = [name for name in self._identity if self._found.get(name) != self._identity[name]]
        if not names:
            return
        if not allowed:
            changes = (
                f"\n  {name}: {self._found.get(name)} then, {self._identity[name]} now" for name in names
            )
            raise UserError(
                f"{self._folder} is of a run with other options that was not finished. Give the same, or "
                "another folder for --out, or --overwrite to start anew:" + "".join(changes)
            )
        shutil.rmtree(self._folder)
        self.names = None

    def start(self, names: Iterable[str]) -> None:
        """Notes for which images the run sets out."""
        self.names = {*(self.names or ()), *names}
        write_json(self._manifest, {"options": self._identity, "images": sorted(self.names)})

    def objects(self, job: Job) -> int | None:
        """The number of the image's objects; None if it is not done, or its file is another now."""
        entry = _load(self._entry(job))
        return entry["objects"] if entry and entry["job"] == _signature(job) else None

    def save(self, job: Job, size: tuple[int, int], objects: int, rows: Sequence[Row]) -> None:
        """Notes that an image is done.

        Args:
          job: the image.
          size: its height and width.
          objects: how many it has.
          rows: what COCO's results shall say of it.
        """
        write_coco_results(self._rows(job), rows)
        write_json(self._entry(job), {"job": _signature(job), "size": size, "objects": objects})
        shutil.rmtree(self.tiles(job), ignore_errors=True)

    def tiles(self, job: Job) -> Path:
        """A folder for the image's finished tiles, which goes when the image is done."""
        return self._folder / f"{job.name}.tiles"

    def rows(self, jobs: Iterable[Job]) -> Iterable[Row]:
        """The COCO rows of all of these images that are done."""
        for job in jobs:
            if self.objects(job) is not None:
                yield from _load(self._rows(job))

    def images(self, jobs: Iterable[Job]) -> list[Row]:
        """What COCO says of the images that are done."""
        images = []
        for job in jobs:
            if self.objects(job) is not None:
                height, width = _load(self._entry(job))["size"]
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

    def _entry(self, job: Job) -> Path:
        return self._folder / f"{job.name}.done"

    def _rows(self, job: Job) -> Path:
        return self._folder / f"{job.name}.coco"


def _is_half(path: Path) -> bool:
    """Whether a kill has left this of the manifest's temporary file, before there was one."""
    return path.name.startswith(".run.json.")


def _load(path: Path) -> Any:
    """What a JSON file of the journal holds; None if there is none, or a lost disk has cut it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _signature(job: Job) -> dict[str, Any]:
    """Tells the job from others of its name."""
    status = job.image.stat()
    return {
        "image": str(job.image.resolve()),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "image_id": job.image_id,
        "file_name": job.file_name,
    }
