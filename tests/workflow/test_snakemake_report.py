"""Both reports of the small run: what Snakemake's own holds, and each in a browser."""

import json
import re

import pytest

CAPTIONS = {
    "Data": "Faces of the split {split} by dataset and class",
    "Labels": "Converted images of {dataset}, split {split}",
    "Pruning": "at most\n100 points of mAP against the unpruned model",
    "Report": "on one page that needs nothing else",
    "Figures": "The same figure lies in the report folder as SVG, PNG and CSV",
}
# Opens each category as a reader does, and tells what the page then shows of it.
CLICKS = """
addEventListener("load", async () => {
  const pause = () => new Promise(done => setTimeout(done, 300));
  const open = async name => {
    [...document.querySelectorAll("a")].find(a => a.innerText.trim() === name).click();
    await pause();
  };
  await pause();
  const shown = {"": document.body.innerText};
  for (const category of CATEGORIES) {
    await open(category);
    shown[category] = document.body.innerText;
    await open("Results");
  }
  parent.postMessage(JSON.stringify(shown), "*");
});
"""


@pytest.fixture
def shown(checkout, snakemake):
    """Snakemake's own report of the finished run."""
    snakemake(checkout, "--report", "shown.html")
    return checkout / "shown.html"


def variable(page, name):
    """A JSON variable of Snakemake's report."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(rf"var {name} = (\{{.*?\}});\n", text)[1])


def wanted(results):
    """Category and labels of each file that a rule marks with report()."""
    files = {"chosen/models.csv": ("Pruning", {"table": "all models"})}
    files["report.html"] = ("Report", {"page": "the whole run"})
    for split in ("train", "val"):
        files[f"selection/{split}.counts.csv"] = ("Data", {"split": split})
        for sheet in (results / f"check_labels/{split}").glob("*.jpg"):
            labels = {"dataset": sheet.stem, "split": split}
            files[f"check_labels/{split}/{sheet.name}"] = ("Labels", labels)
    for figure in (results / "report").glob("*.svg"):
        files[f"report/{figure.name}"] = ("Figures", {"figure": figure.stem})
    return {f"results/{path}": place for path, place in files.items()}


def test_every_result_has_its_category_labels_and_caption(checkout, shown):
    results, categories = variable(shown, "results"), variable(shown, "categories")
    category_of = {
        path: category
        for category, parts in categories.items()
        for paths in parts.values()
        for path in paths
    }
    files = wanted(checkout / "results")
    assert len(files) > 20
    found = {path: (category_of[path], result["labels"]) for path, result in results.items()}
    assert found == files
    for path, result in results.items():
        category, labels = files[path]
        assert CAPTIONS[category].format(**labels) in result["caption"]
        assert not re.search(r"[{}]|[a-z]\.[A-Z]", result["caption"]), result["caption"]
        assert len(result["data_uri"]) > 150
    text = shown.read_text(encoding="utf-8")
    assert "ResNet 10 at" in text
    assert "Precision and recall of the class no-mask" in text


@pytest.mark.slow
def test_snakemakes_report_opens_and_leads_to_every_category(probe, shown, checkout):
    script = CLICKS.replace("CATEGORIES", json.dumps(sorted(CAPTIONS)))
    found, console = probe(shown, script, 1400)
    # Snakemake's own page brings this warning along.
    assert [line for line in console if "cdn.tailwindcss.com" not in line] == []
    assert "From raw face datasets to a detector" in found[""]
    for category, labels in wanted(checkout / "results").values():
        for label in labels.values():
            assert label in found[category]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_page_of_the_small_run_opens_well(legible, finished_checkout, width):
    found = legible(finished_checkout / "results/report.html", width)
    assert len(found["figures"]) >= 12
    assert len(found["pictures"]) >= 10
