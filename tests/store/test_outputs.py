"""A file that is given up while a thread writes to it is closed when nobody writes any more."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from persona.errors import SystemFault
from persona.store import files


def test_a_descriptor_stays_open_until_the_last_writer_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = files.Output.create(tmp_path, prefix="out")
    inside, go = threading.Event(), threading.Event()
    write = files.calls.pwritev

    def slowly(fd: int, buffers: Any, offset: int) -> int:
        inside.set()
        assert go.wait(30)
        return write(fd, buffers, offset)

    monkeypatch.setattr(files.calls, "pwritev", slowly)
    fd = output.fileno()
    writer = threading.Thread(target=output.pwrite, args=(b"late", 0))
    writer.start()
    assert inside.wait(30)
    output.discard()
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    try:
        assert other != fd, "the number was given to another file while a thread wrote to it"
        with pytest.raises(SystemFault, match="closed meanwhile"):
            output.pwrite(b"more", 0)
        go.set()
        writer.join()
        assert os.pread(other, 10, 0) == b""
    finally:
        os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert os.listdir(tmp_path) == ["other"]
