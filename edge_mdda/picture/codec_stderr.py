"""Keep OpenCV and the C libraries below it off standard error, and hear what they say of damage."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
CHATTER_BYTES = 4096  # room for what the C libraries say about one picture; they stop after a few lines


class _CodecStderr:
    """Somewhere for libjpeg and libpng to write to instead of standard error.

    They print through C's ``stderr`` and offer no switch that OpenCV would pass on.  Descriptor 2 belongs to the whole
    process, so it stays as it is; exchanging the C library's ``stderr`` pointer reaches only code that prints through
    it, not Python's own output or log of any thread, nor programs started meanwhile.  The memory stream is never
    closed, so a thread that has just fetched the pointer cannot write to freed memory.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - AttributeError here: only glibc's stderr is a variable
        libc.fmemopen.restype = ctypes.c_void_p
        libc.fmemopen.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        libc.fflush.argtypes = libc.rewind.argtypes = [ctypes.c_void_p]
        self._libc = libc
        self._text = ctypes.create_string_buffer(CHATTER_BYTES)
        self._stream = libc.fmemopen(self._text, CHATTER_BYTES, b"w")
        self._slot = ctypes.c_void_p.in_dll(libc, "stderr")
        if not self._stream:
            raise OSError("fmemopen failed")

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        self._libc.rewind(self._stream)
        ctypes.memset(self._text, 0, CHATTER_BYTES)
        before = self._slot.value
        self._slot.value = self._stream
        try:
            yield
        finally:
            self._slot.value = before
            self._libc.fflush(self._stream)

    def text(self) -> bytes:
        return self._text.value


@functools.cache
def codec_stderr() -> _CodecStderr | None:
    """The exchange, or nothing where the C library does not allow it (then the libraries' remarks are printed)."""
    try:
        return _CodecStderr()
    except (AttributeError, OSError, TypeError, ValueError):
        return None


_CODEC_LOCK = threading.Lock()  # one pointer and one log level a process
# A fork while another thread decodes would leave the child with a lock that nobody holds and an exchanged stderr.
os.register_at_fork(before=_CODEC_LOCK.acquire, after_in_parent=_CODEC_LOCK.release, after_in_child=_CODEC_LOCK.release)


@contextlib.contextmanager
def quiet_codecs() -> Iterator[Callable[[], bytes]]:
    """Keep OpenCV and its libraries off standard error; yields a function that tells what they said."""
    import cv2

    logging: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4.10 has the functions at its top
    with _CODEC_LOCK, contextlib.ExitStack() as stack:
        stack.callback(logging.setLogLevel, logging.setLogLevel(SILENT))
        remarks = b""
        exchange = codec_stderr()
        try:
            if exchange is not None:
                stack.enter_context(exchange.capture())
            yield lambda: remarks
        finally:
            stack.close()
            if exchange is not None:
                remarks = exchange.text()
