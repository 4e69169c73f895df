"""Roles, PINs, delays, the lock when idle, and what stays typed."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
from starlette.routing import Route
from station_site import Browser, application, station_in

from edge_mdda.station import audit, auth
from edge_mdda.station.charts import FieldsError

PINS = {"Ada": ("admin", "473920"), "Cleo": ("clinician", "leaf-82x"), "Omar": ("operator", "918273")}


@pytest.fixture(scope="module")
def cheap():
    """PINs hashed with the least that Argon2id takes: the tests make many."""
    patch = pytest.MonkeyPatch()
    patch.setattr(auth, "OPERATIONS", 1)
    patch.setattr(auth, "MEMORY", 8 << 10)
    yield
    patch.undo()


@pytest.fixture()
def site(tmp_path, cheap):
    with station_in(tmp_path / "data") as station:
        for name, (role, pin) in PINS.items():
            auth.add_user(station.store, "test", name, role, pin)
        clock = [1000.0, 5_000_000.0]
        station.gate.now, station.gate.wall = (lambda: clock[0]), (lambda: clock[1])
        yield station, application(station), clock


def entered(site, name: str) -> Browser:
    browser = Browser(site[1])
    assert browser.post("/login", {"name": name, "pin": PINS[name][1]}).status_code == 200
    return browser


def test_a_pin_is_kept_as_argon2id(tmp_path):
    stored = auth.hash_pin("473920")
    assert stored.startswith("$argon2id$") and f"m={auth.MEMORY >> 10},t={auth.OPERATIONS}" in stored
    assert auth.hash_pin("473920") != stored and auth.fits("473920", stored) and not auth.fits("473921", stored)


def test_without_a_pin_nothing_is_shown_or_written(site):
    browser = Browser(site[1])
    routes = [route for route in site[1].app.routes if isinstance(route, Route)]
    assert len(routes) > 20
    before = site[0].store.row("SELECT count(*) FROM audit")[0]
    for route in routes:
        path = re.sub(r"{\w+}", "0123456789abcdef", route.path)
        if path == "/healthz" or path.startswith("/api/"):
            continue
        if "GET" in route.methods:
            page = browser.get(path)
            assert page.status_code == 401 and "Enter your PIN" in page.text, path
        if "POST" in route.methods and path not in ("/login", "/logout"):
            page = browser.post(path, {"own_id": "1", "name": "x", "pin": "473920", "role": "admin"})
            assert page.status_code == 401 and "Enter your PIN" in page.text, path
    assert site[0].store.row("SELECT count(*) FROM audit")[0] == before
    assert browser.get("/healthz").status_code == 200


def test_entering_changes_the_session_and_leaving_ends_it(site):
    browser = Browser(site[1])
    first = browser.client.cookies["station"]
    browser.post("/login", {"name": "ada", "pin": "473920"})
    inside = browser.client.cookies["station"]
    assert inside != first and "Today" in browser.get("/").text and "Ada (admin)" in browser.page.text
    stolen = Browser(site[1])
    stolen.client.cookies.set("station", first, domain="127.0.0.1")
    assert stolen.get("/").status_code == 401
    browser.post("/logout")
    assert browser.get("/").status_code == 401
    assert inside not in "".join(map(str, map(tuple, site[0].store.rows("SELECT * FROM audit"))))


@pytest.mark.parametrize(("name", "decides", "names"), [("Omar", 403, 403), ("Cleo", 200, 403), ("Ada", 200, 200)])
def test_what_each_role_may_do(site, name, decides, names):
    from edge_mdda.models import DEMO_IMAGE

    browser = entered(site, name)
    picture = browser.new_picture(DEMO_IMAGE.read_bytes(), own_id=name)
    assert browser.page.status_code == 200
    lesion = re.search(r"/lesions/\w{16}", browser.page.text)[0]
    assert browser.post(f"{picture}/decision", {"action": "none", "clinician": "x"}).status_code == decides
    assert browser.post(f"{lesion}/outcomes", {"diagnosis": "x", "basis": "expert"}).status_code == decides
    assert browser.post(f"{picture}/withdraw", {"reason": "wrong one"}).status_code == decides
    assert browser.get("/staff").status_code == names
    assert browser.post("/staff/users", {"name": "New", "role": "admin", "pin": "tr33-top"}).status_code == names
    assert browser.post("/staff/devices", {"device": "tablet"}).status_code == names
    made_by = {row["made_by"] for row in site[0].store.rows("SELECT made_by FROM pictures")}
    assert made_by == {name}


def test_wrong_pins_wait_longer_and_longer(site):
    station, _, clock = site
    waits = []
    for _ in range(14):
        wait = 0
        while True:
            with pytest.raises(FieldsError) as caught:
                station.gate.enter("Ada", "000000")
            if "wait" not in str(caught.value):
                break
            clock[1] += 1
            wait += 1
        waits.append(wait)
    assert waits[:3] == [0, 0, 0] and waits == sorted(waits) and waits[-1] == auth.MAX_DELAY_S
    row = station.store.row("SELECT failures FROM users WHERE name = 'Ada'")
    assert row[0] == 14
    clock[1] += auth.MAX_DELAY_S + 1
    assert station.gate.enter("Ada", "473920")
    assert station.store.row("SELECT failures FROM users WHERE name = 'Ada'")[0] == 0


def test_the_right_pin_must_wait_too_and_a_clock_set_back_locks_nobody_out(site):
    station, _, clock = site
    for _ in range(6):
        with pytest.raises(FieldsError):
            station.gate.enter("Ada", "000000")
        clock[1] += 100
    with pytest.raises(FieldsError):
        station.gate.enter("Ada", "000000")
    with pytest.raises(FieldsError, match="wait"):
        station.gate.enter("Ada", "473920")
    clock[1] -= 10 * 365 * 86400
    with pytest.raises(FieldsError, match="wait 900 s"):
        station.gate.enter("Ada", "473920")


def test_an_unknown_name_is_told_like_a_wrong_pin(site):
    browser = Browser(site[1])
    texts = [browser.post("/login", {"name": name, "pin": "000000"}).text for name in ("Ada", "Nobody")]
    clean = [re.sub(r'value="[^"]*"', "", text) for text in texts]
    assert clean[0] == clean[1] and "The name or the PIN is wrong" in clean[0] and "000000" not in texts[0]


def test_idle_locks_and_what_was_typed_is_kept(site):
    station, _, clock = site
    browser = entered(site, "Omar")
    token = browser.token()
    clock[0] += auth.IDLE_S + 1
    typed = {"own_id": "Kept-7", "name": 'A "quoted" <name>', "sex": "male"}
    page = browser.post("/patients", typed, token=token)
    assert page.status_code == 401 and "What you typed is kept" in page.text
    fields = dict(re.findall(r'name="(kept-\w+|next)" value="([^"]*)"', page.text))
    import html

    form = {key: html.unescape(value) for key, value in fields.items()}
    token = re.search(r'name="csrf" value="(\w+)"', page.text)[1]
    page = browser.post("/login", {**form, "name": "Omar", "pin": "000000"}, token=token)
    assert page.status_code == 401 and "Kept-7" in page.text
    page = browser.post("/login", {**form, "name": "Omar", "pin": PINS["Omar"][1]}, token=token)
    assert page.status_code == 200 and "Send what was typed" in page.text
    send = {
        key: html.unescape(value)
        for key, value in re.findall(r'name="(\w+)" value="([^"]*)"', page.text.partition("<main")[2])
    }
    browser.post("/patients", send, token=send.pop("csrf"))
    assert "Kept-7" in browser.page.text and station.store.row("SELECT name FROM patients")[0] == typed["name"]


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_after_the_pin_one_stays_on_the_station(site, place):
    browser = Browser(site[1])
    page = browser.client.post(
        "/login",
        data={
            "csrf": re.search(r'csrf" value="(\w+)', browser.get("/login").text)[1],
            "next": place,
            "name": "Ada",
            "pin": "473920",
        },
        headers={"origin": "http://127.0.0.1:8080"},
        follow_redirects=False,
    )
    assert (page.status_code, page.headers["location"]) == (303, "/")


def test_the_first_must_be_an_admin_and_the_last_admin_stays(tmp_path, cheap):
    with station_in(tmp_path / "data") as station:
        browser = Browser(application(station))
        assert "No PIN is set" in browser.get("/staff").text
        page = browser.post("/staff/users", {"name": "Omar", "role": "operator", "pin": "918273"})
        assert page.status_code == 422 and "first one must be an admin" in page.text
        browser.post("/staff/users", {"name": "Ada", "role": "admin", "pin": "473920"})
        assert browser.page.status_code == 401  # from now on everybody enters a PIN
        browser.post("/login", {"name": "Ada", "pin": "473920"})
        ada = station.store.row("SELECT id FROM users")[0]
        page = browser.post(f"/staff/users/{ada}", {"active": "no"})
        assert page.status_code == 422 and "last admin stays" in page.text
        browser.post("/staff/users", {"name": "Omar", "role": "operator", "pin": "918273"})
        omar = Browser(application(station))
        omar.post("/login", {"name": "Omar", "pin": "918273"})
        user = station.store.row("SELECT id FROM users WHERE name = 'Omar'")[0]
        browser.post(f"/staff/users/{user}", {"active": "no"})
        assert omar.get("/").status_code == 401  # at once
        assert audit.verify(station.store._connection).broken is None


@pytest.mark.parametrize("pin", ["12345", "111111", "123456", "654321", "x" * 129])
def test_weak_pins_are_refused(site, pin):
    with pytest.raises(FieldsError, match="PIN"):
        auth.add_user(site[0].store, "test", "New", "operator", pin)


def test_a_device_token_is_shown_once_and_kept_as_a_hash(site):
    browser = entered(site, "Ada")
    token = re.search(r"<code>([0-9a-f]{64})</code>", browser.post("/staff/devices", {"device": "Tablet"}).text)[1]
    assert token not in browser.get("/staff").text and token not in str(
        tuple(site[0].store.row("SELECT * FROM devices"))
    )
    assert auth.device_of(site[0].store, f"Bearer {token}").name == "device Tablet"
    device = site[0].store.row("SELECT id FROM devices")[0]
    browser.post(f"/staff/devices/{device}/stop")
    assert auth.device_of(site[0].store, f"Bearer {token}") is None


def test_a_locked_station_keeps_no_picture_in_memory_and_leads_back(site):
    browser = Browser(site[1])
    browser.get("/")
    files = {"pictures": ("x.jpg", b"x" * 100_000, "image/jpeg")}
    page = browser.client.post(
        "/lesions/0123456789abcdef/pictures", files=files, headers={"origin": "http://127.0.0.1:8080"}
    )
    assert page.status_code == 401 and 'name="next" value="/lesions/0123456789abcdef"' in page.text
