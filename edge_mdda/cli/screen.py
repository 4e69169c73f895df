"""``edge-mdda screen``: classify pictures and advise. Nothing heavy is imported before a picture has been read."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE
from edge_mdda.cli.answers import NO_ADVICE, Told, print_screening, print_summary, print_urgent_first
from edge_mdda.cli.csv_table import CsvTable
from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK, NO_MEMORY, limits, open_screener, read_picture, remark, stop
from edge_mdda.console import Progress, complain
from edge_mdda.errors import ImageError
from edge_mdda.files import IMAGE_SUFFIXES, OTHER_PICTURES
from edge_mdda.models import DEMO_IMAGE

if TYPE_CHECKING:
    from edge_mdda.screening import Screener, Screening

EXAMPLES = """\
examples:
  edge-mdda screen --demo                        the built-in drawn picture
  edge-mdda screen lesion.jpg                    one photograph
  edge-mdda screen visit/                        a folder; at its end the most urgent first
  edge-mdda screen --json visit/ > visit.jsonl   a folder, one JSON object a line, in its order
  edge-mdda screen --csv visit/ > visit.csv      the same as a table, with what could not be judged
  edge-mdda screen --patient P17 --lesion back-3 mole.jpg    whose it is stands in the answer
  camera-still | edge-mdda screen -              an image on standard input
  edge-mdda screen visit.dcm                     a DICOM photograph; its patient and lesion stand in the answer
  edge-mdda screen --seed 7 lesion.jpg           replay a result exactly
  edge-mdda screen --draws 8 lesion.jpg          average eight purifications, and say how much they differ

Measured elsewhere, it misses more: of 307 malignant lesions of the official ISIC 2018 test set 15 had the advice
ROUTINE (5 %), of 519 melanomas of an older ISIC archive 127 (24 %). A picture that looks fine to it may be a melanoma.
'broad' (--model broad) was trained on three sources: of 73 melanomas of that archive 4 had ROUTINE, with 'standard' 12.

exit status: 0 all images screened, 1 at least one failed, 2 wrong usage
"""


def add_command(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    screen = commands.add_parser(
        "screen",
        parents=list(parents),
        help="classify lesions and advise",
        description=f"Classify lesions, raw and purified, and advise. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    screen.add_argument(
        "images", nargs="*", metavar="IMAGE", help="files, folders with all below them, or - for standard input"
    )
    screen.add_argument("--demo", action="store_true", help="screen the built-in synthetic picture")
    screen.add_argument("--save-purified", type=Path, metavar="DIR", help="also write what the purifier left, as PNG")
    form = screen.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a table, one line a picture")
    for option, what in (("--patient", "whose lesion it is"), ("--lesion", "which lesion"), ("--note", "a remark")):
        screen.add_argument(option, type=remark, metavar="TEXT", help=f"{what}, to stand in the answer")
    screen.set_defaults(run=_run, parser=screen)


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


def _run(args: argparse.Namespace) -> int:
    if args.demo:
        args.images.append(str(DEMO_IMAGE))
    if not args.images:
        stop(args.parser, "no image given: name files or folders, - for standard input, or try --demo")
    if args.save_purified and args.purify == "off":
        args.parser.error("--save-purified needs --purify on or both")
    if args.images.count("-") > 1:
        args.parser.error("- (standard input) can be given only once")
    from edge_mdda.picture.decode import check_header

    allowed = limits(args)

    if args.save_purified:
        try:
            args.save_purified.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            complain(str(args.save_purified), f"cannot make this folder ({error.strerror}): choose another")
            return EXIT_FAILED
    names = list(_expand(args.images))
    progress = Progress(len(names))
    screener: Screener | None = None
    failed, told = 0, list[Told]()
    table = CsvTable(sys.stdout) if args.csv else None
    try:
        for done, name in enumerate(names):
            try:
                content = read_picture(name, allowed)
                if screener is None:
                    check_header(content, allowed)  # a hostile file is refused before anything large loads
                    screener = open_screener(args)
                result = screener.screen(content, args.seed, name)
                patient, lesion = _named_in(content)
                result = replace(result, patient=args.patient or patient, lesion=args.lesion or lesion, note=args.note)
                progress.clear()
                if table:
                    table.add(result)
                else:
                    _print_result(result, screener, args.json)
                told.append(Told(result.advice.action, result.malignant, name))
                if args.save_purified:
                    _save_purified(args.save_purified, result)
            except (ImageError, MemoryError) as error:
                progress.clear()
                cause = str(error) or NO_MEMORY
                complain("standard input" if name == "-" else name, cause)
                if len(told) == done:  # else it was judged, and its purified picture not written
                    told.append(Told(NO_ADVICE, 0.0, name))
                    if table:
                        table.add_failure(name, cause, args.patient, args.lesion, args.note)
                failed += 1
            progress.step()
    finally:
        progress.clear()
        if screener is not None:
            screener.close()
    if len(names) > 1 and not (args.json or args.csv):  # these are for programs and stay in the order of the pictures
        print_urgent_first(told, sys.stdout)
    if len(names) > len(args.images):  # a folder was named
        print_summary(Counter(one.action for one in told), failed, sys.stderr)
    return EXIT_FAILED if failed else EXIT_OK


def _named_in(content: bytes) -> tuple[str | None, str | None]:
    """Patient ID and the lesion's tracking ID of a DICOM photograph; nothing in other pictures."""
    from edge_mdda.picture.dicom import is_dicom, read_dicom

    if not is_dicom(content):
        return None, None
    photograph = read_dicom(content)
    return photograph.patient, photograph.lesion


def _save_purified(folder: Path, result: Screening) -> None:
    from edge_mdda.picture.decode import write_png

    if result.purified is not None:
        stem = "stdin" if result.image == "-" else Path(result.image).stem
        target = folder / f"{stem}-{result.sha256[:8]}.purified.png"
        try:
            write_png(target, result.purified)
        except ImageError as error:
            raise ImageError(f"the purified image cannot be written to {target}: {error}") from error


def _print_result(result: Screening, screener: Screener, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_dict()), flush=True)
    else:
        manifest = screener.classifier.manifest
        print_screening(result, manifest.labels, manifest.malignant, sys.stdout)
