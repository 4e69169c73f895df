"""Pages of a visit up to the picture: today's list, patients, lesions."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mdda.station import charts, findings
from edge_mdda.station.pages import found, needs, posted, render, station_of, texts, to, who, year
from edge_mdda.station.store import day_of


def today(request: Request) -> Response:
    """Today's pictures, those that ask for a referral first."""
    day = day_of(station_of(request).store.now()[0])
    pictures = findings.pictures_on(station_of(request).store, day)
    left = findings.left_open(station_of(request).store, day)
    return render(request, "today.html", day=day, pictures=pictures, left=left)


def search(request: Request, form: FormData) -> Response:
    """Patients by number or name. What is looked for stands in no URL."""
    words = " ".join(str(form.get("words") or "").split())[: charts.MAX_NAME]
    patients = charts.find_patients(station_of(request).store, words)
    return render(request, "found.html", words=words, patients=patients, most=charts.FOUND_AT_MOST)


def new_patient(request: Request) -> Response:
    """The empty form."""
    return render(request, "patient_form.html", values={}, errors={}, patient=None)


def add_patient(request: Request, form: FormData) -> Response:
    """Keep a patient, or show the form again with what was typed."""
    try:
        patient = charts.add_patient(
            station_of(request).store, who(request), texts(form), year(station_of(request).store)
        )
    except charts.FieldsError as problem:
        return render(request, "patient_form.html", 422, values=texts(form), errors=problem.errors, patient=None)
    return to(f"/patients/{patient}")


def edit_patient(request: Request) -> Response:
    """The form with what is known, to correct it."""
    row = found(charts.patient_of(station_of(request).store, request.path_params["patient"]), "patient")
    values = {name: "" if row[name] is None else str(row[name]) for name in ("own_id", "name", "birth_year", "sex")}
    return render(request, "patient_form.html", values=values, errors={}, patient=row["id"])


def change_patient(request: Request, form: FormData) -> Response:
    """Keep what was corrected, or show the form again with what was typed."""
    store, patient_id = station_of(request).store, request.path_params["patient"]
    found(charts.patient_of(store, patient_id), "patient")
    try:
        charts.change_patient(store, who(request), patient_id, texts(form), year(store))
    except charts.FieldsError as problem:
        values = texts(form)
        return render(request, "patient_form.html", 422, values=values, errors=problem.errors, patient=patient_id)
    return to(f"/patients/{patient_id}")


def _patient_page(
    request: Request, patient_id: str, status: int = 200, values: object = None, errors: object = None
) -> Response:
    store = station_of(request).store
    patient = found(charts.patient_of(store, patient_id), "patient")
    return render(
        request,
        "patient.html",
        status,
        patient=patient,
        lesions=charts.lesions_of(store, patient_id),
        values=values or {},
        errors=errors or {},
    )


def patient(request: Request) -> Response:
    """A patient with the lesions, and the body map to mark a new one."""
    return _patient_page(request, request.path_params["patient"])


def add_lesion(request: Request, form: FormData) -> Response:
    """Keep a lesion, or show the patient again with what was typed."""
    store, patient_id = station_of(request).store, request.path_params["patient"]
    found(charts.patient_of(store, patient_id), "patient")
    try:
        lesion = charts.add_lesion(store, who(request), patient_id, texts(form))
    except charts.FieldsError as problem:
        return _patient_page(request, patient_id, 422, texts(form), problem.errors)
    return to(f"/lesions/{lesion}")


def lesion_page(
    request: Request, lesion_id: str, status: int = 200, values: object = None, errors: object = None
) -> Response:
    """A lesion over time, with the forms for a new picture and an outcome."""
    store = station_of(request).store
    lesion = found(charts.lesion_of(store, lesion_id), "lesion")
    return render(
        request,
        "lesion.html",
        status,
        lesion=lesion,
        patient=charts.patient_of(store, lesion["patient"]),
        pictures=findings.pictures_of(store, lesion_id),
        outcomes=findings.outcomes_of(store, lesion_id),
        values=values or {},
        errors=errors or {},
        max_mib=station_of(request).limits.max_bytes / 2**20,
    )


def lesion(request: Request) -> Response:
    """A lesion over time."""
    return lesion_page(request, request.path_params["lesion"])


@needs("clinician")
def add_outcome(request: Request, form: FormData) -> Response:
    """Keep what a lesion turned out to be."""
    store, lesion_id = station_of(request).store, request.path_params["lesion"]
    found(charts.lesion_of(store, lesion_id), "lesion")
    try:
        findings.add_outcome(store, who(request), lesion_id, texts(form))
    except charts.FieldsError as problem:
        return lesion_page(request, lesion_id, 422, texts(form), problem.errors)
    return to(f"/lesions/{lesion_id}")


ROUTES = [
    Route("/", today),
    Route("/search", posted(search), methods=["POST"]),
    Route("/patients/new", new_patient),
    Route("/patients", posted(add_patient), methods=["POST"]),
    Route("/patients/{patient}", patient),
    Route("/patients/{patient}/edit", edit_patient),
    Route("/patients/{patient}/edit", posted(change_patient), methods=["POST"]),
    Route("/patients/{patient}/lesions", posted(add_lesion), methods=["POST"]),
    Route("/lesions/{lesion}", lesion),
    Route("/lesions/{lesion}/outcomes", posted(add_outcome), methods=["POST"]),
]
