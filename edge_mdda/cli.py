"""The command line: ``screen``, ``purify`` and ``verify``; more in :mod:`edge_mdda.cli_board` and ``cli_watch``.

Parsing imports nothing but the standard library; NumPy, Numba and a runtime load when an image needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mdda import NOTICE, __version__
from edge_mdda.cli_board import add_commands as add_board_commands
from edge_mdda.cli_selftest import add_command as add_selftest_command
from edge_mdda.cli_watch import add_command as add_watch_command
from edge_mdda.console import Progress, complain, print_screening, print_summary, printable
from edge_mdda.errors import EdgeMddaError, ImageError, ParamsError
from edge_mdda.files import IMAGE_SUFFIXES, OTHER_PICTURES, Limits, read_bytes, read_stream
from edge_mdda.params import MAX_DRAWS, PRESETS

if TYPE_CHECKING:
    from edge_mdda.screening import Screener, Screening

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
MAX_THREADS = 256
MODEL_HELP = (
    "standard (default), hardened (trained against who knows the purifier, errs more often on clean pictures),"
    " or your own .onnx or .tflite with its manifest"
)
THREADS_SETTING, PRESET_SETTING = "EDGE_MDDA_THREADS", "EDGE_MDDA_PRESET"  # what a board's configuration sets
NO_MEMORY = "not enough memory: try a smaller image or fewer threads, or close other programs"
DEMO_IMAGE = Path(__file__).parent / "models" / "demo-synthetic.jpg"

SCREEN_EXAMPLES = """\
examples:
  edge-mdda screen --demo                        the built-in drawn picture
  edge-mdda screen lesion.jpg                    one photograph
  edge-mdda screen --json visit/ > visit.jsonl   a folder, one JSON object a line
  camera-still | edge-mdda screen -              an image on standard input
  edge-mdda screen --seed 7 lesion.jpg           replay a result exactly
  edge-mdda screen --draws 8 lesion.jpg          average eight purifications, and say how much they differ

Measured elsewhere, it misses more: of 307 malignant lesions of the official ISIC 2018 test set 15 had the advice
ROUTINE (5 %), of 519 melanomas of an older ISIC archive 127 (24 %). A picture that looks fine to it may be a melanoma.

exit status: 0 all images screened, 1 at least one failed, 2 wrong usage
"""
PURIFY_EXAMPLES = """\
examples:
  edge-mdda purify lesion.jpg purified.png
  edge-mdda purify --preset strong --seed 7 lesion.jpg purified.png
"""
VERIFY_EXAMPLES = """\
examples:
  edge-mdda verify model.onnx --trusted-keys release.key.pub
  EDGE_MDDA_TRUSTED_KEYS=release.key.pub edge-mdda verify --json *.tflite

The keys are also looked for in EDGE_MDDA_TRUSTED_KEYS, in trusted-keys in the configuration folder edge-mdda,
and in /etc/edge-mdda/trusted-keys; wherever keys are set, 'screen' opens only models that they signed.
exit status: 0 every model is whole and signed by a trusted key, 1 at least one is not, 2 wrong usage
"""


def _number(low: float, high: float, unit: int = 1) -> Callable[[str], int]:
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


def _preset(text: str) -> str:
    """An argparse type: the name of a preset; argparse does not hold a default against ``choices``."""
    if text not in PRESETS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PRESETS)}, got {text!r}")
    return text


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-mdda",
        description=f"Screen skin lesions on this device, with tampered images purified. {NOTICE}",
        epilog="'edge-mdda COMMAND --help' shows a command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"edge-mdda {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--preset",
        type=_preset,
        choices=tuple(PRESETS),
        default=os.environ.get(PRESET_SETTING) or "balanced",
        help=f"purifier strength (%(default)s; a board's default: {PRESET_SETTING})",
    )
    common.add_argument(
        "--threads",
        type=_number(1, MAX_THREADS),
        default=os.environ.get(THREADS_SETTING) or 1,
        metavar="N",
        help=f"threads to use (%(default)s; a board's default: {THREADS_SETTING})",
    )
    common.add_argument(
        "--max-megapixels",
        type=_number(0.001, 1000, 10**6),
        default=40_000_000,
        metavar="N",
        help="largest image accepted (40)",
    )
    common.add_argument(
        "--max-megabytes",
        type=_number(0.001, 1024, 2**20),
        default=32 * 2**20,
        metavar="N",
        help="largest file accepted (32)",
    )

    replay = argparse.ArgumentParser(add_help=False)
    replay.add_argument(
        "--seed", type=_number(0, 2**64 - 1), metavar="N", help="purifier's seed (default: a fresh one each image)"
    )

    screening = argparse.ArgumentParser(add_help=False)
    screening.add_argument(
        "--purify", choices=("off", "on", "both"), default="both", help="views to classify (%(default)s)"
    )
    screening.add_argument("--model", type=Path, metavar="MODEL", help=MODEL_HELP)
    screening.add_argument(
        "--draws",
        type=_number(1, MAX_DRAWS),
        default=1,
        metavar="K",
        help="purify so often and average the answers (%(default)s)",
    )
    screening.add_argument("--runtime", choices=("onnx", "tflite"), help="default: by the model's suffix")
    screening.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt", "auto"),
        default="cpu",
        help="what ONNX Runtime runs on; auto: the fastest that loads (%(default)s)",
    )

    screen = commands.add_parser(
        "screen",
        parents=[common, replay, screening],
        help="classify lesions and advise",
        description=f"Classify lesions, raw and purified, and advise. {NOTICE}",
        epilog=SCREEN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    screen.add_argument(
        "images", nargs="*", metavar="IMAGE", help="files, folders with all below them, or - for standard input"
    )
    screen.add_argument("--demo", action="store_true", help="screen the built-in synthetic picture")
    screen.add_argument("--save-purified", type=Path, metavar="DIR", help="also write what the purifier left, as PNG")
    screen.add_argument("--json", action="store_true", help="one JSON object a line")
    screen.set_defaults(run=_run_screen, parser=screen)

    purify = commands.add_parser(
        "purify",
        parents=[common, replay],
        help="purify one image at its own size",
        description="Purify one image at its own size and write it as PNG.",
        epilog=PURIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    purify.add_argument("source", metavar="IN", help="image file, or - for standard input")
    purify.add_argument("target", metavar="OUT", type=Path, help="PNG file to write")
    purify.set_defaults(run=_run_purify, parser=purify)

    verify = commands.add_parser(
        "verify",
        help="check models, their manifests and signatures",
        description="Check that models are what their manifests say, and that a trusted key signed these.",
        epilog=VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="files or built-in names (standard)")
    verify.add_argument("--trusted-keys", type=Path, metavar="FILE", help="public keys, or a folder of *.pub")
    verify.add_argument("--json", action="store_true", help="one JSON object a line")
    verify.set_defaults(run=_run_verify, max_megapixels=40_000_000, max_megabytes=32 * 2**20)
    add_board_commands(commands)
    add_selftest_command(commands)
    add_watch_command(commands, [common, screening])
    return parser


def _expand(images: Sequence[str]) -> Iterator[str]:
    """Files and ``-`` as they are; a folder as the pictures in it and below, sorted. An empty folder stays itself.

    Pictures that cannot be read are among them, so that each is named; hidden files (``._mole.jpg`` and the like, which
    another system writes beside its copies) are not pictures.
    """
    for image in images:
        if image != "-" and os.path.isdir(image):  # not Path.is_dir, which raises on a name that is too long
            found = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(image)
                for name in names
                if os.path.splitext(name)[1].lower() in (*IMAGE_SUFFIXES, *OTHER_PICTURES) and not name.startswith(".")
            ]
            yield from sorted(found) or [image]
        else:
            yield image


def _read(source: str, args: argparse.Namespace) -> bytes:
    if source == "-" and sys.stdin is None:
        raise ImageError("standard input is closed: pass an image through a pipe or name a file")
    if source != "-" and os.path.isdir(source):
        raise ImageError("this folder holds no images: name another, or a file")
    return read_stream(sys.stdin.buffer, args.limits) if source == "-" else read_bytes(source, args.limits)


def _run_screen(args: argparse.Namespace) -> int:
    if args.demo:
        args.images.append(str(DEMO_IMAGE))
    if not args.images:
        args.parser.error("no image given; name files or folders, or try --demo")
    if args.save_purified and args.purify == "off":
        args.parser.error("--save-purified needs --purify on or both")
    if args.images.count("-") > 1:
        args.parser.error("- (standard input) can be given only once")
    from edge_mdda.imaging import check_header

    if args.save_purified:
        try:
            args.save_purified.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            complain(str(args.save_purified), f"cannot make this folder ({error.strerror}): choose another")
            return EXIT_FAILED
    names = list(_expand(args.images))
    progress = Progress(len(names))
    screener: Screener | None = None
    failed, said = 0, Counter[str]()
    try:
        for name in names:
            try:
                content = _read(name, args)
                if screener is None:
                    check_header(content, args.limits)  # a hostile file is refused before anything large loads
                    screener = open_screener(args)
                result = screener.screen(content, args.seed, name)
                progress.clear()
                _print_result(result, screener, args.json)
                said[result.advice.action] += 1
                if args.save_purified:
                    _save_purified(args.save_purified, result)
            except (ImageError, MemoryError) as error:
                progress.clear()
                complain("standard input" if name == "-" else name, str(error) or NO_MEMORY)
                failed += 1
            progress.step()
    finally:
        progress.clear()
        if screener is not None:
            screener.close()
    if len(names) > len(args.images):  # a folder was named
        print_summary(said, failed, sys.stderr)
    return EXIT_FAILED if failed else EXIT_OK


def _save_purified(folder: Path, result: Screening) -> None:
    from edge_mdda.imaging import write_png

    if result.purified is not None:
        stem = "stdin" if result.image == "-" else Path(result.image).stem
        target = folder / f"{stem}-{result.sha256[:8]}.purified.png"
        try:
            write_png(target, result.purified)
        except ImageError as error:
            raise ImageError(f"the purified image cannot be written to {target}: {error}") from error


def open_screener(args: argparse.Namespace) -> Screener:
    """The screener that the options of :func:`build_parser` ask for."""
    if args.draws > 1 and args.purify == "off":
        args.parser.error("--draws needs --purify on or both")
    from edge_mdda.screening import Screener

    screener = Screener(
        args.model, args.runtime, args.purify, args.preset, args.threads, args.limits, args.provider, args.draws
    )
    if args.provider != "cpu" and not args.json:  # JSON has it in every line
        print(f"edge-mdda: the model runs on {screener.classifier.runtime}", file=sys.stderr)
    return screener


def _print_result(result: Screening, screener: Screener, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_dict()), flush=True)
    else:
        manifest = screener.classifier.manifest
        print_screening(result, manifest.labels, manifest.malignant, sys.stdout)


def _run_purify(args: argparse.Namespace) -> int:
    if args.target.suffix.lower() != ".png":
        args.parser.error(f"OUT must end in .png (lossless), got {args.target}")
    from edge_mdda.imaging import decode, write_png

    try:
        picture = decode(_read(args.source, args), args.limits)
        from edge_mdda.mdda import Purifier
        from edge_mdda.seeds import fresh_seed

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


def _run_verify(args: argparse.Namespace) -> int:
    from edge_mdda.classifier import model_path
    from edge_mdda.classifier.signature import trusted_keys
    from edge_mdda.classifier.verdict import examine

    keys = trusted_keys(args.trusted_keys)
    failed = 0
    for model in map(Path, map(model_path, args.models or [None])):
        verdict = examine(model, keys)
        failed += not verdict.ok
        if args.json:
            print(json.dumps(verdict.to_dict()), flush=True)
        elif verdict.ok:
            print(f"{printable(str(model))}: {verdict.text}")
        else:
            complain(str(model), verdict.text)
    return EXIT_FAILED if failed else EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not stop a screening
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    if sys.stdout is None:
        complain("standard output", "closed: the answer would be lost")
        return EXIT_FAILED
    if "max_megapixels" in args:
        args.limits = Limits(args.max_megapixels, args.max_megabytes)
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
    except OSError as error:  # what a command reads or writes itself is reported there; this is standard output
        complain("standard output", f"cannot be written ({error.strerror}): free some space or choose another place")
        sys.stdout = None  # Python would try to flush it once more
        return EXIT_FAILED
    except MemoryError:
        complain("memory", NO_MEMORY)
        return EXIT_FAILED
    except EdgeMddaError as error:
        complain("error", error)
        return EXIT_FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
