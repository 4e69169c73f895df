"""The board's own camera: a child that delivers JPEGs, and the station's side that outlives its death.

The child is ``python -m edge_mdda.station.camera SOURCE``. A V4L2 device is read through OpenCV in Motion JPEG, so that
a picture is kept as the sensor's own bytes; a file of JPEGs one after the other stands in where there is no camera.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edge_mdda.hardware.child_process import environment
from edge_mdda.station.pipe import receive, send

FRAMES_PER_S = 12.0  # of a file that stands for a camera
WIDTH, HEIGHT = 1920, 1440  # pixels asked for; a camera takes the nearest that it has
DROPPED = 5  # frames until exposure and white balance have settled
SILENCE_S = 6.0  # seconds without a frame until the child is ended
AGAIN_S = 2.0  # seconds until a lost camera is looked for again
UNUSED_S = 10.0  # seconds without a viewer until the camera is let go
START, END = b"\xff\xd8\xff", b"\xff\xd9"


@dataclass(frozen=True)
class Frame:
    """One picture of the camera."""

    number: int
    jpeg: bytes


class Camera:
    """Frames of the board's camera, while somebody looks.

    Parameters
    ----------
    source : str
        ``/dev/video0``, or a file of JPEGs.
    silence_s, again_s, unused_s : float
        Seconds; see the constants of this module.
    """

    def __init__(
        self, source: str, silence_s: float = SILENCE_S, again_s: float = AGAIN_S, unused_s: float = UNUSED_S
    ) -> None:
        self.source = source
        self._silence_s, self._again_s, self._unused_s = silence_s, again_s, unused_s
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._problem = ""
        self._wanted = 0.0
        self._waiting = 0
        self._heard = 0.0
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def problem(self) -> str:
        """Why there is no picture, and what to do; empty where there is one."""
        return self._problem

    @property
    def closed(self) -> bool:
        """Whether the camera was let go for good."""
        return self._closed

    @property
    def pid(self) -> int | None:
        """Process ID of the child; None where none runs."""
        child = self._child
        return child.pid if child and child.poll() is None else None

    def after(self, number: int, wait_s: float) -> Frame | None:
        """The first frame later than ``number``, or None after so many seconds."""
        end = time.monotonic() + wait_s
        with self._changed:
            self._wanted = time.monotonic()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, daemon=True, name="camera")
                self._thread.start()
            self._waiting += 1
            try:
                while not self._closed and (self._frame is None or self._frame.number <= number):
                    left = end - time.monotonic()
                    if left <= 0:
                        return None
                    self._changed.wait(left)
                return None if self._closed else self._frame
            finally:
                self._waiting -= 1
                self._wanted = time.monotonic()

    def latest(self) -> int:
        """The number of the last frame; 0 where there was none."""
        frame = self._frame
        return frame.number if frame else 0

    def close(self) -> None:
        """Let go of the camera for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._child:
            self._child.kill()
        thread = self._thread
        if thread and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _is_wanted(self) -> bool:
        looks = self._waiting > 0 or time.monotonic() - self._wanted < self._unused_s
        return looks and not self._closed

    def _run(self) -> None:
        while True:
            self._watch_child()
            with self._changed:
                if not self._is_wanted():  # asked under the lock: whoever comes now starts another thread
                    self._thread = None
                    return
                self._changed.wait(self._again_s)

    def _watch_child(self) -> None:
        self._child = child = subprocess.Popen(
            [sys.executable, *(["-I"] if sys.flags.isolated else []), "-m", __name__, self.source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._heard = time.monotonic()
        watch = threading.Thread(target=self._end_silent, args=(child,), daemon=True, name="camera watch")
        watch.start()
        problem = "the camera gave no picture: plug it in again"
        assert child.stdout is not None
        try:
            while self._is_wanted() and (message := receive(child.stdout)) is not None:
                header, blobs = message
                self._heard = time.monotonic()
                with self._changed:
                    if "problem" in header:
                        problem = str(header["problem"])
                        break
                    self._frame = Frame(self.latest() + 1, blobs[0])
                    self._problem = ""
                    self._changed.notify_all()
        except (EOFError, OSError, ValueError, KeyError, IndexError):
            pass  # it was killed in the middle of a frame
        child.kill()
        child.wait()
        child.stdout.close()
        watch.join()
        if self._is_wanted():
            self._problem = problem

    def _end_silent(self, child: subprocess.Popen[bytes]) -> None:
        """``select() timeout`` recurs with V4L2, and a read may never return: then the child is ended."""
        while child.poll() is None:
            if time.monotonic() - self._heard > self._silence_s:
                child.kill()
            time.sleep(0.05)


def jpegs(content: bytes) -> list[bytes]:
    """The JPEGs that stand one after the other."""
    found = [START + part for part in content.split(START)[1:]]
    return [part[: part.rfind(END) + len(END)] for part in found if END in part]


def frames_of_file(path: str) -> Iterator[bytes]:
    """A file's pictures, again and again, at a camera's pace; ends when the file is gone, as an unplugged one does."""
    with open(path, "rb") as file:
        pictures = jpegs(file.read())
    while pictures:
        for picture in pictures:
            if not os.path.exists(path):
                return
            yield picture
            time.sleep(1 / FRAMES_PER_S)


def frames_of_device(path: str) -> Iterator[bytes]:
    """A V4L2 camera's own JPEGs; OSError where it cannot be had."""
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # says why, where OpenCV only says no
    import cv2
    import numpy as np

    camera = cv2.VideoCapture(path, cv2.CAP_V4L2)
    try:
        if not camera.isOpened():
            raise OSError(errno.EBUSY, "the device does not open")
        camera.set(cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter.fourcc(*"MJPG")))
        camera.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH)
        camera.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)
        camera.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        for number in range(1 << 62):
            good, frame = camera.read()
            if not good:
                return
            if number < DROPPED:
                continue
            content = np.ascontiguousarray(frame).tobytes()
            if content.startswith(START):
                yield content[: content.rfind(END) + len(END)]
                continue
            # A camera without Motion JPEG: its pixels, without loss.
            shape = frame if frame.ndim == 3 and frame.shape[2] == 3 else cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUYV)
            done, encoded = cv2.imencode(".jpg", shape, [cv2.IMWRITE_JPEG_QUALITY, 100])
            if done:
                yield bytes(encoded.tobytes())
    finally:
        camera.release()


def problem_of(path: str, error: OSError) -> str:
    """One line for a camera that cannot be had."""
    if error.errno == errno.EBUSY:
        return f"the camera {path} is busy: close the other program that uses it"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"there is no camera at {path}: plug it in"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"the camera {path} may not be used: add the station's user to the group video"
    return f"the camera {path} does not work ({error.strerror or error}): plug it in again"


def main() -> int:
    """Deliver frames until there are none or nobody reads."""
    path = sys.argv[1]
    out = open(os.dup(1), "wb")  # noqa: SIM115  kept until the process ends
    os.dup2(2, 1)  # what a library prints must not break a message
    try:
        device = stat.S_ISCHR(os.stat(path).st_mode)
        for frame in frames_of_device(path) if device else frames_of_file(path):
            send(out, {}, [frame])
        send(out, {"problem": f"the camera {path} is gone: plug it in"})
    except BrokenPipeError:
        return 0
    except OSError as error:
        with contextlib.suppress(OSError):
            send(out, {"problem": problem_of(path, error)})
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
