"""Which paths may be opened: regular files alone, as pipes and devices may never answer or never end."""

import errno
import os
import stat

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def require_regular(path: str | os.PathLike) -> None:
    """To be called before a path that somebody else chose is opened; links are followed.

    Raises:
      OSError: there is no such file, or it is a folder, a named pipe, a device or a socket.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - a path that is none, with a NUL say, raises here, too
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))
