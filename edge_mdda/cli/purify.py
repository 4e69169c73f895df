"""``edge-mdda purify``: one picture, purified at its own size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK, limits, read_picture
from edge_mdda.console import complain, printable
from edge_mdda.errors import ImageError, ParamsError
from edge_mdda.mdda.params import PRESETS

EXAMPLES = """\
examples:
  edge-mdda purify lesion.jpg purified.png
  edge-mdda purify --preset strong --seed 7 lesion.jpg purified.png
"""


def add_command(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    purify = commands.add_parser(
        "purify",
        parents=list(parents),
        help="purify one image at its own size",
        description="Purify one image at its own size and write it as PNG.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    purify.add_argument("source", metavar="IN", help="image file, or - for standard input")
    purify.add_argument("target", metavar="OUT", type=Path, help="PNG file to write")
    purify.set_defaults(run=_run, parser=purify)


def _run(args: argparse.Namespace) -> int:
    if args.target.suffix.lower() != ".png":
        args.parser.error(f"OUT must end in .png (lossless), got {args.target}")
    from edge_mdda.picture.decode import decode, write_png

    try:
        picture = decode(read_picture(args.source, limits(args)), limits(args))
        from edge_mdda.mdda.purifier import Purifier
        from edge_mdda.mdda.seeds import fresh_seed

        seed = fresh_seed() if args.seed is None else args.seed
        try:
            height, width = picture.shape[:2]
            with Purifier(height, width, PRESETS[args.preset], args.threads) as purifier:
                purified = purifier.purify(picture, seed)
        except ParamsError as error:
            raise ImageError(f"{error}; resize the image first") from error
    except ImageError as error:
        complain("standard input" if args.source == "-" else args.source, error)
        return EXIT_FAILED
    try:
        write_png(args.target, purified)
    except ImageError as error:
        complain(str(args.target), error)
        return EXIT_FAILED
    print(f"{printable(str(args.target))}: preset {args.preset}, seed {seed}")
    return EXIT_OK
