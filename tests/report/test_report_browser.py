"""The page in a real browser, on a phone's and on a desktop's width: all there, all legible."""

import pytest
from report.page import make_report


@pytest.fixture(scope="module")
def page(full_run, tmp_path_factory):
    """The report of the complete run."""
    folder = tmp_path_factory.mktemp("browser")
    make_report(full_run.root, full_run.config, folder / "report.html", folder / "report")
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--force-dark-mode",)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_opens_well(legible, page, width, flags):
    found = legible(page, width, *flags)
    assert len(found["figures"]) == 14
    assert len(found["pictures"]) >= 10
