"""What is let in: hosts, origins, tokens, sizes, methods, paths, pictures."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
from starlette.routing import Route
from station_site import HOST, ORIGIN, Browser, application, station_in

from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station import app as app_module
from edge_mdda.station import pages

DRAWN = DEMO_IMAGE.read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with station_in(tmp_path_factory.mktemp("station") / "data") as station:
        yield station, application(station)


@pytest.fixture()
def browser(site):
    return Browser(site[1])


def posts(site) -> list[str]:
    routes = site[1].app.routes
    return [
        route.path
        for route in routes
        if isinstance(route, Route) and "POST" in (route.methods or ()) and "/api/" not in route.path
    ]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:81", "localhost.evil:8080", "", "127.0.0.1:8080.evil"]
)
def test_only_its_own_name_is_answered(browser, host):
    page = browser.client.get("/", headers={"host": host})
    assert page.status_code == 421 and "Today" not in page.text


def test_every_form_wants_its_token_and_its_origin(site, browser):
    paths = posts(site)
    assert len(paths) >= 8
    for path in paths:
        place = re.sub(r"{\w+}", "0123456789abcdef", path)
        assert browser.post(place, {"own_id": "1"}, token="0" * 64).status_code == 403, place
        assert browser.post(place, {"own_id": "1"}, token="").status_code == 403
        for origin in ("http://evil.example", "null", "", "https://" + HOST, "http://localhost:8080"):
            assert browser.post(place, {"own_id": "1"}, origin=origin).status_code == 403, origin
        assert browser.client.post(place, data={"csrf": browser.token()}).status_code == 403  # no origin at all
    assert site[0].store.row("SELECT count(*) FROM patients")[0] == 0


def test_a_token_of_another_browser_is_refused(site, browser):
    other = Browser(site[1])
    assert browser.post("/search", {"words": "a"}, token=other.token()).status_code == 403


def test_the_cookie_is_strict_and_says_nothing(site):
    cookie = Browser(site[1]).page.headers["set-cookie"]
    assert re.fullmatch(r"station=[0-9a-f]{64}; Path=/; HttpOnly; SameSite=Strict", cookie)
    again = Browser(site[1])
    assert "set-cookie" not in again.get("/").headers
    again.client.cookies.set("station", "my own choice", domain="127.0.0.1")
    assert "set-cookie" in again.get("/").headers


def test_every_answer_has_the_headers_and_no_page_holds_inline_code(browser):
    picture = browser.new_picture(DRAWN)
    lesion, patient = (re.search(rf"/{kind}/\w{{16}}", browser.page.text)[0] for kind in ("lesions", "patients"))
    for path in ("/", picture, lesion, patient, "/nothing", "/static/station.css", f"{picture}/view/raw", "/healthz"):
        page = browser.get(path)
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        if "html" in page.headers["content-type"]:
            assert page.headers["cache-control"] == "no-store"
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)|javascript:", page.text)


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/store.py", "/../../etc/passwd",
        "/pictures/..%2f..%2fstation.sqlite", "/pictures/0123456789abcdef/view/../../x", "/patients/' OR 1=1 --",
        "/pictures/0123456789abcdef/view/file", "/lesions/%00", "/patients/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_path_leads_out(browser, path):
    page = browser.get(path)
    assert page.status_code == 404 and "import" not in page.text and "root:" not in page.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "BREW"])
def test_other_methods_are_refused(browser, method):
    assert browser.client.request(method, "/", headers={"origin": ORIGIN}).status_code == 405


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not a picture", "not an image"),
        (b"GIF89a" + bytes(100), "GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", ""),
        (DRAWN[:200], "cut off"),
        (b"\xff\xd8\xff\xe0" + bytes(40), ""),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x00\x0f\x42\x40\x00\x0f\x42\x40\x08\x02\0\0\0" + bytes(60), ""),
    ],
)
def test_what_is_no_picture_is_refused_and_not_kept(site, browser, content, says):
    before = list(site[0].store.blobs.names())
    lesion = browser.new_lesion(own_id=f"bad-{abs(hash(content))}")
    page = browser.post(f"{lesion}/pictures", files={"pictures": ("x.jpg", content, "image/jpeg")})
    assert page.status_code == 422 and "Picture 1: " in page.text and says in page.text
    assert list(site[0].store.blobs.names()) == before


def test_no_picture_at_all(browser):
    lesion = browser.new_lesion(own_id="none")
    assert "choose a file" in browser.post(f"{lesion}/pictures").text
    assert browser.post(f"{lesion}/pictures", files={"pictures": ("", b"", "image/jpeg")}).status_code == 422
    assert browser.post(f"{lesion}/pictures", {"pictures": "text"}).status_code == 422


def test_a_damaged_picture_is_kept_and_told(browser):
    lesion = browser.new_lesion(own_id="damaged")
    broken = DRAWN[: len(DRAWN) // 2] + b"\xff\xd9"
    page = browser.post(f"{lesion}/pictures", files={"pictures": ("x.jpg", broken, "image/jpeg")})
    assert page.status_code == 422 and "not judged" in page.text.lower()


def test_too_large_is_refused_before_it_is_read(site, browser):
    lesion = browser.new_lesion(own_id="large")
    size = site[0].limits.max_bytes + (1 << 17)
    page = browser.post(f"{lesion}/pictures", files={"pictures": ("x.jpg", DRAWN + bytes(size), "image/jpeg")})
    assert page.status_code == 413
    page = browser.post("/patients", {"own_id": "x" * (1 << 17)})
    assert page.status_code == 413


def test_a_body_without_end_is_cut_off(site):
    import asyncio

    headers = {"host": HOST, "origin": ORIGIN, "content-type": "multipart/form-data; boundary=x"}
    scope = {
        "type": "http", "method": "POST", "path": "/search", "raw_path": b"/search", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "scheme": "http", "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 5), "http_version": "1.1",
    }  # fmt: skip
    read, sent = 0, []

    async def receive():
        nonlocal read
        read += 1
        start = b'--x\r\ncontent-disposition: form-data; name="p"; filename="p"\r\n\r\n' if read == 1 else b""
        return {"type": "http.request", "body": start + bytes(1 << 16), "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(site[1](scope, receive, send))
    assert sent[0]["status"] == 413 and read <= (site[0].limits.max_bytes >> 16) + 3


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "٣"])
def test_a_length_that_makes_no_sense(browser, length):
    headers = {"origin": ORIGIN, "content-length": length.encode()}
    assert browser.client.post("/search", content=b"", headers=headers).status_code in (400, 413)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_a_body_of_another_kind(browser, content_type):
    headers = {"origin": ORIGIN, "content-type": content_type}
    assert browser.client.post("/search", content=b"--x\r\n{", headers=headers).status_code in (400, 403)


def test_too_many_fields_and_files(browser):
    lesion = browser.new_lesion(own_id="many")
    assert browser.post("/search", {f"f{k}": "x" for k in range(100)}).status_code == 400
    many = [("pictures", (f"{k}.jpg", b"x", "image/jpeg")) for k in range(50)]
    assert browser.post(f"{lesion}/pictures", files=many).status_code == 400


def test_a_fault_of_the_program_tells_nothing_of_the_patient(site, browser, monkeypatch, capsys):
    def fault(*_: object) -> None:
        raise RuntimeError("Ann Example is ill")

    monkeypatch.setattr(pages.findings, "pictures_on", fault)
    page = browser.get("/")
    assert page.status_code == 500 and "Go back and try again" in page.text
    assert "Ann" not in page.text + "".join(capsys.readouterr())
    assert app_module.OUT_OF_ORDER == 503


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("database or disk is full", 507, "free some space"),
        ("database is locked", 503, "in use by another"),
        ("attempt to write a readonly database", 503, "not read-only"),
    ],
)
def test_trouble_with_the_disk_is_a_page_that_says_what_to_do(site, browser, monkeypatch, text, status, says):
    import sqlite3

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError(text)

    monkeypatch.setattr(app_module.visit_pages.charts, "add_patient", fail)
    page = browser.post("/patients", {"own_id": "x"})
    assert page.status_code == status and says in page.text


def test_what_was_typed_can_be_sent_again_once_the_disk_has_room(site, browser, monkeypatch):
    import html
    import sqlite3

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    typed = {"own_id": "Again-1", "name": 'O\'Neil "Al" <x>', "sex": "male"}
    with monkeypatch.context() as patch:
        patch.setattr(app_module.visit_pages.charts, "add_patient", full)
        page = browser.post("/patients", typed)
    form = page.text.partition("<main")[2]
    fields = {key: html.unescape(value) for key, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
    assert page.status_code == 507 and {name: fields[name] for name in typed} == typed
    assert 'action="/patients"' in form
    page = browser.post("/patients", fields, token=fields.pop("csrf"))
    assert page.status_code == 200 and "Again-1" in page.text


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 2 MiB, where this process may mount one."""
    import os
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with station_in(place / "data") as station:
            browser = Browser(application(station))
            lesion = browser.new_lesion()
            statuses = []
            for number in range(80):
                content = DRAWN + bytes(50_000) + bytes([number])
                page = browser.post(f"{lesion}/pictures", files={"pictures": ("x.jpg", content, "image/jpeg")})
                statuses.append(page.status_code)
                if statuses[-1] == 507:
                    break
            assert statuses[-1] == 507 and "The disk is full" in page.text, statuses
            store = station.store
            files = {row[0] for row in store.rows("SELECT sha256 FROM files")}
            assert set(store.blobs.names()) == files and not store.blobs.unfinished()
            assert store.row("PRAGMA integrity_check")[0] == "ok"
            assert browser.get("/").status_code == 200 and browser.get(lesion).status_code == 200
            page = browser.post("/patients", {"own_id": "later", "name": "kept"})
            assert page.status_code in (200, 507)
    finally:
        subprocess.run(["umount", str(place)], check=True)
