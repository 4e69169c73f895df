"""``edge-mdda`` in a process of its own that does one bad thing, for the tests of ``edge-mdda watch``.

``python watch_child.py kill N ARGUMENTS``: SIGKILL after the N-th step on files (0: before the first); without a kill
the number of steps is the last line on standard error.
``python watch_child.py hang NAME ARGUMENTS``: screening never returns for images whose name begins so.
``python watch_child.py slow SECONDS ARGUMENTS``: screening takes so much longer.
``python watch_child.py break - ARGUMENTS``: the model fails at every image.
``python watch_child.py fail NAME ARGUMENTS``: the model fails at images whose name begins so, and tries again at once.
``python watch_child.py mend FILE ARGUMENTS``: the model fails at every image until that file is there.
``python watch_child.py retry SECONDS ARGUMENTS``: tries again so soon after a full disk.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any


class Steps:
    """Counts what changes the file system, and kills the process after the wanted one."""

    NAMES = ("rename", "replace", "link", "unlink", "fsync", "mkdir")

    def __init__(self, wanted: int) -> None:
        self.wanted, self.count = wanted, 0
        from edge_mdda.watch import spool

        for name in self.NAMES:
            setattr(os, name, self.after(getattr(os, name)))
        os.open = self.after(os.open, lambda _, flags, *rest: flags & os.O_CREAT)
        spool.rename_new = self.after(spool.rename_new)
        self.kill()

    def kill(self) -> None:
        if self.count == self.wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, call: Callable[..., Any], counts: Callable[..., Any] = lambda *_, **__: True) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            if counts(*arguments, **named):
                self.count += 1
                self.kill()
            return result

        return wrapped


def main(what: str, value: str, *arguments: str) -> int:
    from edge_mdda.cli import main as cli
    from edge_mdda.errors import ModelError
    from edge_mdda.screening import Screener
    from edge_mdda.watch import service as watch

    screen = Screener.screen

    def changed(self: Screener, source: Any, seed: int | None = None, name: str = "-") -> Any:
        if what == "hang" and name.startswith(value):
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            time.sleep(1e6)
        if what == "slow":
            time.sleep(float(value))
        if what == "break":
            raise ModelError("the model cannot run")
        if what == "fail" and name.startswith(value):
            raise ModelError("the model cannot run")
        if what == "mend" and not os.path.exists(value):
            raise ModelError("the model cannot run")
        return screen(self, source, seed, name)

    Screener.screen = changed
    if what in ("fail", "mend"):
        watch.RETRY_S = 0.2
    if what == "retry":
        watch.RETRY_S = float(value)
    steps = Steps(int(value)) if what == "kill" else None
    status = cli.main(arguments)
    if steps:
        print(steps.count, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
