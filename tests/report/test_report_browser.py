"""The page in a real browser, on a phone's and on a desktop's width: all there, all legible."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from report.page import make_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--v=0"),
)
PROBE = """
<script>
addEventListener("load", () => {
  const inside = box => box.width > 0 && box.height > 0 &&
    box.left >= 0 && box.right <= document.documentElement.clientWidth + 1;
  const found = {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    pictures: [...document.images].map(image => ({
      inside: inside(image.closest("figure").getBoundingClientRect()),
      pixels: image.naturalWidth,
    })),
    figures: [...document.querySelectorAll("svg")].map(svg => {
      const frame = svg.getBoundingClientRect();
      const scale = frame.width / svg.viewBox.baseVal.width;
      const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
      const boxes = texts.map(text => text.getBoundingClientRect());
      const covered = [];
      boxes.forEach((one, i) => boxes.slice(i + 1).forEach((other, j) => {
        const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (across > 1 && down > 4)
          covered.push([texts[i].textContent, texts[i + 1 + j].textContent]);
      }));
      return {
        name: svg.getAttribute("aria-label"),
        inside: inside(frame),
        width: frame.width,
        smallest: scale * Math.min(...texts.map(t => parseFloat(getComputedStyle(t).fontSize))),
        outside: texts.filter((text, i) =>
          boxes[i].left < frame.left - 2 || boxes[i].right > frame.right + 2 ||
          boxes[i].top < frame.top - 2 || boxes[i].bottom > frame.bottom + 2
        ).map(text => text.textContent),
        covered,
      };
    }),
    tables: [...document.querySelectorAll("table")].map(table =>
      inside(table.parentElement.getBoundingClientRect())),
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
# Browser windows have a least width, frames have none.
FRAME = """
<iframe src="probed.html" style="border: 0; width: WIDTHpx; height: 2000px"></iframe>
<pre id="probe"></pre>
<script>
addEventListener("message", event => document.getElementById("probe").textContent = event.data);
</script>
"""


@pytest.fixture(scope="module")
def browser():
    """The path of a Chromium; the tests skip without one."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    return pytest.skip(f"needs one of {', '.join(BROWSERS)} on the PATH")


@pytest.fixture(scope="module")
def page(full_run, tmp_path_factory):
    """The report of the complete run."""
    folder = tmp_path_factory.mktemp("browser")
    make_report(full_run.root, full_run.config, folder / "report.html", folder / "report")
    return folder / "report.html"


def measured(browser, page, tmp_path, width, *flags):
    """What the probe finds in the page at a window's width, and the browser's console lines."""
    probed = tmp_path / "probed.html"
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)))
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"))
    done = subprocess.run(
        [browser, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1500,2100", "--virtual-time-budget=10000", "--dump-dom", f"file://{frame}"],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), console


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--force-dark-mode",)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_opens_well(browser, page, tmp_path, width, flags):
    found, console = measured(browser, page, tmp_path, width, *flags)
    assert console == []
    assert found["width"] == width
    assert found["page"] <= width
    assert len(found["figures"]) == 14
    for figure in found["figures"]:
        assert figure["inside"], figure
        assert figure["width"] >= min(0.8 * width, 480), figure
        assert figure["smallest"] >= 8.5, figure
        assert figure["outside"] == [], figure
        assert figure["covered"] == [], figure
    assert len(found["pictures"]) >= 10
    assert all(p["inside"] and p["pixels"] > 100 for p in found["pictures"])
    assert all(found["tables"])
