"""The command line as a whole: its parser, its exit statuses, and what happens to an error that a command leaves.

Parsing imports nothing but the standard library; NumPy, Numba and a runtime load when an image needs them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from edge_mdda import NOTICE, __version__
from edge_mdda.cli import doctor, options, profile, purify, screen, selftest, serve, verify, watch
from edge_mdda.cli.hints import did_you_mean
from edge_mdda.cli.options import EXIT_FAILED, EXIT_INTERRUPTED, NO_MEMORY, stop
from edge_mdda.console import complain, printable
from edge_mdda.errors import EdgeMddaError


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    return _build()[0]


def _build() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
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
    return parser, commands.choices


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, or the end of the program with a hint at what was meant."""
    parser, commands = _build()
    _check_command(argv, commands, parser)
    args, rest = parser.parse_known_args(argv)
    _check_rest(rest, next(commands[word] for word in argv if word in commands))
    return args


def _check_command(argv: Sequence[str], commands: Iterable[str], parser: argparse.ArgumentParser) -> None:
    """Stop with a hint where the first word is no command."""
    if not argv:
        stop(parser, f"no command given: choose from {', '.join(commands)}; 'edge-mdda screen --demo' shows an answer")
    first = argv[0]
    if first.startswith("-") or first in commands:
        return
    if os.path.exists(first):
        stop(parser, f"'{printable(first)}' is no command: to screen it, type edge-mdda screen {printable(first)}")
    hint = did_you_mean(first, commands) or f": choose from {', '.join(commands)}"
    stop(parser, f"unknown command '{printable(first)}'{hint}")


def _check_rest(rest: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Stop with a hint where arguments are left that a command does not know."""
    if rest:
        option = next((word for word in rest if word.startswith("-")), "").partition("=")[0]
        hint = did_you_mean(option, re.findall("--[a-z-]+", parser.format_usage())) if option else ""
        stop(parser, f"unrecognized arguments: {printable(' '.join(rest))}{hint or f': see {parser.prog} --help'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not stop a screening
            stream.reconfigure(errors="backslashreplace")
    args = parse(sys.argv[1:] if argv is None else argv)
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
