"""The board's own camera, played by a file of JPEGs: live view, shot, unplugging, a camera that hangs."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
import http.client

from station_site import Browser, application, command, station_in

from edge_mdda.station import camera as camera_module
from edge_mdda.station.camera import Camera, jpegs
from edge_mdda.station.drawn import variation


@pytest.fixture()
def film(tmp_path):
    path = tmp_path / "camera.mjpeg"
    path.write_bytes(variation(2) + variation(6))
    return path


@pytest.fixture()
def camera(film):
    camera = Camera(str(film), again_s=0.1)
    yield camera
    camera.close()
    assert camera.pid is None


def wait_for(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_jpegs_are_told_apart(film):
    assert jpegs(film.read_bytes()) == [variation(2), variation(6)]
    assert jpegs(b"") == [] and jpegs(variation(2)[:100]) == []


def test_frames_are_the_cameras_own_bytes_and_in_order(camera):
    first = camera.after(0, 30)
    second = camera.after(first.number, 30)
    assert {first.jpeg, second.jpeg} == {variation(2), variation(6)} and second.number > first.number
    assert camera.problem == ""


def test_an_ended_child_is_replaced(camera):
    frame = camera.after(0, 30)
    before = camera.pid
    os.kill(before, signal.SIGKILL)
    assert camera.after(camera.latest() + 2, 30).number > frame.number
    assert camera.pid != before


def test_unplugged_and_plugged_in_again(camera, film):
    assert camera.after(0, 30)
    away = film.with_suffix(".away")
    film.rename(away)
    wait_for(lambda: camera.after(camera.latest(), 0.05) is None and camera.problem)
    assert "plug it in" in camera.problem and str(film) in camera.problem
    away.rename(film)
    assert camera.after(camera.latest(), 30)
    assert camera.problem == ""


def test_a_camera_that_hangs_is_ended(tmp_path):
    pipe = tmp_path / "hangs"
    os.mkfifo(pipe)  # opening it for reading waits for a writer that never comes
    camera = Camera(str(pipe), silence_s=0.5, again_s=0.1)
    assert camera.after(0, 5) is None
    assert "plug it in again" in camera.problem
    camera.close()


def test_nobody_looks_and_the_camera_is_let_go(film):
    camera = Camera(str(film), unused_s=0.5)
    assert camera.after(0, 30)
    wait_for(lambda: camera.pid is None)
    assert camera.after(camera.latest(), 30)  # and is there again for the next one
    camera.close()


@pytest.mark.parametrize(
    ("number", "says"), [(16, "busy"), (2, "no camera at"), (13, "group video"), (5, "does not work")]
)
def test_what_is_wrong_with_a_camera_is_one_line(number, says):
    assert says in camera_module.problem_of("/dev/video0", OSError(number, os.strerror(number)))


def test_the_page_shows_it_and_keeps_what_the_sensor_gave(tmp_path, camera):
    with station_in(tmp_path / "data") as station:
        station.camera = camera
        browser = Browser(application(station))
        lesion = browser.new_lesion()
        assert f"{lesion}/camera" in browser.get(lesion).text
        assert "Take the picture" in browser.get(f"{lesion}/camera").text
        wait_for(lambda: browser.get("/camera/state").json()["ok"] is not False)
        browser.post(f"{lesion}/camera")
        assert browser.here().startswith("/pictures/") and "REFER" in browser.page.text
        assert browser.get(f"{browser.here()}/view/stored").content in (variation(2), variation(6))
        assert station.store.row("SELECT source FROM pictures")[0] == "camera"


def test_a_lost_camera_is_told_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_mdda.station.camera_pages.SHOT_S", 1.0)
    with station_in(tmp_path / "data") as station:
        station.camera = Camera(str(tmp_path / "nothing"), again_s=0.1)
        browser = Browser(application(station))
        lesion = browser.new_lesion()
        page = browser.post(f"{lesion}/camera")
        assert page.status_code == 422 and "there is no camera at" in page.text
        assert "there is no camera at" in browser.get("/camera/state").json()["says"]
        station.camera.close()


def test_without_a_camera_the_pages_say_so(tmp_path):
    with station_in(tmp_path / "data") as station:
        browser = Browser(application(station))
        lesion = browser.new_lesion()
        assert f"{lesion}/camera" not in browser.get(lesion).text
        for path in (f"{lesion}/camera", "/camera/live", "/camera/state"):
            page = browser.get(path)
            assert page.status_code == 404 and "--camera" in page.text


def test_the_live_view_streams_and_does_not_hold_up_the_end(tmp_path, film):
    with command("--data", str(tmp_path / "data"), "--camera", str(film)) as (process, address):
        connection = http.client.HTTPConnection(address[7:], timeout=60)
        connection.request("GET", "/camera/live")
        answer = connection.getresponse()
        assert answer.status == 200 and "multipart/x-mixed-replace" in answer.getheader("content-type")
        content = b""
        while content.count(b"--frame") < 4:
            content += answer.read1(1 << 16)
        size = int(re.search(rb"Content-Length: (\d+)\r\n\r\n", content)[1])
        assert size in (len(variation(2)), len(variation(6)))
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert time.monotonic() - begin < 8 and process.returncode == 0
        connection.close()
