"""Only regular files are opened."""

import os
import socket

import pytest

from maskrcnn_jax.files import require_regular


def test_a_file_and_a_link_to_it_are_regular(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    require_regular(tmp_path / "file")
    require_regular(tmp_path / "link")


def test_whatever_else_there_is_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(OSError, match="a named pipe, not a regular file"):
            require_regular(path)
    with pytest.raises(OSError, match="a folder"):
        require_regular(tmp_path)
    with pytest.raises(OSError, match="a device"):
        require_regular("/dev/zero")
    with pytest.raises(FileNotFoundError):
        require_regular(tmp_path / "absent")


def test_a_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        with pytest.raises(OSError, match="a socket"):
            require_regular("socket")
