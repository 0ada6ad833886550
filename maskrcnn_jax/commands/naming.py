"""What `maskrcnn-jax predict` calls its images and classes, in names and in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.inputs import Ids, unique_names
from maskrcnn_jax.prediction.journal import Job


def make_jobs(images: Sequence[Path], ids: Ids | None) -> list[Job]:
    """One for each image, in order.

    Raises:
      UserError: two images cannot be told apart; or `ids` has no id, or one that is not its own, for some.
    """
    names, numbers, file_names = unique_names(images), _image_ids(images, ids), _file_names(images)
    return [Job(*fields) for fields in zip(images, names, numbers, file_names, strict=True)]


def name_classes(count: int, given: str | None, ids: Ids | None) -> dict[int, str]:
    """Id and name of each class: what the user says, or the data set, or what can be made up.

    Args:
      count: of the model's classes.
      given: names by the user, with commas between.
      ids: of the data set.

    Raises:
      UserError: there are more or fewer names than classes.
    """
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        numbers = list(ids.categories) if ids and ids.categories else range(1, len(names) + 1)
        categories = dict(zip(numbers, names, strict=False))
    elif ids and ids.categories:
        categories = ids.categories
    else:
        names = ["nucleus"] if count == 1 else [f"class_{k + 1}" for k in range(count)]
        categories = dict(enumerate(names, 1))
    if len(categories) != count:
        raise UserError(
            f"the model has {count} class{'es' if count > 1 else ''}, not {len(categories)} "
            f"({', '.join(categories.values())}): name each with --classes"
        )
    return categories


def _image_ids(images: Sequence[Path], ids: Ids | None) -> list[int]:
    """From 1 in order, or what the data set says."""
    if ids is None:
        return list(range(1, len(images) + 1))
    unknown = [str(image) for image in images if image.name not in ids.images]
    if unknown:
        raise UserError("--ids has no id for these images:\n  " + "\n  ".join(unknown))
    numbers = [ids.images[image.name] for image in images]
    count = Counter(numbers)
    twice = [str(image) for image, number in zip(images, numbers, strict=True) if count[number] > 1]
    if twice:
        raise UserError("--ids gives these images one id:\n  " + "\n  ".join(twice))
    return numbers


def _file_names(images: Sequence[Path]) -> list[str]:
    """Without folders, if that is enough to tell them apart."""
    names = [image.name for image in images]
    return names if len({*names}) == len(names) else [image.as_posix() for image in images]
