"""Options that several commands share, their types, and the screener that they ask for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge_mdda.cli.hints import did_you_mean, file_hint
from edge_mdda.errors import ImageError, ModelError, UnreadableImageError
from edge_mdda.files import Limits, read_bytes, read_stream
from edge_mdda.mdda.params import MAX_DRAWS, PRESETS

if TYPE_CHECKING:
    from edge_mdda.screening import Screener

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
MAX_THREADS = 256
PROVIDERS = ("cpu", "cuda", "tensorrt", "auto")
MODEL_HELP = (
    "standard (default), broad (trained on three sources: refers more melanomas of other clinics), hardened (trained"
    " against who knows the purifier, errs more often on clean pictures), or your own .onnx or .tflite"
)
PROVIDER_HELP = "what ONNX Runtime runs on; auto: the fastest that loads (%(default)s)"
THREADS_SETTING, PRESET_SETTING = "EDGE_MDDA_THREADS", "EDGE_MDDA_PRESET"  # what a board's configuration sets
NO_MEMORY = "not enough memory: try a smaller image or fewer threads, or close other programs"
MAX_REMARK = 500  # characters
MAX_PIXELS, MAX_BYTES = 40_000_000, 32 * 2**20  # of a picture, by default


def stop(parser: argparse.ArgumentParser, cause: str) -> NoReturn:
    """End with the status of wrong usage and one line; with a whole usage before it a hint would not be read."""
    parser.exit(EXIT_USAGE, f"{parser.prog}: error: {cause}\n")


def number(low: float, high: float, unit: int = 1) -> Callable[[str], int]:
    """An argparse type: a number in a range, times ``unit``, as a whole number."""

    def convert(text: str) -> int:
        try:
            value = int(text) if unit == 1 else float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            kind = "a whole number" if unit == 1 else "a number"
            raise argparse.ArgumentTypeError(f"expected {kind} from {low:g} to {high:g}, got {text!r}")
        return int(value * unit)

    return convert


def preset(text: str) -> str:
    """An argparse type: the name of a preset; argparse does not hold a default against ``choices``."""
    if text not in PRESETS:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(PRESETS)}, got {text!r}{did_you_mean(text, PRESETS)}"
        )
    return text


def remark(text: str) -> str:
    """An argparse type: a line of text that a person gave, to be carried along."""
    text = text.strip()
    if not text or len(text) > MAX_REMARK or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected one line of 1 to {MAX_REMARK} printable characters, got {text!r}")
    return text


def real(low: float, high: float, what: str = "a number") -> Callable[[str], float]:
    """An argparse type: a number in a range; ``what`` is what the complaint calls it."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {what} from {low:g} to {high:g}, got {text!r}")
        return value

    return convert


def with_purifier() -> argparse.ArgumentParser:
    """Options of whatever purifies: preset, threads, limits of a picture."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--preset",
        type=preset,
        choices=tuple(PRESETS),
        default=os.environ.get(PRESET_SETTING) or "balanced",
        help=f"purifier strength (%(default)s; a board's default: {PRESET_SETTING})",
    )
    common.add_argument(
        "--threads",
        type=number(1, MAX_THREADS),
        default=os.environ.get(THREADS_SETTING) or 1,
        metavar="N",
        help=f"threads to use (%(default)s; a board's default: {THREADS_SETTING})",
    )
    common.add_argument(
        "--max-megapixels",
        type=number(0.001, 1000, 10**6),
        default=MAX_PIXELS,
        dest="max_pixels",
        metavar="N",
        help="largest image accepted (40)",
    )
    common.add_argument(
        "--max-megabytes",
        type=number(0.001, 1024, 2**20),
        default=MAX_BYTES,
        dest="max_bytes",
        metavar="N",
        help="largest file accepted (32)",
    )
    return common


def with_seed() -> argparse.ArgumentParser:
    """The option that repeats a purification."""
    replay = argparse.ArgumentParser(add_help=False)
    replay.add_argument(
        "--seed", type=number(0, 2**64 - 1), metavar="N", help="purifier's seed (default: a fresh one each image)"
    )
    return replay


def with_screener() -> argparse.ArgumentParser:
    """Options of whatever screens: model, runtime, views."""
    screening = argparse.ArgumentParser(add_help=False)
    screening.add_argument(
        "--purify", choices=("off", "on", "both"), default="both", help="views to classify (%(default)s)"
    )
    screening.add_argument("--model", type=Path, metavar="MODEL", help=MODEL_HELP)
    screening.add_argument(
        "--draws",
        type=number(1, MAX_DRAWS),
        default=1,
        metavar="K",
        help="purify so often and average the answers (%(default)s)",
    )
    screening.add_argument("--runtime", choices=("onnx", "tflite"), help="default: by the model's suffix")
    screening.add_argument("--provider", choices=PROVIDERS, default="cpu", help=PROVIDER_HELP)
    return screening


def limits(args: argparse.Namespace) -> Limits:
    """How large a picture may be."""
    return Limits(args.max_pixels, args.max_bytes)


def read_picture(source: str, allowed: Limits) -> bytes:
    """The bytes of a file, or of standard input for ``-``."""
    if source == "-" and sys.stdin is None:
        raise ImageError("standard input is closed: pass an image through a pipe or name a file")
    if source != "-" and os.path.isdir(source):
        raise ImageError("this folder holds no images: name another, or a file")
    if source == "-":
        return read_stream(sys.stdin.buffer, allowed)
    try:
        return read_bytes(source, allowed)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{error}{file_hint(source)}") from error


def open_screener(args: argparse.Namespace) -> Screener:
    """The screener that the options of :func:`with_purifier` and :func:`with_screener` ask for."""
    if args.draws > 1 and args.purify == "off":
        args.parser.error("--draws needs --purify on or both")
    from edge_mdda.screening import Screener

    try:
        screener = Screener(
            args.model, args.runtime, args.purify, args.preset, args.threads, limits(args), args.provider, args.draws
        )
    except ModelError as error:
        raise ModelError(f"{error}{_model_hint(args.model)}") from error
    if args.provider != "cpu" and not (args.json or getattr(args, "csv", False)):  # these have it in every line
        print(f"edge-mdda: the model runs on {screener.classifier.runtime}", file=sys.stderr)
    return screener


def _model_hint(model: Path | None) -> str:
    """A hint for a model that is not there, or nothing."""
    from edge_mdda.classifier import BUILT_IN_MODELS

    if model is None or str(model) in BUILT_IN_MODELS or os.path.lexists(model):
        return ""
    return did_you_mean(str(model), BUILT_IN_MODELS, before="; ") or file_hint(str(model))
