"""docs/quickstart.ipynb: its cells run in order, on this machine's CPU.

Cells tagged `install` and `colab` need a notebook or Colab and are passed over; those tagged
`parameters` name what is converted, and here that is a small model. All others are plain Python.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
PASSED_OVER = {"install", "colab"}


def code_cells() -> list[tuple[str, set[str]]]:
    """The source of each, and its tags."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [
        ("".join(cell["source"]), set(cell["metadata"].get("tags", ())))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def test_it_holds_no_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_cells_are_plain_python_or_say_what_they_need():
    for source, tags in code_cells():
        assert tags <= PASSED_OVER | {"parameters"}
        if not tags & PASSED_OVER:
            compile(source, str(NOTEBOOK), "exec")


def test_readme_and_docs_link_to_it_and_it_names_the_repository_as_they_do():
    assert "docs/quickstart.ipynb" in (ROOT / "README.md").read_text()
    assert "](quickstart.ipynb)" in (ROOT / "docs" / "index.md").read_text()
    address = "github/OWNER/omgsr-jax/blob/main/docs/quickstart.ipynb"
    assert address in (ROOT / "README.md").read_text()
    assert address in NOTEBOOK.read_text()


@pytest.mark.slow
def test_it_runs(tiny_base, tiny_adapter, compile_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for source, tags in code_cells():
        if tags & PASSED_OVER:
            continue
        exec(compile(source, str(NOTEBOOK), "exec"), scope)
        if "parameters" in tags:
            assert scope["ADAPTER"] == ""
            scope |= {"BASE": str(tiny_base), "ADAPTER": str(tiny_adapter)}
    with Image.open("large.png") as large:
        assert large.size == (256, 256)
    assert scope["by_model"].size == (256, 256)
    printed = capsys.readouterr().out
    assert "decode 1 of 1, 100%, 0 s left" in printed
    assert "<Upscaler models/omgsr-s: VAE of" in printed
