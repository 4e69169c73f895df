"""``python -m export``: train, evaluate and quantise lesion classifiers, compile kernels; on a workstation.

A referral aid is made here, never a diagnosis.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.params import PRESETS
from export import command_line, operate, signing
from export.archive import command as archive
from export.convert import command as conversion
from export.dataset import SPLITS
from export.options import HardenOptions, Int8Options, TrainOptions

DEFAULT_DATA = Path("../shared/data/ham10000")
DEFAULT_SOURCES = DEFAULT_DATA.parent
DEMO = Path("edge_mdda/models/demo-synthetic.jpg")
SHORT_WAY = ("--min-agreement", "0.9", "--max-kl", "0.1", "--max-balanced-loss", "0.05", "--max-melanoma-loss", "0.1")
"""Gates of ``quantise``: what a network that was not fitted to int8 first can pass."""

EXAMPLES = """\
examples:
  python -m export train --out runs/stage1 --size 160 --purify-share 0
  python -m export train --out runs/stage2 --init runs/stage1/checkpoint.pt
  python -m export formats
  python -m export convert runs/stage2/checkpoint.pt --format all --calibration ../shared/data/ham10000 --out build
  python -m export fit-int8 runs/stage2/checkpoint.pt --out runs/int8
  python -m export quantise runs/int8/checkpoint.pt --reference runs/stage2/checkpoint.pt
  python -m export evaluate --split test --purify on --json out.json
  python -m export kernels --cpu cortex-a72 --out dist/
  python -m export evaluate --model other.onnx --images DIR --labels FILE.csv
  python -m export evaluate --source all --json sources.json
  python -m export operate --images DIR --labels FILE.csv --out operating-point.json
"""


KERNELS_EXAMPLES = """\
examples:
  python -m export kernels                               for this machine, where edge-mdda finds it
  python -m export kernels --cpu cortex-a72 --out dist/  Raspberry Pi 4
CPUs of boards: cortex-a53 (Pi 3, Zero 2 W), cortex-a72 (Pi 4), cortex-a76 (Pi 5), cortex-a78ae (Jetson Orin)
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="fine-tune an EfficientNet-Lite, purifier-aware")
    _add_data(train)
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint.pt and log.jsonl go here")
    train.add_argument("--init", type=Path, metavar="FILE", help="start from this checkpoint, not from ImageNet")
    train.add_argument("--threads", type=_at_least(1), default=1, help="of the tensor library (%(default)s)")
    _add_options(train, TrainOptions)
    train.set_defaults(run=_train)

    harden = commands.add_parser("harden", help="adversarial training of a checkpoint, the purifier in the loop")
    _add_data(harden)
    harden.add_argument("checkpoint", type=Path)
    harden.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint.pt and log.jsonl go here")
    harden.add_argument("--threads", type=_at_least(1), default=1, help="of the tensor library (%(default)s)")
    harden.add_argument(
        "--teacher",
        type=Path,
        metavar="CHECKPOINT",
        help="its answers to untouched pictures are learnt beside the labels",
    )
    _add_options(harden, HardenOptions)
    harden.set_defaults(run=_harden)

    mean = commands.add_parser("average", help="the weighted mean of two checkpoints that began as one")
    mean.add_argument("checkpoints", type=Path, nargs=2, metavar="CHECKPOINT")
    mean.add_argument(
        "--share",
        type=conversion.between(0, 1, float),
        default=0.5,
        metavar="S",
        help="of the second, 0 to 1 (%(default)s)",
    )
    mean.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint.pt goes here")
    mean.set_defaults(run=_average)

    fit = commands.add_parser("fit-int8", help="fit a float checkpoint to int8: ranges, rounding, fine-tuning")
    _add_data(fit)
    fit.add_argument("checkpoint", type=Path)
    fit.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint.pt and log.jsonl go here")
    fit.add_argument("--threads", type=_at_least(1), default=1, help="of the tensor library (%(default)s)")
    _add_options(fit, Int8Options)
    fit.set_defaults(run=_fit_int8)

    evaluate = commands.add_parser("evaluate", help="figures with intervals for any of our model files")
    _add_data(evaluate)
    evaluate.add_argument("--model", type=Path, metavar="FILE", help=".onnx, .tflite or .pt (default: the built-in)")
    evaluate.add_argument("--runtime", choices=("onnx", "tflite"), help="default: by the model's suffix")
    evaluate.add_argument("--split", choices=SPLITS, default="test", help="split of --data (%(default)s)")
    evaluate.add_argument("--images", type=Path, metavar="DIR", help="any other set, with --labels, instead of --split")
    evaluate.add_argument("--labels", type=Path, metavar="FILE.csv", help="columns image_id,dx")
    evaluate.add_argument(
        "--source",
        metavar="NAME",
        help="a folder of --sources-root, or all: figures by source and the worst, by subgroup and patient, as screened"
        " with both views",
    )
    evaluate.add_argument("--sources-root", type=Path, default=DEFAULT_SOURCES, metavar="DIR", help="(%(default)s)")
    evaluate.add_argument("--purify", choices=("off", "on", "both"), default="both", help="(%(default)s)")
    evaluate.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="(%(default)s)")
    evaluate.add_argument("--seed", type=_at_least(0), default=0, help="of purifier and bootstrap (%(default)s)")
    evaluate.add_argument("--threads", type=_at_least(1), default=1, help="of the runtime (%(default)s)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    evaluate.set_defaults(run=_evaluate)

    quantise = commands.add_parser("quantise", help="convert --format onnx-int8 with wide gates, in short")
    _add_data(quantise)
    quantise.add_argument("checkpoint", type=Path)
    quantise.add_argument("--out", type=Path, default=Path("lesion-int8.onnx"), metavar="FILE", help="(%(default)s)")
    quantise.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="float checkpoint to agree with; needed after fit-int8",
    )
    quantise.add_argument("--seed", type=_at_least(0), default=0, help="of the calibration images (%(default)s)")
    quantise.set_defaults(run=_quantise)

    conversion.add_commands(commands)
    signing.add_commands(commands)
    archive.add_commands(commands)
    operate.add_commands(commands)

    kernels = commands.add_parser(
        "kernels",
        help="cross-compile the purifier for a board's CPU",
        description="Compile every kernel into one shared library, for boards without Numba.",
        epilog=KERNELS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kernels.add_argument("--cpu", default="host", help="LLVM's name of the CPU, or host (%(default)s)")
    kernels.add_argument("--out", type=Path, metavar="DIR", help="default: where edge-mdda looks on this machine")
    kernels.add_argument("--json", action="store_true", help="print the descriptor as JSON")
    kernels.set_defaults(run=_kernels)

    demo = commands.add_parser("demo", help="draw the synthetic demo picture")
    demo.add_argument("--out", type=Path, default=DEMO, metavar="FILE", help="(%(default)s)")
    demo.set_defaults(run=_demo)
    return parser


def _add_options(
    parser: argparse.ArgumentParser, options: type[TrainOptions] | type[HardenOptions] | type[Int8Options]
) -> None:
    for field in fields(options):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{field.metadata['help']} (%(default)s)",
        )


def _at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``low`` on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} on, got {text!r}")
        return value

    return convert


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help="images/ and labels.csv with splits (%(default)s)",
    )


def _step_printer(total: int) -> Callable[[], None] | None:
    """Counts images on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    done, started = 0, time.monotonic()

    def step() -> None:
        nonlocal done
        done += 1
        rate = done / max(time.monotonic() - started, 1e-9)
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} images, {rate:.0f}/s", end=end, file=sys.stderr, flush=True)

    return step


def _train(args: argparse.Namespace) -> int:
    from export.train.fine_tune import train

    options = TrainOptions(**{f.name: getattr(args, f.name) for f in fields(TrainOptions)})

    progress = _training_printer(options.batch)
    print(train(args.data, args.out, options, init=args.init, threads=args.threads, progress=progress))
    return 0


def _harden(args: argparse.Namespace) -> int:
    from export.train.harden import harden

    options = HardenOptions(**{f.name: getattr(args, f.name) for f in fields(HardenOptions)})
    progress = _training_printer(options.batch)
    where = (args.data, args.checkpoint, args.out)
    print(harden(*where, options, teacher=args.teacher, threads=args.threads, progress=progress))
    return 0


def _average(args: argparse.Namespace) -> int:
    from export.train.average import average

    first, second = args.checkpoints
    print(average(first, second, args.share, args.out))
    return 0


def _fit_int8(args: argparse.Namespace) -> int:
    from export.train.fit_int8 import fit_int8

    options = Int8Options(**{f.name: getattr(args, f.name) for f in fields(Int8Options)})
    progress = _training_printer(options.batch)
    print(fit_int8(args.data, args.checkpoint, args.out, options, threads=args.threads, progress=progress))
    return 0


def _training_printer(batch: int) -> Callable[[int, int, float, float], None]:
    def progress(step: int, steps: int, loss: float, rate: float) -> None:
        left = (steps - step) * batch / rate / 60
        print(f"step {step}/{steps}  loss {loss:.4f}  {rate:.1f} images/s  {left:.0f} min left", flush=True)

    return progress


def _evaluate(args: argparse.Namespace) -> int:
    from export.dataset import read_labels, read_split
    from export.evaluate import evaluate, open_any, table, write_json

    if (args.images is None) != (args.labels is None):
        raise EdgeMddaError("--images and --labels go together")
    if args.json and not args.json.absolute().parent.is_dir():  # now, not after minutes of work
        raise EdgeMddaError(f"{args.json}: there is no such folder to write to")
    if args.source:
        return _evaluate_sources(args)
    classifier = open_any(args.model, args.runtime, args.threads)
    labels = tuple(classifier.manifest.labels)
    data = (
        read_labels(args.images, args.labels, None, labels)
        if args.images
        else read_split(args.data, args.split, labels)
    )
    step = _step_printer(len(data) * (2 if args.purify == "both" else 1))
    result = evaluate(classifier, data, args.purify, args.preset, args.seed, step)
    if args.json:  # first: a reader of the table may go away
        write_json(args.json, result)
    print(table(result))
    return 0


def _evaluate_sources(args: argparse.Namespace) -> int:
    from edge_mdda.screening import Screener
    from export.by_source import evaluate_sources, find_sources, sources_table
    from export.evaluate import write_json

    if args.images:
        raise EdgeMddaError("--source and --images exclude each other: a source has its own labels.csv")
    if args.model and args.model.suffix == ".pt":
        raise EdgeMddaError(f"{args.model}: --source screens as the board does; convert the checkpoint first")
    folders = find_sources(args.sources_root, args.source)
    with Screener(args.model, args.runtime, preset=args.preset, threads=args.threads) as screener:
        result = evaluate_sources(screener, folders, args.split, args.seed, _step_printer)
    if args.json:  # first: a reader of the table may go away
        write_json(args.json, result)
    print(sources_table(result))
    return 0


def _quantise(args: argparse.Namespace) -> int:
    reference = ["--reference", str(args.reference)] if args.reference else []
    return main(
        ["convert", str(args.checkpoint), *reference, "--format", "onnx-int8", "--calibration", str(args.data),
         "--out", str(args.out), "--seed", str(args.seed), *SHORT_WAY]
    )  # fmt: skip


def _kernels(args: argparse.Namespace) -> int:
    from edge_mdda.mdda.kernels.native import user_folder
    from export.native.build import build

    library = build(args.cpu, args.out or Path(user_folder()))
    if args.json:
        print(json.dumps(asdict(library)))
    else:
        needs = f"needs {', '.join(library.features)}" if library.features else f"runs on any {library.arch}"
        print(f"{library.path}: {len(library.kernels)} kernels for {library.cpu}, {needs}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from export.demo import write_demo

    write_demo(args.out)
    print(args.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return command_line.run("export", build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
