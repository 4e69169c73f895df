"""The report of a visit as one page of PDF, for the referral letter. The same visit gives the same bytes.

Its QR code holds the study's identifier and the hashes of the picture and of the record that the page was made from;
the record itself is attached, so that a hospital can check that nothing was altered.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edge_mdda import NOTICE, __version__
from edge_mdda.station.charts import SEXES
from edge_mdda.station.pdf_page import BOLD, FONT, GREY, LEADING, MARGIN, MM, WIDTH, Page
from edge_mdda.station.visit import Visit
from edge_mdda.station.words import LIMITS_TEXT

ATTACHED = "visit.json"
TITLE = "Skin-lesion screening report"
WITHIN = WIDTH - 2 * MARGIN
HALF = WITHIN / 2 - 3 * MM
PICTURE = 44 * MM  # points, height of a picture
STORED = PICTURE * 4 / 3  # width of the picture as it was taken
NUMBER = 17 * MM  # points, width of a column of numbers
NAME = HALF - 2 * NUMBER
COLUMNS = (MARGIN, MARGIN + NAME, MARGIN + NAME + NUMBER)
CODE = 36 * MM  # points, side of the QR code: 0.6 mm a module, which a phone reads from paper
FILL = {"refer": (0.99, 0.87, 0.84), "retake": (1.0, 0.95, 0.80), "routine": (0.90, 0.95, 0.90)}
EXPLAINED = 6  # faults of the picture whose remedy is written out; more do not fit on the page
NO_PURIFIER = "The picture was not purified"


def code_text(visit: Visit) -> str:
    """What the QR code holds, in letters that it packs densely: the study, the picture and the whole record."""
    return f"EDGE-MDDA REPORT 1 STUDY {visit.study_uid} PICTURE {visit.picture_sha256} RECORD {visit.sha256}".upper()


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def report(visit: Visit) -> bytes:
    """The PDF.

    Raises
    ------
    StationError
        A name or a note has letters that no font here has.
    ImageError
        The picture cannot be decoded.
    """
    content = _made(visit, replace(visit, picture=b""))
    # A JPEG's bytes are in the page as they are; those of another picture, or of one that had to be turned, are not.
    return content if visit.picture in content else _made(visit, visit)


def _made(visit: Visit, record: Visit) -> bytes:
    page = Page(f"{TITLE}. {NOTICE}", f"Patient {visit.patient.own_id}, lesion {visit.lesion.number}", _written(visit))
    page.text(TITLE, 15, BOLD)
    page.text(NOTICE, 9.5, BOLD)
    _who(page, visit)
    _advice(page, visit)
    _pictures(page, visit)
    top = page.y
    _shares(page, visit)
    left_end, page.y = page.y, top
    _checks(page, visit)
    page.y = min(left_end, page.y)
    _decision(page, visit)
    _foot(page, visit)
    page.attach(ATTACHED, _attached(visit, record, page.fonts_sha256))
    return page.done()


def _shown(picture: bytes) -> bytes:
    """The picture as a page can show it: an upright JPEG as it is, whatever else as PNG."""
    from edge_mdda.picture.decode import check_header, decode
    from edge_mdda.station.worker import png

    header = check_header(picture)
    return picture if header.format == "JPEG" and header.orientation == 1 else png(decode(picture))


def made_with(fonts_sha256: str) -> dict[str, str]:
    """What the bytes of a report depend on besides the visit."""
    from reportlab import __version__ as reportlab

    return {"edge_mdda": __version__, "reportlab": reportlab, "fonts_sha256": fonts_sha256}


def _attached(visit: Visit, record: Visit, fonts_sha256: str) -> bytes:
    """What the page was made from, for a receiver's program and for :mod:`edge_mdda.station.report_check`."""
    head = {"edge-mdda report": 1, "notice": NOTICE, "made_with": made_with(fonts_sha256), "sha256": visit.sha256}
    return json.dumps({**head, "visit": json.loads(record.to_json())}).encode()


def _written(visit: Visit) -> str:
    """Every text of the page that is not this program's own, for the choice of a font."""
    names = [str(name) for name in visit.names["labels"].values()]
    decision = [visit.decision.clinician, visit.decision.note] if visit.decision else []
    return "".join([visit.patient.own_id, visit.patient.name, visit.station, visit.answer["rule"], *names, *decision])


def _who(page: Page, visit: Visit) -> None:
    patient, lesion = visit.patient, visit.lesion
    born = "year of birth not known" if patient.birth_year is None else f"born {patient.birth_year}"
    page.heading("Patient and lesion")
    if patient.name:
        page.text(patient.name, 10, BOLD, most=1)
    page.text(f"Patient {patient.own_id}; {born}; sex: {SEXES[patient.sex]}", most=2)
    page.text(
        f"Lesion {lesion.number}: {lesion.place.label}. Picture of {visit.made_at}; station {visit.station}", most=2
    )


def _advice(page: Page, visit: Visit) -> None:
    answer = visit.answer
    reason = page.wrapped(f"Because {answer['rule']}.", WITHIN - 6 * MM, 8.5, most=4)
    height = 8 * MM + len(reason) * 11
    page.y -= 4 * MM
    page.canvas.setFillColorRGB(*FILL[answer["advice"]])
    page.canvas.roundRect(MARGIN, page.y - height, WITHIN, height, 2 * MM, stroke=0, fill=1)
    below = page.y - height
    page.text(visit.advice[0].upper() + visit.advice[1:], 13, BOLD, MARGIN + 3 * MM, WITHIN - 6 * MM)
    page.text(" ".join(reason), 8.5, left=MARGIN + 3 * MM, width=WITHIN - 6 * MM)
    page.y = below - 2
    page.text(_operating_point(answer["operating_point"]), 7.5, most=4)
    page.text(LIMITS_TEXT, 7.5)


def _operating_point(point: dict[str, Any]) -> str:
    text = (
        f"Operating point: refer from a malignant share of {point['refer_at']:.3f}, retake from a disagreement of"
        f" {point['retake_at']:.3f} bit."
    )
    test = point.get("test") or {}
    if "sensitivity" in test and "specificity" in test:
        text += (
            f" On its own {test.get('images', '')} test pictures, of the same source as its training, it finds"
            f" {percent(test['sensitivity'])} of malignant lesions and refers {percent(1 - test['specificity'])} of"
            " benign ones."
        )
    return text


def _pictures(page: Page, visit: Visit) -> None:
    page.heading("Pictures")
    bottom = page.y - PICTURE - 2
    page.picture(_shown(visit.picture), MARGIN, bottom, STORED, PICTURE)
    raw_left = MARGIN + STORED + 3 * MM
    pure_left = raw_left + PICTURE + 3 * MM
    page.picture(visit.raw_view, raw_left, bottom, PICTURE, PICTURE)
    if visit.purified_view:
        page.picture(visit.purified_view, pure_left, bottom, PICTURE, PICTURE)
    captions = (
        (MARGIN, STORED, "As taken"),
        (raw_left, PICTURE, "Raw: what the network saw"),
        (pure_left, PICTURE, "Purified" if visit.purified_view else NO_PURIFIER),
    )
    for left, width, caption in captions:
        page.y = bottom
        page.text(caption, 7.5, left=left, width=width, most=1)


def _shares(page: Page, visit: Visit) -> None:
    answer, names = visit.answer, visit.names
    page.heading("Shares, all classes taken as equally likely", width=HALF)
    raw = answer["raw_probabilities"] or {}
    _row(page, ("Class", "Answer", "Raw view"), BOLD)
    shares = answer["probabilities"]
    for label in sorted(shares, key=lambda name: (-shares[name], name)):
        name = names["labels"].get(label, label) + (" (malignant)" if label in names["malignant"] else "")
        beside = percent(raw[label]) if label in raw else ""
        _row(page, (name, percent(shares[label]), beside))
    said = f"Malignant share {percent(answer['malignant'])}"
    if answer["disagreement"] is not None:
        said += f"; raw and purified view disagree by {answer['disagreement']:.3f} bit"
    page.text(f"{said}.", 7.5, width=HALF)


def _row(page: Page, words: tuple[str, str, str], font: int = FONT) -> None:
    start = page.y
    end = start - 7.5 * LEADING
    for left, width, word in zip(COLUMNS, (NAME, *[NUMBER] * 2), words, strict=True):
        page.y = start
        page.text(word, 7.5, font, left, width)
        end = min(end, page.y)
    page.y = end


def _checks(page: Page, visit: Visit) -> None:
    left = MARGIN + WITHIN - HALF
    page.heading("Quality of the picture", left, HALF)
    checks = visit.answer["quality"]
    good = [check["name"] for check in checks if check["ok"]]
    bad = [check for check in checks if not check["ok"]]
    if good:
        page.text(f"Good: {', '.join(good)}.", 7.5, left=left, width=HALF, most=4)
    for check in bad[:EXPLAINED]:
        said = f"{check['name'].capitalize()} ({check['value']:g}, limit {check['threshold']:g}): {check['advice']}"
        page.text(said, 7.5, left=left, width=HALF, most=2)
    if bad[EXPLAINED:]:
        rest = ", ".join(check["name"] for check in bad[EXPLAINED:])
        page.text(f"Faulty, too: {rest}.", 7.5, left=left, width=HALF, most=3)
    if not bad:
        page.text("No check found a fault.", 7.5, left=left, width=HALF)


def _decision(page: Page, visit: Visit) -> None:
    page.heading("Decision of the clinician")
    decision = visit.decision
    if decision is None:
        page.text("None yet: a clinician decides.")
        return
    page.text(f"{decision.words.capitalize()}; {decision.clinician}", most=2)
    if decision.note:
        page.text(decision.note, 8, most=3)


def _foot(page: Page, visit: Visit) -> None:
    answer = visit.answer
    width = WITHIN - CODE - 4 * MM
    purify = answer["purify"]
    replay = f"preset {purify['preset']}, seed {purify['seed']}, draws {purify['draws']}" if purify else ""
    lines = (
        f"edge-mdda {answer['version']}; model {answer['model']['name']}, {answer['model']['runtime']}",
        f"Model SHA-256 {answer['model']['sha256']}",
        f"Purifier: {replay}" if purify else NO_PURIFIER,
        f"Picture SHA-256 {visit.picture_sha256}",
        f"Record SHA-256 {visit.sha256}",
        f"Check this file with: edge-mdda serve verify-report REPORT.pdf --record {visit.sha256[:16]}",
    )
    page.code(code_text(visit), WIDTH - MARGIN - CODE, 14 * MM, CODE)
    page.y = 14 * MM + CODE
    for line in lines:
        page.text(line, 6.5, width=width, grey=GREY, most=2)
    page.canvas.line(MARGIN, 22 * MM, MARGIN + width, 22 * MM)
    page.y = 22 * MM
    page.text("Date, name and signature of the clinician", 7.5, width=width)
    page.y = 13 * MM
    page.text(NOTICE, 7.5, BOLD)
