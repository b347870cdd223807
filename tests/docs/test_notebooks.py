"""The notebooks run from the first cell to the last, and show the same kinds of output as when saved."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("docs/notebooks/*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::ResourceWarning")
def test_a_notebook_runs_and_shows_the_same_kinds_of_output(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    shown = [kinds(cell) for cell in notebook.cells]
    for cell in notebook.cells:
        cell.source = re.sub(r"\bsteps=[\d_]+", "steps=1_200", cell.source)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [kinds(cell) for cell in notebook.cells] == shown
    assert any(kinds for kinds in shown)


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """The types of the outputs of a cell, apart from stderr."""
    return [each.output_type for each in cell.get("outputs", []) if each.get("name") != "stderr"]
