"""Blocks of tutorials do what they show, in sizes of a test."""

import pages
import pytest
import run_pages

pytestmark = pytest.mark.slow
TUTORIALS = sorted((pages.DOCS / "tutorials").glob("*.md"))


@pytest.mark.filterwarnings("default")  # of packages that a reader's own code would meet too
@pytest.mark.parametrize("path", run_pages.with_blocks(TUTORIALS), ids=lambda path: path.stem)
def test_a_page_runs(path, tmp_path, monkeypatch, tmp_path_factory):
    """Block after block, in a folder that has what the page takes for its reader's own."""
    run_pages.enter(tmp_path, tmp_path_factory, monkeypatch)
    assert run_pages.run_page(path) == []
