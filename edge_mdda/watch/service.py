"""``edge-mdda watch``: screens what appears in a folder, one image after the other, with one open model.

How an image goes from one place to the next, and why exactly once, is told in :mod:`edge_mdda.watch.spool`. Here is
what happens when something does not work:

=====================================  ==============================================================================
an image that cannot be screened       ``failed``, with a JSON that has the reason
no permission to take a file           one line for each, left alone for :data:`RETRY_S`, then tried again
no space                               one line, the image stays, all is tried again after :data:`RETRY_S`
the model fails at this image alone    put back and taken again after :data:`RETRY_S`; ``failed`` at the
                                       :data:`MAX_FAILURES`-th time; the others go on meanwhile
the model fails at every image         one line, *degraded* (the service manager shows it), images stay; it is opened
                                       anew and tried again every :data:`RETRY_S`. With ``once``: exit status 1
the folder has vanished, EIO, EROFS    one line, exit status 1: the service manager shows that and starts it again
SIGTERM, SIGINT, SIGHUP                the current image is finished; exit status 0, after SIGINT 130
the classifier hangs                   nothing feeds the watchdog: the service manager ends it and starts it again
=====================================  ==============================================================================

Which of the two it is that fails, model or image, is asked of the picture that comes with the program: a model that
fails at that one, too, fails at all. What this does not see: a model that answers, but wrongly.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE
from edge_mdda.console import complain, printable
from edge_mdda.digest import sha256
from edge_mdda.errors import EdgeMddaError, ImageError, WatchError
from edge_mdda.files import Limits, from_os, read_bytes
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.watch.atomic_steps import State
from edge_mdda.watch.sd_notify import Notifier
from edge_mdda.watch.spool import Claim, Spool, failure

if TYPE_CHECKING:
    from edge_mdda.screening import Screener

RETRY_S = 30.0  # after a full disk, for a file that may not be taken, and after the model failed
MAX_FAILURES = 3  # of the model at one image, before that is set aside
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM)
NO_MEMORY = "not enough memory: shrink the image, or lower --max-megapixels"
EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Settings:
    """What to watch and how.

    Attributes
    ----------
    folder : str
        Where images appear.
    settle, poll : float
        Seconds: how long a file must not change, and between two looks.
    once : bool
        End when what was there is screened.
    as_json : bool
        Print JSON lines.
    """

    folder: str
    settle: float
    poll: float
    once: bool = False
    as_json: bool = False


class _Signals:
    """Notes a request to stop, and lets a pause end at once; the handlers before are restored."""

    WANTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.stop: int | None = None

    def __enter__(self) -> _Signals:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in self.WANTED}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop = number

    def pause(self, seconds: float) -> None:
        """Wait, or until a signal comes."""
        if self.stop is None and select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, select.PIPE_BUF)


class Watch:
    """The service.

    Parameters
    ----------
    settings : Settings
    open_screener : callable
        Opens the model, once: at the start, with ``once`` for the first image.
    limits : Limits
        Largest image accepted.
    notifier : Notifier
        Tells the service manager.
    """

    def __init__(
        self, settings: Settings, open_screener: Callable[[], Screener], limits: Limits, notifier: Notifier
    ) -> None:
        self.settings, self.limits, self.notifier = settings, limits, notifier
        self._open_screener = open_screener
        self._screener: Screener | None = None
        self.done = self.failed = self.left = 0
        """Images screened, failed, and not taken or put back."""
        self._said: set[str] = set()
        self._not_before = 0.0
        self._failures: dict[State, int] = {}
        """How often the model failed at an image; forgotten at the end, for a restart is a new chance."""

    def run(self) -> int:
        """Watch until a signal comes, or once.

        Returns
        -------
        int
            Exit status.

        Raises
        ------
        EdgeMddaError
            The folder or the model cannot be used, or not any more.
        """
        try:
            with _Signals() as signals, Spool(self.settings.folder, self.settings.settle) as spool:
                if not self.settings.once:
                    self._open()  # before it says that it is ready
                self._recover(spool)
                self.notifier.ready()
                (self._once if self.settings.once else self._loop)(spool, signals)
                self.notifier.stopping()
        finally:
            if self._screener is not None:
                self._screener.close()
            self.notifier.close()
        if signals.stop == signal.SIGINT:
            return EXIT_INTERRUPTED
        return EXIT_FAILED if self.settings.once and (self.failed or self.left) else EXIT_OK

    def _open(self) -> Screener:
        if self._screener is None:
            self._screener = self._open_screener()
            self.notifier.alive()
            runtime = self._screener.classifier.runtime
            print(f"edge-mdda: {printable(self.settings.folder)}: watched, {runtime}. {NOTICE}", file=sys.stderr)
        return self._screener

    def _recover(self, spool: Spool) -> None:
        try:
            for found in spool.recover(self.notifier.alive):
                if found.result is not None:
                    self._tell(found.name, found.place, found.result)
                else:
                    complain(found.name, "the program ended while this image was screened: it is screened again")
        except OSError as error:
            raise WatchError(f"{spool.folder}: cannot be put in order: {from_os(error)}") from error

    def _look(self, spool: Spool) -> list[str]:
        """Names that may be taken now."""
        self.notifier.alive()
        spool.check()
        try:
            return spool.settled(time.monotonic())
        except OSError as error:
            spool.check()  # says it better if the folder has vanished
            raise WatchError(f"{spool.folder}: cannot be read: {from_os(error)}") from error

    def _work(self, spool: Spool, signals: _Signals, names: list[str]) -> None:
        for name in names:
            if signals.stop is not None or time.monotonic() < self._not_before:
                return
            self._one(spool, name)
            self.notifier.alive()

    def _loop(self, spool: Spool, signals: _Signals) -> None:
        self.notifier.status("waiting for images")
        while signals.stop is None:
            self._work(spool, signals, self._look(spool))
            signals.pause(self.settings.poll)

    def _once(self, spool: Spool, signals: _Signals) -> None:
        """What is there now, and does not change for the settle time; what comes later is for the next time."""
        until = time.monotonic() + self.settings.settle
        self._look(spool)
        there = spool.seen
        while there and signals.stop is None and (left := until - time.monotonic()) > 0:
            self.notifier.alive()
            signals.pause(min(left, self.settings.poll))
        settled = [name for name in self._look(spool) if name in there]
        self.left += len(there & spool.seen) - len(settled)
        self._work(spool, signals, settled)

    # -- one image ----------------------------------------------------------------------------------------

    def _one(self, spool: Spool, name: str) -> None:
        """Claim, screen and place one image; what is wrong with the folder ends the service, or makes it wait."""
        claim: Claim | None = None
        try:
            claim = spool.claim(name)
            if claim is None:
                return
            self.notifier.status(f"screening; {self._counts()}")
            result = self._screen(claim)
            self.notifier.alive()
            if spool.changed(claim):
                spool.put_back(claim)
                complain(name, "someone still writes to it: it is taken again when it rests")
                self.left += 1
                return
            place = spool.finish(claim, result)
        except OSError as error:
            self._after_os_error(spool, name, claim, error)
            return
        except EdgeMddaError as error:
            if self.settings.once or isinstance(error, WatchError) or claim is None:
                if claim is not None:
                    with contextlib.suppress(OSError):  # else the next start finds it in work
                        spool.put_back(claim)
                raise
            self._after_model_error(spool, name, claim, error)
            return
        if self._not_before:
            self._not_before = 0.0
            self._said.clear()
        self._failures.pop(claim.state, None)
        self._tell(name, place, result)

    def _after_model_error(self, spool: Spool, name: str, claim: Claim, error: EdgeMddaError) -> None:
        """An image is set aside at its last failure; a model that fails at every image makes the service wait."""
        broken = self._broken()
        try:
            times = self._failures.get(claim.state, 0) + (broken is None)
            if times >= MAX_FAILURES:
                result = failure(claim.name, None, f"the model failed {times} times at this image alone: {error}")
                place = spool.finish(claim, result)
                self._failures.pop(claim.state, None)
                self._tell(name, place, result)
                return
            self._failures[claim.state] = times
            back = spool.put_back(claim)
        except OSError as second:
            self._after_os_error(spool, name, claim, second)
            return
        self.left += 1
        until = time.monotonic() + RETRY_S
        if broken is None:
            self._say(name, f"{error}; taken again in {RETRY_S:g} s, {MAX_FAILURES} times in all")
            spool.postpone(back, until, claim.state)
            self.notifier.status(f"waiting for images; {self._counts()}")
            return
        self._say(spool.folder, f"degraded: the model fails at every image ({broken}); images stay where they are")
        self.notifier.status(f"degraded: the model fails at every image ({broken}); tried again every {RETRY_S:g} s")
        self._not_before = until

    def _broken(self) -> str | None:
        """Why the model, opened anew, fails at the picture that comes with the program; None: it does not."""
        if self._screener is not None:
            self._screener.close()
            self._screener = None
        self.notifier.alive()
        try:
            self._open().screen(DEMO_IMAGE.read_bytes(), None, DEMO_IMAGE.name)
        except (EdgeMddaError, MemoryError, OSError) as error:
            return str(error) or type(error).__name__
        finally:
            self.notifier.alive()
        return None

    def _screen(self, claim: Claim) -> dict[str, Any]:
        """The result as JSON has it; of an image that cannot be screened, the reason."""
        screener, digest = self._open(), None
        try:
            content = read_bytes(claim.path, self.limits)
            digest = sha256(content).hexdigest()
            return screener.screen(content, None, claim.name).to_dict()
        except ImageError as error:
            return failure(claim.name, digest, str(error))
        except MemoryError:
            return failure(claim.name, digest, NO_MEMORY)

    def _after_os_error(self, spool: Spool, name: str, claim: Claim | None, error: OSError) -> None:
        spool.check()
        if claim is None and error.errno in FORBIDDEN:
            self._say(name, f"cannot be taken: {from_os(error)}")
            spool.postpone(name, time.monotonic() + RETRY_S)
            self.left += 1
            return
        if claim is not None:
            try:
                spool.put_back(claim)
            except OSError as second:
                raise WatchError(f"{name}: cannot be put back, it stays in work: {from_os(second)}") from second
        if error.errno not in NO_SPACE:
            raise WatchError(f"{spool.folder}: {from_os(error)}") from error
        self._say(spool.folder, f"no image can be finished: {from_os(error)}; tried again every {RETRY_S:g} s")
        self.notifier.status(f"no space: paused, tried again every {RETRY_S:g} s; {self._counts()}")
        self._not_before = time.monotonic() + RETRY_S
        self.left += 1

    def _say(self, subject: str, text: str) -> None:
        """A complaint, but not the same one again and again."""
        if (said := f"{subject}: {text}") not in self._said:
            self._said.add(said)
            complain(subject, text)

    def _tell(self, name: str, place: str, result: dict[str, Any]) -> None:
        if "error" in result:
            self.failed += 1
            complain(name, f"{result['error']} (now {place})")
        else:
            self.done += 1
        if self.settings.as_json:
            print(json.dumps(result), flush=True)
        elif "error" not in result:
            advice = f"{result['advice'].upper()}, because {result['rule']}"
            print(f"{printable(name)}: {advice} ({printable(place)})", flush=True)
        self.notifier.status(f"waiting for images; {self._counts()}")

    def _counts(self) -> str:
        return f"{self.done} screened, {self.failed} failed"
