"""Blocks of README and documentation do what they show, in sizes of a test."""

import shutil

import pages
import pytest
import run_pages
import stand_ins

pytestmark = pytest.mark.slow
TUTORIALS = pages.DOCS / "tutorials"
OTHERS = [path for path in pages.PAGES if not path.is_relative_to(TUTORIALS)]


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """What pages take as their reader's own."""
    folder = tmp_path_factory.mktemp("things")
    stand_ins.make(folder)
    return folder


@pytest.mark.filterwarnings("default")  # of packages that a reader's own code would meet too
@pytest.mark.parametrize("path", run_pages.with_blocks(OTHERS), ids=lambda path: path.stem)
def test_a_page_runs(path, things, tmp_path, monkeypatch):
    """Block after block, in a folder that has what the page takes for its reader's own."""
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    stand_ins.make_importable(monkeypatch)
    assert run_pages.run_page(path) == []
