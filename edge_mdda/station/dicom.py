"""A visit's picture as a DICOM object: Dermoscopic Photography Image Storage (PS3.3 A.32.11).

pydicom costs memory: this runs in the short-lived process of :mod:`edge_mdda.station.dicom_report`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edge_mdda import NOTICE
from edge_mdda.errors import StationError
from edge_mdda.station import sct
from edge_mdda.station.dicom_pixels import put_pixels
from edge_mdda.station.visit import NAMESPACE, Visit, uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"  # PS3.6: Dermoscopic Photography Image Storage
IMPLEMENTATION = f"2.25.{NAMESPACE.int}"
IMPLEMENTATION_NAME = "EDGE_MDDA"
MAKER, PRODUCT = "edge-mdda", "edge-mdda clinic station"
MAX_LONG, MAX_NAME = 64, 64  # characters of a long string (LO) and of a name's group (PN): PS3.5 table 6.2-1
UTF_8 = "ISO_IR 192"
RECOGNISABLE = ("face-front", "scalp-back")
"""Sites where a picture may show whom it is of; to be careful, it is said so."""
SEXES = {"female": "F", "male": "M", "other": "O", "unknown": ""}


def name_of(words: str) -> str:
    """A name as one person-name group: DICOM's own separators become spaces, and it is cut to the longest allowed.

    The whole stands as family name, because the records do not tell the parts; the caret says that this is meant so.
    """
    name = " ".join(re.sub(r"[\\^=\x00-\x1f]", " ", words).split())
    # PS3.5 counts characters; receivers exist that count bytes, and bytes are the more.
    name = name.encode()[: MAX_NAME - 1].decode(errors="ignore").strip()
    return f"{name}^" if name else ""


def identifier(words: str) -> str:
    """A patient's number, unchanged.

    Raises
    ------
    StationError
        DICOM cannot hold it; a changed number could be another patient's.
    """
    if not words or len(words) > MAX_LONG or "\\" in words or words != words.strip():
        raise StationError(
            f"the patient's number «{words}» cannot be sent as DICOM: 1 to {MAX_LONG} characters without backslash"
        )
    return words


def moment(time: str) -> tuple[str, str]:
    """Date and time of an RFC 3339 time in UTC, as DICOM writes them."""
    date, _, rest = time.partition("T")
    return date.replace("-", ""), rest[:8].replace(":", "")


def coded(value: str, meaning: str, scheme: str = sct.SYSTEM_DICOM) -> Dataset:
    """An item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def put_patient_and_study(dataset: Dataset, visit: Visit) -> None:
    """Modules Patient and General Study, the same in each object of a visit."""
    patient = visit.patient
    dataset.SpecificCharacterSet = UTF_8
    dataset.PatientName = name_of(patient.name)
    dataset.PatientID = identifier(patient.own_id)
    dataset.PatientBirthDate = ""  # a station knows the year alone, and DICOM has no date without a day
    dataset.PatientSex = SEXES[patient.sex]
    if patient.birth_year is not None:
        dataset.PatientComments = f"Born in {patient.birth_year}"
    dataset.StudyInstanceUID = visit.study_uid
    # Pictures of one visit are one study: what differs between them stands in their series. Hence no time here.
    dataset.StudyDate, dataset.StudyTime = moment(visit.made_at)[0], ""
    dataset.StudyID = visit.id
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Skin-lesion screening"
    dataset.TimezoneOffsetFromUTC = "+0000"


def put_equipment(dataset: Dataset, visit: Visit) -> None:
    """Modules General and Enhanced General Equipment."""
    dataset.Manufacturer, dataset.ManufacturerModelName = MAKER, PRODUCT
    dataset.DeviceSerialNumber = visit.station.replace("\\", " ")[:MAX_LONG]
    dataset.SoftwareVersions = [visit.answer["version"], visit.answer["model"]["name"].replace("\\", " ")[:MAX_LONG]]


def file_meta(sop_class: str, instance: str, syntax: str) -> FileMetaDataset:
    """The head of a file (PS3.10 7.1)."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    sign(meta)
    return meta


def sign(meta: FileMetaDataset) -> None:
    """Say which program wrote the file."""
    from pydicom.uid import UID

    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(IMPLEMENTATION), IMPLEMENTATION_NAME


def image(visit: Visit) -> Dataset:
    """The picture as a dataset with its file's head; the same visit gives the same bytes.

    Raises
    ------
    StationError
        The patient's number cannot be held.
    ImageError
        The picture cannot be decoded.
    """
    from pydicom.dataset import Dataset

    dataset = Dataset()
    put_patient_and_study(dataset, visit)
    put_equipment(dataset, visit)
    date, time = moment(visit.made_at)
    dataset.Modality, dataset.SeriesNumber = "DMS", 1
    dataset.SeriesInstanceUID = uid("image series", visit.image_uid)
    dataset.SeriesDescription = f"{tracking_id(visit)}: {visit.lesion.place.label}"[:MAX_LONG]
    dataset.FrameOfReferenceUID = uid("image frame", visit.image_uid)
    dataset.PositionReferenceIndicator = ""
    dataset.SOPClassUID, dataset.SOPInstanceUID = DERMOSCOPIC, visit.image_uid
    dataset.InstanceNumber = 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PatientOrientation = ""
    dataset.ContentDate = dataset.AcquisitionDate = date
    dataset.ContentTime = dataset.AcquisitionTime = time
    dataset.AcquisitionDateTime = date + time
    dataset.AcquisitionContextSequence = []
    dataset.ImageComments = f"Picture as taken. {NOTICE}"
    _put_place(dataset, visit)
    # What a camera does not tell stays empty (type 2), rather than guessed.
    dataset.RecognizableVisualFeatures = "YES" if visit.lesion.site in RECOGNISABLE else "NO"
    dataset.LightSourcePolarization = dataset.ContactMethod = ""
    dataset.EmitterColorTemperature = dataset.OpticalMagnificationFactor = None
    syntax = put_pixels(dataset, visit.picture)
    dataset.file_meta = file_meta(DERMOSCOPIC, visit.image_uid, syntax)
    return dataset


def _put_place(dataset: Dataset, visit: Visit) -> None:
    side = sct.side(visit.lesion.site)
    dataset.AnatomicRegionSequence = [coded(*sct.region(visit.lesion.site))]
    dataset.ImageLaterality = "U" if side is None else side[1][0]
    dataset.TrackingID = tracking_id(visit)
    dataset.TrackingUID = visit.lesion.tracking_uid


def tracking_id(visit: Visit) -> str:
    """What a person calls the lesion."""
    return f"Lesion {visit.lesion.number}"
