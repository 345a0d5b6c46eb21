"""The notebook was run, is small, and runs again."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return json.loads(PATH.read_text(encoding="utf-8"))["cells"]


def code(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    return "".join("".join(one["text"]) for one in cell["outputs"] if "text" in one)


def test_it_was_run_in_order_and_is_small(cells: list[dict[str, Any]]) -> None:
    assert [cell["execution_count"] for cell in code(cells)] == list(range(1, 1 + len(code(cells))))
    outputs = [output for cell in code(cells) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}, "no warnings"
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2, "the result, and the memory"
    assert PATH.stat().st_size < 300_000


@pytest.mark.slow
def test_its_cells_run_and_say_what_they_said(cells: list[dict[str, Any]]) -> None:
    names: dict[str, Any] = {"__name__": "notebook"}
    said = []
    for cell in code(cells):
        words = io.StringIO()
        with redirect_stdout(words):
            exec(compile("".join(cell["source"]), "notebook", "exec"), names)
        said.append(words.getvalue())
    stored = [printed(cell) for cell in code(cells)]
    assert said[0] == stored[0]
    assert said[-1] == stored[-1] == "the same labels: True\n"
    for item, area in zip(names["result"].ids, names["areas"][-1], strict=True):
        mask = names["mask"] == item
        assert 0.8 < area / mask.sum() < 1.4, "both objects are still there"
    assert names["picture"].shape[2] == 3
    first = [sorted(entry.frames)[0] for entry in names["result"].memory.objects]
    assert first == [0, 0], "the given frame stays"
    np.testing.assert_array_equal(np.unique(names["mask"]), [0, 1, 2])
