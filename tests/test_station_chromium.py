"""The station in a real browser: the whole visit with a camera, by keyboard, zoomed, without script; and axe."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
pytest.importorskip("selenium")
import station_chromium
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from station_site import command

from edge_mdda.station.drawn import variation

station_chromium.require()

WCAG = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]
SMALL_TARGETS = """
return [...document.querySelectorAll('a, button, input:not([type=hidden]), select, summary')].filter((e) => {
  const around = (e.closest('label') || e).getBoundingClientRect();
  const inline = e.tagName === 'A' && e.parentElement.tagName === 'P';
  return !inline && !e.classList.contains('skip') && around.width > 0 && (around.width < 24 || around.height < 24);
}).map((e) => e.outerHTML);
"""
"""WCAG 2.2, 2.5.8: 24 by 24 pixels but for links inside a sentence. The axe that comes with its package is older."""
RUN_AXE = """
const done = arguments[1];
axe.run(document, arguments[0]).then(
  (found) => done(found.violations.map((v) => [v.id, v.nodes.map((n) => n.html + n.failureSummary)])),
  (error) => done([String(error)]));
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with command("--data", str(tmp_path_factory.mktemp("station") / "data")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def demo():
    with command("--demo") as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = station_chromium.camera_file(tmp_path_factory.mktemp("camera"), variation(2))
    with station_chromium.chromium(camera) as driver:
        yield driver


def by_id(driver, name):
    return driver.find_element(By.ID, name)


def until(driver, condition):
    """Wait; the page may be replaced while it is looked at."""
    gone = (StaleElementReferenceException, NoSuchElementException)
    return WebDriverWait(driver, station_chromium.WAIT_S, ignored_exceptions=gone).until(condition)


def press(driver, text):
    driver.find_element(By.XPATH, f"//main//button[contains(., '{text}')]").click()


def main_text(driver) -> str:
    return driver.find_element(By.TAG_NAME, "main").text


def add_patient(driver, address, own_id, **fields):
    driver.get(f"{address}/patients/new")
    for name, value in {"own_id": own_id, **fields}.items():
        by_id(driver, name).send_keys(value)
    press(driver, "Keep this patient")
    until(driver, lambda d: "New patient" not in d.find_element(By.TAG_NAME, "h1").text)


def add_lesion(driver, site="upper-back-left-back"):
    driver.find_element(By.CSS_SELECTOR, f'input[value="{site}"]').click()
    press(driver, "Keep this lesion")
    until(driver, lambda d: "/lesions/" in d.current_url and d.find_elements(By.ID, "capture"))


def complaints(driver) -> list[str]:
    """What Chromium's console says of our pages: a blocked script, a missing file."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_whole_visit_with_the_camera(browser, address):
    complaints(browser)
    add_patient(browser, address, "C-1", name="Ann Example", birth_year="1970")
    shape = browser.find_element(By.CSS_SELECTOR, 'rect[data-site="calf-left-back"]')
    ActionChains(browser).move_to_element(shape).click().perform()
    assert browser.find_element(By.CSS_SELECTOR, 'input[value="calf-left-back"]').is_selected()
    press(browser, "Keep this lesion")
    until(browser, lambda d: d.find_elements(By.ID, "camera-on"))
    by_id(browser, "camera-on").click()
    until(browser, lambda d: d.execute_script("return document.getElementById('video').videoWidth") > 0)
    until(browser, lambda d: by_id(d, "verdict").text.startswith("✓"))
    by_id(browser, "shot").click()
    until(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "#shots img"))
    by_id(browser, "send").click()
    until(browser, lambda d: "/pictures/" in d.current_url)
    assert "REFER" in main_text(browser) and "malignant share" in main_text(browser)
    browser.find_element(By.CSS_SELECTOR, 'input[value="referred"]').click()
    by_id(browser, "clinician").send_keys("Dr Bo")
    press(browser, "Keep this decision")
    until(browser, lambda d: "referred to a clinic or hospital, Dr Bo" in main_text(d))
    browser.get(address)
    first = browser.find_element(By.CSS_SELECTOR, ".cards li").text
    assert "REFER" in first and "Ann Example" in first and "decided" in first
    assert complaints(browser) == []


def test_a_dark_live_view_says_so(tmp_path, address):
    camera = station_chromium.camera_file(tmp_path, variation(3))
    with station_chromium.chromium(camera) as browser:
        add_patient(browser, address, "C-2")
        add_lesion(browser)
        by_id(browser, "camera-on").click()
        until(browser, lambda d: "too dark" in by_id(d, "verdict").text)
        ActionChains(browser).send_keys(Keys.SPACE).perform()  # the shot button has the focus
        until(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "#shots img"))
        browser.find_element(By.CSS_SELECTOR, "#shots button").click()
        assert browser.find_elements(By.CSS_SELECTOR, "#shots img") == []
        by_id(browser, "camera-off").click()
        assert not by_id(browser, "live").is_displayed()


def test_no_camera_is_told(address):
    with station_chromium.chromium() as browser:
        add_patient(browser, address, "C-3")
        add_lesion(browser)
        by_id(browser, "camera-on").click()
        until(browser, lambda d: by_id(d, "camera-problem").text)
        assert any(words in by_id(browser, "camera-problem").text for words in ("no camera", "may not use"))


def test_the_whole_visit_by_keyboard_alone(browser, address, tmp_path):
    picture = tmp_path / "mole.jpg"
    picture.write_bytes(variation(0))

    def keys(*pressed):
        ActionChains(browser).send_keys(*pressed).perform()

    def tab_to(condition, most=80):
        for _ in range(most):
            keys(Keys.TAB)
            if condition(browser.switch_to.active_element):
                return browser.switch_to.active_element
        raise AssertionError("not reached by the tab key")

    browser.get(address)
    tab_to(lambda e: e.text == "New patient").send_keys(Keys.ENTER)
    until(browser, lambda d: d.find_elements(By.ID, "own_id"))
    tab_to(lambda e: e.get_attribute("id") == "own_id")
    keys("K-1", Keys.ENTER)
    until(browser, lambda d: d.find_elements(By.NAME, "site"))
    tab_to(lambda e: e.get_attribute("name") == "site")
    keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    tab_to(lambda e: "Keep this lesion" in e.text).send_keys(Keys.ENTER)
    until(browser, lambda d: d.find_elements(By.ID, "capture"))
    tab_to(lambda e: e.get_attribute("id") == "pictures").send_keys(str(picture))  # the file dialogue is the system's
    tab_to(lambda e: e.get_attribute("id") == "send").send_keys(Keys.ENTER)
    until(browser, lambda d: "/pictures/" in d.current_url)
    tab_to(lambda e: e.get_attribute("name") == "action")
    keys(Keys.SPACE)
    tab_to(lambda e: e.get_attribute("id") == "clinician")
    keys("Dr Bo", Keys.ENTER)
    until(browser, lambda d: "Change the decision" in main_text(d))


def test_a_wrong_field_keeps_what_was_typed_and_gets_the_focus(browser, address):
    browser.get(f"{address}/patients/new")
    browser.execute_script("document.querySelector('form[action=\"/patients\"]').noValidate = true")
    by_id(browser, "name").send_keys("Kept Name")
    press(browser, "Keep this patient")
    until(browser, lambda d: d.find_elements(By.ID, "problems"))
    assert by_id(browser, "name").get_attribute("value") == "Kept Name"
    assert browser.switch_to.active_element.get_attribute("id") == "problems"


def test_a_file_that_is_no_picture_is_told(browser, address, tmp_path):
    wrong = tmp_path / "letter.jpg"
    wrong.write_bytes(b"Dear doctor")
    add_patient(browser, address, "C-4")
    add_lesion(browser)
    by_id(browser, "pictures").send_keys(str(wrong))
    by_id(browser, "send").click()
    until(browser, lambda d: d.find_elements(By.ID, "problems"))
    assert "Picture 1:" in main_text(browser)


def paths_of(browser, demo) -> list[str]:
    browser.get(demo)
    picture = browser.find_element(By.CSS_SELECTOR, ".cards a").get_attribute("href")
    browser.get(picture)
    links = [a.get_attribute("href") for a in browser.find_elements(By.CSS_SELECTOR, "main a")]
    lesion, patient = (next(link for link in links if kind in link) for kind in ("/lesions/", "/patients/"))
    return [
        demo + "/",
        demo + "/patients/new",
        patient,
        lesion,
        picture,
        demo + "/nothing",
        demo + "/board",
        demo + "/staff",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, demo, scheme):
    axe = pytest.importorskip("axe_selenium_python").Axe(browser)
    browser.set_script_timeout(station_chromium.WAIT_S)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for path in paths_of(browser, demo):
        browser.get(path)
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        axe.inject()
        found = browser.execute_async_script(RUN_AXE, {"runOnly": {"type": "tag", "values": WCAG}})
        assert found == [], f"{path}: {found}"
        assert browser.execute_script(SMALL_TARGETS) == [], path


def test_at_twice_the_size_nothing_runs_out_of_the_window(browser, demo):
    paths = paths_of(browser, demo)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 640, "height": 450, "deviceScaleFactor": 2, "mobile": False}
    )
    try:
        for path in paths:
            browser.get(path)
            wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, path
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_with_pins_one_enters_works_and_locks(browser, tmp_path):
    with command("--data", str(tmp_path / "data")) as (_, address):
        browser.get(f"{address}/staff")
        by_id(browser, "name").send_keys("Ada")
        browser.find_element(By.CSS_SELECTOR, 'input[value="admin"]').click()
        by_id(browser, "pin").send_keys("473920")
        press(browser, "Keep this person")
        until(browser, lambda d: "Enter your PIN" in main_text(d))
        by_id(browser, "name").send_keys("Ada")
        by_id(browser, "pin").send_keys("000000", Keys.ENTER)
        until(browser, lambda d: "name or the PIN is wrong" in main_text(d))
        assert by_id(browser, "name").get_attribute("value") == "Ada"
        by_id(browser, "pin").send_keys("473920", Keys.ENTER)
        until(browser, lambda d: "Who may do what" in main_text(d))
        add_patient(browser, address, "P-1")
        browser.find_element(By.XPATH, "//header//button[text()='Lock']").click()
        until(browser, lambda d: "Enter your PIN" in main_text(d))
        browser.back()
        assert "P-1" not in main_text(browser)


def test_the_boards_own_camera(browser, tmp_path):
    camera = station_chromium.camera_file(tmp_path, variation(2))
    with command("--data", str(tmp_path / "data"), "--camera", str(camera)) as (_, address):
        add_patient(browser, address, "B-1")
        add_lesion(browser)
        browser.find_element(By.LINK_TEXT, "Use the board's camera").click()
        until(browser, lambda d: d.execute_script("return document.getElementById('view').naturalWidth") > 0)
        until(browser, lambda d: by_id(d, "verdict").text.startswith("✓"))
        ActionChains(browser).send_keys(Keys.SPACE).perform()  # the button has the focus
        until(browser, lambda d: "/pictures/" in d.current_url)
        assert "REFER" in main_text(browser)


def test_it_works_without_script(browser, address, tmp_path):
    picture = tmp_path / "mole.jpg"
    picture.write_bytes(variation(4))
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        add_patient(browser, address, "N-1")
        add_lesion(browser)
        assert not by_id(browser, "camera").is_displayed()
        by_id(browser, "pictures").send_keys(str(picture))
        by_id(browser, "send").click()
        until(browser, lambda d: "/pictures/" in d.current_url)
        assert "no sign that asks for referral" in main_text(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
