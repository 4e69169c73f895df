"""The body map's sites as SNOMED CT codes, for DICOM (PS3.16 CID 4029, skin) and FHIR alike."""

from __future__ import annotations

from edge_mdda.station.sites import SITES

SYSTEM_DICOM = "SCT"
SYSTEM_FHIR = "http://snomed.info/sct"

_BY_NAME: dict[str, tuple[str, str]] = {
    "face-front": ("73897004", "Skin of face"),
    "neck-front": ("11584001", "Skin of anterior portion of neck"),
    "chest-front": ("244106003", "Skin of anterior surface of thorax"),
    "abdomen-front": ("75093004", "Skin of abdomen"),
    "groin-front": ("39687006", "Skin of inguinal region"),
    "upper-arm-front": ("45981001", "Skin of anterior surface of upper arm"),
    "forearm-front": ("70559009", "Skin of anterior surface of forearm"),
    "hand-front": ("70887009", "Skin of palm of hand"),
    "thigh-front": ("61248009", "Skin of anterior surface of thigh"),
    "shin-front": ("25763004", "Skin of anterior surface of lower leg"),
    "foot-front": ("60496002", "Skin of foot"),
    "scalp-back": ("43067004", "Skin of scalp"),
    "nape-back": ("4658004", "Skin of nuchal region"),
    "upper-back-back": ("699893008", "Skin of back of upper thoracic region"),
    "lower-back-back": ("113182001", "Skin of lower back"),
    "buttock-back": ("22180002", "Skin of buttock"),
    "upper-arm-back": ("72939005", "Skin of posterior surface of upper arm"),
    "forearm-back": ("41550009", "Skin of posterior surface of forearm"),
    "hand-back": ("33712006", "Skin of hand"),  # CID 4029 has no code for the whole back of the hand
    "thigh-back": ("4578000", "Skin of posterior surface of thigh"),
    "calf-back": ("47224004", "Skin of posterior surface of lower leg"),
    "sole-back": ("60496002", "Skin of foot"),  # nor for the whole sole
}
SIDES: dict[str, tuple[str, str]] = {
    "left": ("7771000", "Left"),
    "right": ("24028007", "Right"),
}
"""PS3.16 CID 244, laterality; a site in the middle has none."""


def region(code: str) -> tuple[str, str]:
    """Code and meaning of a site of :data:`edge_mdda.station.sites.SITES`."""
    return _BY_NAME[code.replace("-left-", "-").replace("-right-", "-")]


def side(code: str) -> tuple[str, str] | None:
    """Code and meaning of a site's side of the patient; None in the middle."""
    return SIDES.get(SITES[code].side)
