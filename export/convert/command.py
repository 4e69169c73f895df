"""The commands ``formats``, ``convert`` and ``setup`` of ``python -m export``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_mdda.errors import EdgeMddaError
from export.convert.formats import FORMATS, Format, as_json, as_table, parse_formats

CONVERT_EXAMPLES = """\
examples:
  python -m export convert runs/stage3/checkpoint.pt --format onnx-int8,tflite-int8 \\
      --calibration ../shared/data/ham10000 --out build
  python -m export convert mynet.zoo:make --weights mynet.safetensors --labels benign,malignant \\
      --malignant malignant --input-size 224 --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4 \\
      --format onnx-fp16 --calibration pictures/ --out build
  python -m export convert net.onnx --labels labels.txt --malignant mel --layout NCHW \\
      --format onnx-int8-tensorrt --calibration pictures/ --verify others/ --out build

One format goes to DIR itself, several to DIR/<format>/: the model, <model>.json, report.json and report.md.
With one format --out may also name the model's file; its reports are then <file>.report.json and .md.
A format that fails a check is not written; the others are, and the exit status is 1.
"""
SETUP_EXAMPLES = """\
examples:
  python -m export setup tflite --print            the commands, without running them
  python -m export setup tflite                    into the user's data folder (about 2 GB)
  python -m export setup tflite --tflite-env DIR   elsewhere; tell convert with the same option
"""
RAW = argparse.RawDescriptionHelpFormatter
NOT_COMMON = {name for f in FORMATS.values() for name in f.arguments}


def _floats(text: str) -> tuple[float, ...]:
    """An argparse type: one number, or one a channel."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or any(v != v or abs(v) == float("inf") for v in values):
        raise argparse.ArgumentTypeError(f"expected one number or three joined by commas, got {text!r}")
    return values


def _stds(text: str) -> tuple[float, ...]:
    values = _floats(text)
    if any(v <= 0 for v in values):
        raise argparse.ArgumentTypeError(f"expected numbers above 0, got {text!r}")
    return values


def _size(text: str) -> tuple[int, int]:
    """An argparse type: ``224`` or ``240x320``, height first."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() for part in parts) or len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 224x224, got {text!r}")
    height, width = int(parts[0]), int(parts[-1])
    if not (16 <= height <= 4096 and 16 <= width <= 4096):
        raise argparse.ArgumentTypeError(f"expected a size from 16 to 4096 pixels, got {text!r}")
    return height, width


def between(low: float, high: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type: a number in a range."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    return convert


def add_commands(commands: Any) -> None:
    """Hook the commands into the parser of ``python -m export``."""
    formats = commands.add_parser("formats", help="the table of export formats")
    formats.add_argument("--json", action="store_true", help="as JSON")
    formats.set_defaults(run=_formats)

    setup = commands.add_parser(
        "setup", help="make the environment of a tool chain", epilog=SETUP_EXAMPLES, formatter_class=RAW
    )
    setup.add_argument("tools", choices=("tflite",), help="litert-torch and its quantiser")
    setup.add_argument(
        "--tflite-env", type=Path, metavar="DIR", help="where; default: $EDGE_MDDA_TFLITE_ENV or XDG data"
    )
    setup.add_argument("--print", action="store_true", dest="show", help="only print the commands")
    setup.set_defaults(run=_setup)
    _add_convert(commands)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert",
        help="a trained model becomes verified files for boards",
        description="Convert a checkpoint, a PyTorch network or an ONNX file, and verify what came out.",
        epilog=CONVERT_EXAMPLES,
        formatter_class=RAW,
    )
    convert.add_argument("model", help="checkpoint.pt, package.module:factory (with --weights), or FILE.onnx")
    convert.add_argument("--format", required=True, metavar="F[,F]", help=f"{', '.join(FORMATS)}, or all")
    convert.add_argument(
        "--calibration", type=Path, required=True, metavar="DIR", help="data set with splits, or a folder of images"
    )
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="model, manifest and report go here")
    convert.add_argument("--json", action="store_true", help="print the reports as one JSON list")

    model = convert.add_argument_group("the model")
    model.add_argument("--weights", type=Path, metavar="FILE", help="state dict or .safetensors of a factory's network")
    model.add_argument("--reference", type=Path, metavar="FILE", help="float checkpoint that fit-int8 began from")
    model.add_argument(
        "--labels",
        metavar="A,B|FILE",
        help="outputs in order; benign,malignant for a network with one output; .json: label to full name",
    )
    model.add_argument(
        "--malignant", metavar="A,B", help="labels in the malignant share (default: akiec, bcc, mel, malignant)"
    )
    model.add_argument("--input-size", type=_size, metavar="HxW", help="height and width")
    model.add_argument("--mean", type=_floats, default=(0.0,), metavar="M[,M,M]", help="of pixels in 0..255 (0)")
    model.add_argument("--std", type=_stds, default=(1.0,), metavar="S[,S,S]", help="of pixels in 0..255 (1)")
    model.add_argument("--layout", choices=("NCHW", "NHWC"), default="NCHW", help="of its own input (%(default)s)")
    model.add_argument("--crop", choices=("squeeze", "center"), default="squeeze", help="(%(default)s)")
    for name, what in (("name", "file name without suffix"), ("training-data", "origin of the weights"),
                       ("training-command", "what trained them"), ("licence", "of the weights")):  # fmt: skip
        model.add_argument(f"--{name}", metavar="TEXT", help=f"{what}, for the manifest")

    how = convert.add_argument_group("how")
    how.add_argument("--calibration-images", type=between(8, 100_000, int), default=400, metavar="N", help="(400)")
    how.add_argument("--float-first", type=between(0, 1000, int), metavar="N", help="convolutions left in float (3)")
    how.add_argument("--weight-scale", choices=("minmax", "octav"), help="of TFLite int8 weights (minmax)")
    how.add_argument("--tflite-env", type=Path, metavar="DIR", help="TFLite tools, see: setup tflite")
    how.add_argument("--refer-at", type=between(0, 1, float), metavar="P", help="threshold (default: chosen on val)")
    how.add_argument("--retake-at", type=between(0, 1, float), metavar="P", help="threshold (default: chosen on val)")
    how.add_argument("--seed", type=between(0, 2**31, int), default=0, metavar="N", help="of all that is random (0)")

    judge = convert.add_argument_group("verification, on images that calibration did not see")
    judge.add_argument(
        "--verify", type=Path, metavar="DIR", help="other images (default: left over from --calibration)"
    )
    judge.add_argument("--verify-labels", type=Path, metavar="FILE.csv", help="columns image_id,dx")
    judge.add_argument(
        "--sources",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="data sets of other clinics (labels.csv with split and dx or malignant): the referral threshold holds its"
        " sensitivity on val of each, and test of each is reported",
    )
    judge.add_argument("--split", default="test", help="of a data set (%(default)s)")
    judge.add_argument("--max-images", type=between(1, 10**7, int), metavar="N", help="judge by so many at most")
    judge.add_argument("--purify", choices=("off", "on", "both"), default="both", help="views (%(default)s)")

    gates = convert.add_argument_group("gates; defaults: int8 0.98 and 0.02, the others 0.995 and 0.001")
    gates.add_argument("--min-agreement", type=between(0, 1, float), metavar="P", help="with the source's top class")
    gates.add_argument("--max-kl", type=between(0, 100, float), metavar="NATS", help="mean divergence")
    gates.add_argument("--max-balanced-loss", type=between(0, 1, float), metavar="P", help="of accuracy (0.005)")
    gates.add_argument("--max-melanoma-loss", type=between(0, 1, float), metavar="P", help="of recall (0.02)")
    gates.add_argument("--max-bytes", type=between(1, 2**31, int), metavar="N", help="of the file (no limit)")
    gates.add_argument("--min-images", type=between(1, 10**7, int), default=50, metavar="N", help="to judge by (50)")
    convert.set_defaults(run=_convert)


def _formats(args: argparse.Namespace) -> int:
    print(json.dumps(as_json(), indent=2) if args.json else as_table())
    return 0


def _setup(args: argparse.Namespace) -> int:
    from export.convert import tflite

    folder = tflite.environment(args.tflite_env)
    if args.show:
        for command in tflite.setup_commands(folder):
            print(shlex.join(command))
        return 0
    tflite.setup(folder)
    print(folder)
    return 0


def _check_arguments(args: argparse.Namespace, formats: tuple[Format, ...]) -> None:
    """An option that none of the formats takes is a mistake, not to be passed over."""
    taken = {name for f in formats for name in f.arguments}
    for name in sorted(NOT_COMMON - taken):
        if getattr(args, name) is not None:
            names = ", ".join(f.name for f in formats)
            raise EdgeMddaError(f"--{name.replace('_', '-')} is no option of {names}; see: python -m export formats")
    if (args.refer_at is None) != (args.retake_at is None):
        raise EdgeMddaError("--refer-at and --retake-at go together")


def _convert(args: argparse.Namespace) -> int:
    formats = parse_formats(args.format)
    _check_arguments(args, formats)
    from export.convert.conversion import Conversion, Request
    from export.convert.labels import read_label_names
    from export.convert.parity import Gates
    from export.convert.report import as_table as reports_table
    from export.convert.report import plain
    from export.convert.sources import SourceOptions, open_source

    names_file = len(formats) == 1 and args.out.suffix == formats[0].suffix
    if args.out.exists() and args.out.is_dir() == names_file:  # now, not after minutes of work
        found, wanted = ("folder", "file") if names_file else ("file", "folder")
        raise EdgeMddaError(f"{args.out}: is a {found}; name a {wanted} with --out")
    if any(f.is_tflite for f in formats):
        from export.convert import tflite

        if importlib.util.find_spec("ai_edge_litert") is None:
            raise EdgeMddaError("no TFLite runtime to verify with; run: pip install ai-edge-litert")
        tflite.interpreter(tflite.environment(args.tflite_env))
    options = SourceOptions(
        labels=read_label_names(args.labels) if args.labels else None,
        malignant=tuple(args.malignant.split(",")) if args.malignant else None,
        **{n: getattr(args, n) for n in _names(SourceOptions) - {"labels", "malignant"}},
    )
    source = open_source(args.model, options)
    chosen = {"float_first": args.float_first, "weight_scale": args.weight_scale}
    request = Request(
        formats=formats,
        command=shlex.join(["python", "-m", "export", *args.argv]),
        gates=Gates(**{n: getattr(args, n) for n in _names(Gates)}),
        verification=args.verify,
        verification_labels=args.verify_labels,
        sources=tuple(args.sources),
        **{n: getattr(args, n) for n in ("calibration", "out", "split", "calibration_images", "max_images", "purify",
                                         "seed", "tflite_env", "refer_at", "retake_at")},
        **{n: value for n, value in chosen.items() if value is not None},
    )  # fmt: skip
    conversion = Conversion(source, request, lambda text: print(text, file=sys.stderr, flush=True))
    reports, failed = [], 0
    for f in formats:
        try:
            reports.append(conversion.convert(f))
        except EdgeMddaError as error:
            print(f"export: {f.name}: {error}; not written", file=sys.stderr)
            failed += 1
    if reports:
        print(json.dumps(plain(reports), indent=2) if args.json else reports_table(reports))
    return 1 if failed else 0


def _names(kind: Any) -> set[str]:
    return {f.name for f in fields(kind)}
