"""Fixtures that every area of the tests shares."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# The fixture of the small run of the workflow, the longest single piece of work of the tests.
SMALL_RUN = "finished_checkout"

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; this must stand before PyTorch and NumPy are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give one worker all tests of the small run, first of all, and the others file by file."""
    for item in items:
        group = SMALL_RUN if SMALL_RUN in item.fixturenames else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: SMALL_RUN not in item.fixturenames)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs in the raw layouts, beside the checkout; the test skips without them."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real photographs in {folder}")
    return folder
