"""What every command line of the workstation does around a command: exit statuses, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edge_mdda.errors import EdgeMddaError

INTERRUPTED = 130


def run(program: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, run the command's ``run`` and return its exit status.

    Parameters
    ----------
    program : str
        Stands before each error, and names the extra with the packages that may be missing.
    parser : argparse.ArgumentParser
        Its commands set ``run``; they find their own arguments in ``argv``.
    argv : sequence of str, optional
        Default: those of this process.
    """
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return int(args.run(args))
    except EdgeMddaError as error:
        print(f"{program}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{program}: {error.filename or 'error'}: {error.strerror or error}", file=sys.stderr)
    except ImportError as error:
        print(f"{program}: {error.name} is not installed; run: pip install -e '.[{program}]'", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1
