"""Drawn patients for ``edge-mdda serve --demo``: made-up numbers and names, drawn pictures."""

from __future__ import annotations

from edge_mdda.station import charts, findings
from edge_mdda.station.pages import Station, found, year
from edge_mdda.station.picture_pages import judge

WHO = "demo"
PATIENTS = (
    ("D-001", "Drawn Dora", "1961", "female", (("upper-back-left-back", 2), ("forearm-right-front", 1))),
    ("D-002", "Sketched Sam", "1984", "male", (("calf-left-back", 3),)),
    ("D-003", "Painted Pia", "1949", "female", (("face-front", 0), ("chest-left-front", 6))),
)
"""Number, name, year of birth, sex, and for each lesion its site and the number of its picture."""


def fill(station: Station) -> None:
    """Keep and judge the drawn patients' pictures."""
    store = station.store
    for own_id, name, birth_year, sex, lesions in PATIENTS:
        form = {"own_id": own_id, "name": name, "birth_year": birth_year, "sex": sex}
        patient = charts.add_patient(store, WHO, form, year(store))
        for site, number in lesions:
            lesion = found(charts.lesion_of(store, charts.add_lesion(store, WHO, patient, {"site": site})), "lesion")
            content = station.judge.ask({"do": "draw", "number": number})[1][0]
            judge(station, WHO, findings.add_picture(store, WHO, lesion, content, "drawn"))
