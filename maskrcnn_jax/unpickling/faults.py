"""What is wrong with a pickle, and the one error that it becomes."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from maskrcnn_jax.errors import UserError

COPY_AGAIN = "copy it again from its source"


class PickleFault(Exception):
    """What in a pickle is malformed or refused.

    Attributes:
      remedy: what to do about it; None where that depends on what the file is for.
    """

    def __init__(self, what: str, remedy: str | None = None):
        super().__init__(what)
        self.remedy = remedy


class UnpickleError(UserError):
    """A file is damaged, or holds something that is refused; the message names file, cause and remedy."""


@contextlib.contextmanager
def faults_of(path: Path, remedy: str) -> Iterator[None]:
    """Turns whatever a damaged or hostile file makes its reader raise into an UnpickleError.

    Args:
      path: the file.
      remedy: what to do where the content is refused.
    """
    try:
        yield
    except PickleFault as fault:
        raise UnpickleError(f"{path}: {fault}; {fault.remedy or remedy}") from fault
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        what = f"the zip file is damaged or cut short ({error})"
        raise UnpickleError(f"{path}: {what}; {COPY_AGAIN}") from error
    except OSError as error:
        raise UnpickleError(f"{path} cannot be read: {error.strerror or error}") from error
