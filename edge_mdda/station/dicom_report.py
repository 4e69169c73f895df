"""What the program said of a visit as a DICOM Structured Report: TID 1500 in Comprehensive SR (PS3.16, PS3.3 A.35.3).

``python -m edge_mdda.station.dicom_report VISIT.json FOLDER`` writes the picture, the result and, where the folder
holds its PDF, the page of the report, and ends: highdicom 0.28 has a peak of 181 MB (it reads the standard's tables),
which a station has no use for between two visits.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE
from edge_mdda.console import complain
from edge_mdda.errors import EdgeMddaError
from edge_mdda.files import replace_file
from edge_mdda.station import sct
from edge_mdda.station.dicom import (
    MAKER,
    MAX_LONG,
    PRODUCT,
    image,
    moment,
    put_equipment,
    put_patient_and_study,
    sign,
    tracking_id,
)
from edge_mdda.station.dicom_pdf import encapsulated
from edge_mdda.station.visit import NAMESPACE, Visit, uid

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, MeasurementReport
    from pydicom.dataset import Dataset

IMAGE, RESULT, REPORT = "image.dcm", "result.dcm", "report.dcm"
PAGE = "report.pdf"
OWN = "99EDGEMDDA"
"""Private coding scheme (PS3.16, 99 in front) of what only this program says."""
CODES = {
    "malignant-share": "Share of malignant classes, all classes equally likely",
    "disagreement": "Divergence of raw and purified view",
    "advice": "Advice of the screening",
    "picture-quality": "Quality of the picture",
}
QUALITY = {True: ("good", "Every check passed"), False: ("faulty", "A check failed; see the comment")}


def own(value: str, meaning: str) -> CodedConcept:
    """A code of this program's own; values have at most 16 characters (PS3.3 8.1)."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=value[:16], scheme_designator=OWN, meaning=meaning[:MAX_LONG])


def _named(code: str) -> CodedConcept:
    return own(code, CODES[code])


def _evaluations(visit: Visit) -> list[Any]:
    from highdicom.sr import QualitativeEvaluation

    good = all(check["ok"] for check in visit.answer["quality"])
    return [
        QualitativeEvaluation(_named("advice"), own(visit.answer["advice"], visit.advice)),
        QualitativeEvaluation(_named("picture-quality"), own(*QUALITY[good])),
    ]


def _measurements(visit: Visit) -> list[Any]:
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    answer, names = visit.answer, visit.names
    unit = codes.UCUM.NoUnits
    found = [Measurement(_named("malignant-share"), answer["malignant"], unit)]
    for number, (label, share) in enumerate(answer["probabilities"].items()):
        name = own(f"class-{number}-{label}", f"Share of {names['labels'].get(label, label)}")
        found.append(Measurement(name, share, unit))
    if answer["disagreement"] is not None:
        bit = CodedConcept("bit", "UCUM", "bit")
        found.append(Measurement(_named("disagreement"), answer["disagreement"], bit))
    return found


def _parameters(visit: Visit) -> list[str]:
    answer = visit.answer
    purify = answer["purify"]
    replay = f"purifier preset {purify['preset']}, seed {purify['seed']}, draws {purify['draws']}" if purify else ""
    return [
        f"model SHA-256 {answer['model']['sha256']}",
        f"runtime {answer['model']['runtime']}",
        replay or "no purifier",
        f"refer from a malignant share of {answer['operating_point']['refer_at']}",
        f"retake from a disagreement of {answer['operating_point']['retake_at']} bit",
    ]


def _comments(visit: Visit) -> list[str]:
    """What a reader must know, in words."""
    answer = visit.answer
    faults = [check["advice"] or check["name"] for check in answer["quality"] if not check["ok"]]
    decision = visit.decision
    return [
        NOTICE,
        f"{visit.advice}, because {answer['rule']}.",
        *([f"The picture: {'; '.join(faults)}."] if faults else []),
        *([f"Decision of {decision.clinician}: {decision.words}. {decision.note}".strip()] if decision else []),
        f"Picture SHA-256 {visit.picture_sha256}; record SHA-256 {visit.sha256}",
    ]


def _content(visit: Visit, picture: Dataset) -> MeasurementReport:
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    code, meaning = sct.region(visit.lesion.site)
    side = sct.side(visit.lesion.site)
    site = sr.FindingSite(
        Code(code, sct.SYSTEM_DICOM, meaning), Code(side[0], sct.SYSTEM_DICOM, side[1]) if side else None
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid("device", visit.station),
        name=visit.station,
        manufacturer_name=MAKER,
        model_name=PRODUCT,
        serial_number=visit.station,
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(visit.lesion.tracking_uid, tracking_id(visit)),
        algorithm_id=sr.AlgorithmIdentification(
            f"edge-mdda, {visit.answer['model']['name']}", visit.answer["version"], _parameters(visit)
        ),
        finding_type=codes.SCT.Lesion,
        finding_sites=[site],
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(picture)],
        qualitative_evaluations=_evaluations(visit),
        measurements=_measurements(visit),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=codes.SCT.DermoscopicPhotography,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    for words in _comments(visit):  # TID 1500 is extensible
        item = sr.TextContentItem(codes.DCM.Comment, words, relationship_type="CONTAINS")
        report[0].ContentSequence.append(item)
    return report


def result(visit: Visit, picture: Dataset) -> Dataset:
    """The report, with a reference to the picture of :func:`edge_mdda.station.dicom.image`.

    It is complete and not verified: nobody has signed it. The same visit gives the same bytes.
    """
    from highdicom.sr import ComprehensiveSR
    from pydicom.dataset import Dataset

    report: Dataset = ComprehensiveSR(
        evidence=[picture],
        content=_content(visit, picture)[0],
        series_instance_uid=uid("result series", visit.result_uid),
        series_number=2,
        sop_instance_uid=visit.result_uid,
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
        is_verified=False,
    )
    put_patient_and_study(report, visit)
    put_equipment(report, visit)
    report.SeriesDescription = NOTICE[:MAX_LONG]
    # highdicom writes the time of writing and its own name; both depend on more than the visit.
    date, time = moment(visit.answer["time"])
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        setattr(report, name, date)
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        setattr(report, name, time)
    for equipment in report.ContributingEquipmentSequence:
        equipment.ContributionDateTime = date + time
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = OWN, "edge-mdda"
    scheme.CodingSchemeUID = f"2.25.{NAMESPACE.int}"
    report.CodingSchemeIdentificationSequence = [scheme]
    sign(report.file_meta)
    return report


def bytes_of(dataset: Dataset) -> bytes:
    """A dataset as a file of DICOM Part 10."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def main() -> int:
    """Write the files and print their names as JSON."""
    visit = Visit.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    try:
        picture = image(visit)
        said = result(visit, picture)
        made = {IMAGE: picture, RESULT: said}
        if (folder / PAGE).exists():
            made[REPORT] = encapsulated(visit, (folder / PAGE).read_bytes(), picture, said)
        for name, dataset in made.items():
            replace_file(str(folder / name), bytes_of(dataset))
    except EdgeMddaError as error:
        complain("DICOM", error)
        return 1
    print(json.dumps({"files": list(made)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
