"""What is for people to read: one class that every door catches and shows as a message."""

from collections.abc import Sequence
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
