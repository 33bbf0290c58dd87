"""What a person does with the report, done in headless Chromium: sort, open an image, compare, zoom, move, leave."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from ae.comparison import compare

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = """
<script>
(async () => {
  const found = {};
  const settle = () => new Promise((resolve) => setTimeout(resolve, 50));
  const viewer = document.getElementById("viewer"), stage = viewer.querySelector(".stage");
  const rows = () => [...document.querySelectorAll("table.sortable tbody tr")];
  const column = (number) => rows().map((row) => row.cells[number].textContent);
  const head = document.querySelectorAll("table.sortable th")[2];
  head.click(); found.rising = column(2);
  head.click(); found.falling = column(2);
  document.querySelectorAll("table.sortable th")[0].click(); found.labels = column(0);
  found.closed = viewer.open;
  const images = document.querySelectorAll("tr[data-view] img");
  images[2].click(); await settle();
  found.open = viewer.open;
  found.title = viewer.querySelector("strong").textContent;
  found.chosen = viewer.querySelector("select").selectedOptions[0].text;
  found.over = viewer.querySelector(".over").src === images[2].src;
  found.under = viewer.querySelector(".under").src === images[0].src;
  const slider = viewer.querySelector("input");
  slider.value = 80; slider.dispatchEvent(new Event("input"));
  found.clip = viewer.querySelector(".over").style.clipPath;
  stage.dispatchEvent(new WheelEvent("wheel", { deltaY: -400, clientX: 300, clientY: 300, cancelable: true }));
  found.zoomed = stage.firstElementChild.style.transform;
  viewer.querySelector("button[value=next]").click(); await settle();
  found.next = viewer.querySelector("strong").textContent;
  found.reset = stage.firstElementChild.style.transform;
  found.address = location.hash;
  viewer.querySelector("button[value=close]").click(); await settle();
  found.left = [viewer.open, location.hash];
  document.title = JSON.stringify(found);
})();
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_person_can_sort_open_compare_zoom_and_leave(tiny_data, tiny_config, tmp_path):
    report = compare(tiny_data, tmp_path / "out", ["l2"], tiny_config, progress=False).report
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("</body>", SCRIPT + "</body>"))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000")
    command = [BROWSER, *options, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL).group(1)
    found = json.loads(title.replace("&gt;", ">").replace("&amp;", "&"))
    numbers = [float(text) for text in found["rising"]]
    assert numbers == sorted(numbers)
    assert [float(text) for text in found["falling"]] == sorted(numbers, reverse=True)
    assert found["labels"] == ["dent", "dent", "good"]
    assert (found["closed"], found["open"]) == (False, True)
    assert (found["title"], found["chosen"]) == ("dent 0", "residual by l2")
    assert found["over"]
    assert found["under"]
    assert found["clip"].endswith("80%)")
    scale = float(re.search(r"scale\((.*?)\)", found["zoomed"]).group(1))
    assert scale == pytest.approx(2.718, abs=0.01)
    assert found["next"] == "dent 1"
    assert found["reset"] == "translate(0px, 0px) scale(1)"
    assert found["address"] == "#view-dent-1"
    assert found["left"] == [False, ""]
