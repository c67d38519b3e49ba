"""The notebook of the documentation runs, and each cell's saved outputs are of the kinds that it gives now.

`make notebook` runs it and keeps the new outputs.
"""

import os
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_a_valid_notebook_whose_cells_were_run_in_order_without_an_error(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert [output for output in outputs if output.output_type == "error"] == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of the Jupyter client
def test_it_runs_and_each_cell_gives_the_outputs_that_are_saved(notebook, tmp_path, monkeypatch):
    saved = [_kinds(cell) for cell in notebook.cells]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert [_kinds(cell) for cell in notebook.cells] == saved
    shown = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "p=0.1" in shown
    assert {path.stem for path in (tmp_path / "predictions").glob("*.img")} == {"subject-1", "subject-2"}


def _kinds(cell):
    """The kinds of a cell's outputs: the streams, and the MIME types of what it displays."""
    outputs = cell.get("outputs", [])
    return {output.get("name") or tuple(sorted(output["data"])) for output in outputs}
