"""``python -m export``: train, evaluate and quantise lesion classifiers on a workstation."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

DEFAULT_DATA = Path("../shared/data/ham10000")


def _add_train(commands: argparse._SubParsersAction) -> None:
    from export.train import TrainOptions

    parser = commands.add_parser("train", help="fine-tune EfficientNet-Lite0, purifier-aware")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="images/ and labels.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint.pt and log.jsonl go here")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from this checkpoint, not from ImageNet")
    parser.add_argument("--threads", type=int, default=1)
    for field in fields(TrainOptions):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from export.train import TrainOptions, train

    options = TrainOptions(**{f.name: getattr(args, f.name) for f in fields(TrainOptions)})

    def progress(step: int, steps: int, loss: float, rate: float) -> None:
        left = (steps - step) * options.batch / rate / 60
        print(f"step {step}/{steps}  loss {loss:.3f}  {rate:.1f} images/s  {left:.0f} min left", flush=True)

    print(train(args.data, args.out, options, init=args.init, threads=args.threads, progress=progress))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
