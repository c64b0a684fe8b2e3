"""The page in a headless Chromium: nothing fails, the viewer works, and everything can be read."""

import base64
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.distill.page.finished import finished_run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Debian's chromium and chromium-driver, which .ci/run installs",
    ),
]
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
CONTRAST = 4.5
"""Least ratio of text to its background (WCAG 2.2, level AA)."""

LOW_CONTRAST = """
const luminance = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parsed = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n.slice(0, 3), n[3] ?? 1]; };
const behind = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.unshift(parsed(getComputedStyle(one).backgroundColor));
  return layers.reduce((under, [rgb, alpha]) => rgb.map((v, i) => alpha * v + (1 - alpha) * under[i]), [255, 255, 255]);
};
const low = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest("script, style, svg") || !element.offsetParent) continue;
  const [front, back] = [parsed(getComputedStyle(element).color)[0], behind(element)].map(luminance);
  const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  if (ratio < arguments[0]) low.push([element.tagName, element.textContent.trim().slice(0, 40), ratio]);
}
return low;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = Options()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return finished_run(tmp_path_factory.mktemp("page") / "run") / "report.html"


def opened(browser, path: Path, width: int = 1200, scheme: str = "light"):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(path.as_uri())
    viewer = browser.find_element(By.CLASS_NAME, "viewer")
    WebDriverWait(browser, 20).until(lambda _: viewer.get_attribute("data-shown"))
    return viewer


def pixels(viewer) -> np.ndarray:
    uri = viewer.parent.execute_script("return arguments[0].querySelector('canvas').toDataURL()", viewer)
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)


def part(viewer, name: str):
    return viewer.find_element(By.CSS_SELECTOR, f'[data-part="{name}"]')


def set_range(viewer, name: str, value: float) -> None:
    viewer.parent.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        part(viewer, name),
        value,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_fails_and_everything_can_be_read(browser, path, width, scheme):
    opened(browser, path, width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert browser.get_log("browser") == []
    assert browser.execute_script(LOW_CONTRAST, CONTRAST) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = "return [...document.images].filter((one) => !one.complete || !one.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_the_border_moves_between_two_layers(browser, path):
    viewer = opened(browser, path)
    set_range(viewer, "opacity", 100)
    Select(part(viewer, "left")).select_by_visible_text("image")
    Select(part(viewer, "right")).select_by_visible_text("label")
    set_range(viewer, "split", 100)
    image = pixels(viewer)
    set_range(viewer, "split", 0)
    label = pixels(viewer)
    assert (image != label).any()
    colors = {tuple(color) for color in label.reshape(-1, 3).tolist()}
    assert (
        len(colors - {tuple(color) for color in image.reshape(-1, 3).tolist()}) <= 2
    )  # those of the classes
    set_range(viewer, "split", 50)
    both, middle = pixels(viewer), image.shape[1] // 2
    assert (both[:, : middle - 2] == image[:, : middle - 2]).all()
    assert (both[:, middle + 2 :] == label[:, middle + 2 :]).all()


def test_classes_can_be_switched_off(browser, path):
    viewer = opened(browser, path)
    Select(part(viewer, "left")).select_by_visible_text("label")
    set_range(viewer, "split", 100)
    before = pixels(viewer)
    boxes = viewer.find_elements(By.CSS_SELECTOR, "fieldset input")
    for box in boxes:
        box.click()
    Select(part(viewer, "right")).select_by_visible_text("image")
    off = pixels(viewer)
    set_range(viewer, "split", 0)
    assert (off != before).any()
    assert (off == pixels(viewer)).all()  # the image alone


def test_zoom_and_another_image(browser, path):
    viewer = opened(browser, path)
    canvas = viewer.find_element(By.TAG_NAME, "canvas")
    set_range(viewer, "zoom", 2)
    small = canvas.size["width"]
    set_range(viewer, "zoom", 4)
    assert canvas.size["width"] == pytest.approx(2 * small, abs=1)
    first, shown = pixels(viewer), viewer.get_attribute("data-shown")
    Select(part(viewer, "image")).select_by_index(1)
    WebDriverWait(browser, 20).until(lambda _: viewer.get_attribute("data-shown") != shown)
    assert (pixels(viewer) != first).any()
