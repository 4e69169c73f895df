"""The command line as a whole: its parser, its exit statuses, and what happens to an error that a command leaves.

Parsing imports nothing but the standard library; NumPy, Numba and a runtime load when an image needs them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from edge_mdda import NOTICE, __version__
from edge_mdda.cli import doctor, options, profile, purify, screen, selftest, serve, verify, watch
from edge_mdda.cli.options import EXIT_FAILED, EXIT_INTERRUPTED, NO_MEMORY
from edge_mdda.console import complain
from edge_mdda.errors import EdgeMddaError


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-mdda",
        description=f"Screen skin lesions on this device, with tampered images purified. {NOTICE}",
        epilog="'edge-mdda COMMAND --help' shows a command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"edge-mdda {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common, replay, screening = options.with_purifier(), options.with_seed(), options.with_screener()
    screen.add_command(commands, [common, replay, screening])
    purify.add_command(commands, [common, replay])
    verify.add_command(commands)
    doctor.add_command(commands)
    profile.add_command(commands)
    selftest.add_command(commands)
    watch.add_command(commands, [common, screening])
    serve.add_command(commands, [common, screening])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not stop a screening
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    if sys.stdout is None:
        complain("standard output", "closed: the answer would be lost")
        return EXIT_FAILED
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        status = run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone: point stdout elsewhere, or Python complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if not _is_writable(sys.stdout):
            complain(
                "standard output", f"cannot be written ({error.strerror}): free some space or choose another place"
            )
            sys.stdout = None  # Python would try to flush it once more
            return EXIT_FAILED
        where = "" if error.filename is None else f"{error.filename}: "
        complain("error", f"{where}{error.strerror or error}")
        return EXIT_FAILED
    except MemoryError:
        complain("memory", NO_MEMORY)
        return EXIT_FAILED
    except EdgeMddaError as error:
        complain("error", error)
        return EXIT_FAILED
    return status


def _is_writable(stream: TextIO) -> bool:
    """Whether what was printed can leave; what could not be written is still there and fails again."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
