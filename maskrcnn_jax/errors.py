"""What is for people to read: one class that every door catches and shows as a message."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class UserError(ValueError):
    """Something that the user can put right: the message says what was found, where, and what to do.

    All that this package raises about its input derives from it. Any other exception is a fault of the
    package or of a library, and ends with its traceback.
    """


class Fault(NamedTuple):
    """One thing that is wrong with a data set: where, what was found, and what to do about it."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class DataError(UserError):
    """All faults of an input at once; `faults` holds them one by one."""

    def __init__(self, faults: Sequence[Fault]):
        self.faults = list(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''} in the data:"
        super().__init__("\n  ".join([count, *map(str, self.faults)]))


# What is installed for a module, where that is called otherwise or comes with an extra of this package.
_PACKAGES = {
    "PIL": "pillow",
    "absl": "absl-py",
    "openslide": "openslide-python and openslide-bin",
    "orbax": "orbax-checkpoint",
    "skimage": "scikit-image",
    "tensorflow_datasets": "tensorflow-datasets",
    "yaml": "pyyaml",
}
_OF_SLIDES = ("zarr", "imagecodecs", "openslide")


class MissingPackage(UserError):
    """What was asked for needs a package that is not installed.

    Attributes:
      what, remedy: which, and how to install it.
    """

    def __init__(self, module: str):
        package = _PACKAGES.get(module, module)
        self.what = f"needs {package}, which is not there"
        self.remedy = "pip install " + ("'maskrcnn-jax[slides]'" if module in _OF_SLIDES else package)
        super().__init__(f"it {self.what}; {self.remedy}")


@contextlib.contextmanager
def named_packages() -> Iterator[None]:
    """Around imports: one that fails because a package is not installed names it.

    Raises:
      MissingPackage: says which.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "maskrcnn_jax"):
            raise
        raise MissingPackage(module) from error
