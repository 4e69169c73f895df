"""The command ``archive`` of ``python -m export``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mdda.errors import ModelError
from edge_mdda.mdda.params import PRESETS
from export.errors import ExportError

if TYPE_CHECKING:
    from export.archive.rows import Settings
    from export.archive.store import Plan, Store

BATCH = 25  # pictures a task: about a second, against a millisecond that a task costs
ROWS_PER_PART = 2000  # pictures a file: what a kill of this process can cost, and 5,000 files for ten million
SAY_EVERY = 10.0  # seconds between two lines where there is no terminal
EXAMPLES = """\
examples:
  python -m export archive pictures/ --out results.parquet
  python -m export archive list.txt --out results.parquet --workers 8      one path a line
  python -m export archive s3://bucket/pictures --out results.parquet      needs s3fs here and on the workers
  python -m export archive /mnt/pictures --out results.parquet --cluster tcp://10.0.0.5:8786

After a kill the same command goes on: a part of the results is there whole or not at all. The list of pictures is kept
with the results; pictures that come later need another --out. A picture that cannot be read is a row with a reason.
Read the folder with pandas, DuckDB, Dask or pyarrow.

On a cluster, start the scheduler and the workers in the project's folder ('PYTHONPATH=. dask scheduler', 'PYTHONPATH=.
dask worker ADDRESS --nthreads 1'); the workers must see the pictures and the model under the same paths.
"""


def _positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def add_commands(commands: Any) -> None:
    """Hook the command into the parser of ``python -m export``."""
    archive = commands.add_parser(
        "archive",
        help="screen a whole archive, on several processes or machines",
        description="Screen each picture of an archive with both views into a table: a referral aid, no diagnosis.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    archive.add_argument("source", help="a folder, a text file with one path a line, or an address such as s3://...")
    archive.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the results, such as results.parquet"
    )
    where = archive.add_mutually_exclusive_group()
    where.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler (default: processes of this machine)")
    where.add_argument("--workers", type=_positive, metavar="N", help="processes here (default: one for each core)")
    archive.add_argument("--model", type=Path, metavar="FILE", help=".onnx or .tflite (default: the built-in)")
    archive.add_argument("--runtime", choices=("onnx", "tflite"), help="default: by the model's suffix")
    archive.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="of the purifier (%(default)s)")
    archive.add_argument("--batch", type=_positive, default=BATCH, metavar="N", help="pictures a task (%(default)s)")
    archive.add_argument("--part", type=_positive, default=ROWS_PER_PART, metavar="N", help="rows a file (%(default)s)")
    archive.set_defaults(run=_run)


class _Counter:
    """How far it is, on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self, done: int, total: int) -> None:
        from edge_mdda.console import Progress

        self.bar, self.done, self.new, self.total = Progress(total), done, 0, total
        self.first: float | None = None
        self.of_first = 0
        self.said = self.last = time.monotonic()

    def add(self, rows: int) -> None:
        self.new += rows
        self.last = time.monotonic()
        if self.first is None:
            self.first, self.of_first = self.last, rows
        self.bar.at(self.done + self.new)
        if not self.bar.active and self.last - self.said >= SAY_EVERY:
            self.said = self.last
            print(f"{self.done + self.new:,} of {self.total:,} pictures{self.rate}", file=sys.stderr, flush=True)

    @property
    def rate(self) -> str:
        """New rows a second after the first batch, until when each worker opens the model; nothing of one batch."""
        if self.first is None or self.new == self.of_first:
            return ""
        return f", {(self.new - self.of_first) / max(self.last - self.first, 1e-9):.1f} pictures/s"


def _run(args: argparse.Namespace) -> int:
    _require_packages()
    from edge_mdda.classifier import open_classifier
    from export.archive.cluster import connected
    from export.archive.rows import Settings, columns
    from export.archive.scheduler import run
    from export.archive.store import NO_ANSWER, Store

    if args.model and args.model.suffix not in (".onnx", ".tflite"):
        raise ModelError(f"{args.model}: not .onnx or .tflite; convert it first (python -m export convert)")
    manifest = open_classifier(args.model, args.runtime, 1).manifest
    model = str(args.model.absolute()) if args.model else None
    settings = Settings(model, args.runtime, args.preset, manifest.sha256)
    with Store(args.out) as store:
        plan = _plan(store, args, settings)
        missing = store.missing(plan)
        there = plan.pictures - sum(map(plan.rows_of, missing))
        if there:
            later = "pictures that came later need another --out"
            print(f"{there:,} of {plan.pictures:,} pictures are there already; {later}", file=sys.stderr)
        counter = _Counter(there, plan.pictures)
        if missing:
            schema = columns(tuple(manifest.labels), settings)
            with connected(args.cluster, args.workers or len(os.sched_getaffinity(0))) as client:
                parts = store.names(plan, missing)
                run(client, settings, parts, plan.rows_of, args.batch, partial(store.write, plan, schema), counter.add)
        counter.bar.clear()
        counts = store.advice(plan)
    said = ", ".join(f"{counts[kind]:,} {kind.upper()}" for kind in ("refer", "retake", "routine"))
    none = f"{counts[NO_ANSWER]:,} without an answer"
    print(f"{plan.pictures:,} pictures: {said}, {none}{counter.rate}; {args.out}")
    return 0


def _plan(store: Store, args: argparse.Namespace, settings: Settings) -> Plan:
    """That of an earlier run, which must have asked for the same, or a new one."""
    from dataclasses import asdict

    from export.archive.listing import is_remote, pictures_of

    source = args.source if is_remote(args.source) else os.path.abspath(args.source)
    plan = store.plan()
    if plan is None:
        return store.begin(source, pictures_of(source), args.part, settings)
    before = {"source": plan.source, **asdict(plan.settings)}
    changed = [name for name, value in {"source": source, **asdict(settings)}.items() if before[name] != value]
    if changed:
        raise ExportError(f"{args.out}: was begun with another {', '.join(changed)}; choose another --out")
    return plan


def _require_packages() -> None:
    try:
        import distributed  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ExportError(f"archives need {error.name}; run: pip install -e '.[cluster]'") from error
