"""Command line of the robustness benchmark; without a command it runs."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

COMMANDS = (
    "run",
    "tune",
    "ablate",
    "alarm",
    "calibrate",
    "figures",
    "choose-defences",
    "train-surrogate",
    "train-defences",
)
"""Modules of this package with ``add_command(subparsers)``, each named like its command; it sets ``execute``."""

INTERRUPTED = 130  # as a shell reports an interrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.robustness",
        description="How well the defence works, against whom, and at what cost. A referral aid, never a diagnosis.",
        epilog="Without a command: run. Options of it: python -m benchmarks.robustness run --help",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"benchmarks.robustness.{name.replace('-', '_')}").add_command(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if (given[0] if given else "") not in (*COMMANDS, "-h", "--help"):
        given.insert(0, "run")
    parser = _parser()
    args = parser.parse_args(given)
    args.command = " ".join(("python -m benchmarks.robustness", *given))
    from edge_mdda.errors import EdgeMddaError

    try:
        return args.execute(args)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\nrobustness: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImportError as error:
        missing = error.name or str(error)
        print(f'robustness: {missing} is not installed; run: pip install -e ".[robustness]"', file=sys.stderr)
        return 2
    except (EdgeMddaError, OSError) as error:
        print(f"robustness: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
