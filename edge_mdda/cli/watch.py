"""``edge-mdda watch``: its options and what runs it. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli.options import limits, open_screener, real

MAX_SECONDS = 3600.0
SETTLE_S, POLL_S = 2.0, 1.0
EXAMPLES = """\
examples:
  edge-mdda watch inbox/                             until it is stopped (Ctrl-C, SIGTERM)
  edge-mdda watch --once inbox/                      what is there now, for cron
  edge-mdda watch --json inbox/ >> screened.jsonl    one JSON object a line
  edge-mdda watch --runtime tflite --preset strong --threads 4 inbox/

Each image ends, with NAME.json beside it, in inbox/done or, if it cannot be screened, in inbox/failed; exactly once,
whatever kills the program. The JSON is that of 'edge-mdda screen --json', or says why there is none ("error").
Hidden and temporary names (.part, .tmp, ...), links and folders are left alone, and so is a file that still changes.
File names appear in the log: use none that tell who the patient is.

exit status: 0 stopped by SIGTERM; with --once: every image screened. 1 the folder or the model cannot be used (any
more); with --once also: an image failed or is still there. 2 wrong usage, 130 interrupted
"""


def add_command(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's ``add_subparsers``; ``parents`` hold the options that ``screen`` has, too."""
    watch = commands.add_parser(
        "watch",
        parents=list(parents),
        help="screen what appears in a folder",
        description=f"Screen what appears in a folder, each image once. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    watch.add_argument("folder", metavar="FOLDER", help="where images appear; gets the folders work, done and failed")
    watch.add_argument("--once", action="store_true", help="screen what is there now, then end")
    watch.add_argument(
        "--settle",
        type=real(0, MAX_SECONDS, "seconds"),
        default=SETTLE_S,
        metavar="S",
        help="seconds for which a file must not change before it is taken (%(default)g)",
    )
    watch.add_argument(
        "--poll",
        type=real(0.05, MAX_SECONDS, "seconds"),
        default=POLL_S,
        metavar="S",
        help="seconds between two looks (%(default)g)",
    )
    watch.add_argument("--json", action="store_true", help="one JSON object a line")
    watch.set_defaults(run=_run_watch, parser=watch)


def _run_watch(args: argparse.Namespace) -> int:
    from edge_mdda.watch.sd_notify import Notifier
    from edge_mdda.watch.service import Settings, Watch

    settings = Settings(args.folder, args.settle, args.poll, args.once, args.json)
    return Watch(settings, lambda: open_screener(args), limits(args), Notifier()).run()
