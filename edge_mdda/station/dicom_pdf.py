"""A visit's report as DICOM: Encapsulated PDF Storage (PS3.3 A.45.1), for viewers that show no Structured Report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mdda import NOTICE
from edge_mdda.station.dicom import MAX_LONG, file_meta, moment, put_equipment, put_patient_and_study
from edge_mdda.station.visit import Visit, uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"  # PS3.6
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def encapsulated(visit: Visit, report: bytes, picture: Dataset, result: Dataset) -> Dataset:
    """The report's PDF as it is, with references to picture and result; the same visit gives the same bytes."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    put_patient_and_study(dataset, visit)
    put_equipment(dataset, visit)
    dataset.SOPClassUID, dataset.SOPInstanceUID = ENCAPSULATED_PDF, uid("report", visit.result_uid)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "DOC", 3, 1
    dataset.SeriesInstanceUID = uid("report series", visit.result_uid)
    dataset.SeriesDescription = NOTICE[:MAX_LONG]
    dataset.ConversionType = "WSD"  # made by a workstation, not scanned from paper
    date, time = moment(visit.answer["time"])
    dataset.ContentDate, dataset.ContentTime = date, time
    taken_date, taken_time = moment(visit.made_at)
    dataset.AcquisitionDateTime = taken_date + taken_time
    dataset.BurnedInAnnotation = "YES"  # the page names the patient
    dataset.RecognizableVisualFeatures = picture.RecognizableVisualFeatures
    dataset.DocumentTitle = f"Skin-lesion screening report. {NOTICE}"
    dataset.ConceptNameCodeSequence = []  # no code is known for this kind of page; the title says what it is
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.SourceInstanceSequence = []
    for source in (picture, result):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        dataset.SourceInstanceSequence.append(item)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = report + b"\0" * (len(report) % 2)
    dataset["EncapsulatedDocument"].VR = "OB"
    dataset.EncapsulatedDocumentLength = len(report)
    dataset.file_meta = file_meta(ENCAPSULATED_PDF, dataset.SOPInstanceUID, EXPLICIT_LITTLE_ENDIAN)
    return dataset
