"""The notebooks that are measured, and the answers that they must give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

MEGABYTES = 50
CELLS = 200
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


@dataclass(frozen=True)
class Seen:
    """What a run has given: the text of its last result, and how much of what it has printed."""

    text: str | None
    length: int = 0
    digest: str = ""


def see(outputs: Sequence[Mapping[str, Any]]) -> Seen:
    """Look at outputs in the notebook's format."""
    results = [each["data"]["text/plain"] for each in outputs if each["output_type"] == "execute_result"]
    printed = [each["text"] for each in outputs if each.get("name") == "stdout"]
    stdout = "".join("".join(each) for each in printed)
    return seen("".join(results[-1]) if results else None, stdout)


def seen(text: str | None, stdout: str) -> Seen:
    """Note a result, and what was printed."""
    digest = hashlib.sha256(stdout.encode()).hexdigest() if stdout else ""
    return Seen(text, len(stdout), digest)


def outputs_of(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All outputs of a notebook."""
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A notebook: cells before the one that is tagged `parameters`, that one, and those after it."""

    name: str
    title: str
    setup: tuple[str, ...] = ()
    parameters: str = ""
    cells: tuple[str, ...]
    expected: Seen = field(default_factory=lambda: Seen(None))
    has_endpoint: bool = True  #: whether one cell behind a URL can do the same

    def save(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Write it into a folder; the same bytes each time."""
        tagged = [(self.parameters, {"tags": ["parameters"]})] if self.parameters else []
        sources = [*((each, {}) for each in self.setup), *tagged, *((each, {}) for each in self.cells)]
        cells = [
            nbformat.v4.new_code_cell(source, id=f"cell-{number}", metadata=more)
            for number, (source, more) in enumerate(sources)
        ]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC, **metadata})
        nbformat.write(notebook, folder / f"{self.name}.ipynb")

    def save_endpoint(self, folder: Path) -> Path:
        """Write it for Kernel Gateway: what is behind the parameters is one cell with a URL."""
        cell = "\n".join(("# GET /run", *self.cells))
        once = [each for each in (*self.setup, self.parameters) if each]
        cells = [nbformat.v4.new_code_cell(each) for each in (*once, cell)]
        path = folder / f"{self.name}.endpoint.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC}), path)
        return path


def read_setup(path: Path) -> tuple[list[str], list[str]]:
    """The cells of a notebook up to, and with, the one tagged `parameters`; and those after it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    tagged = [n for n, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ())]
    place = tagged[0] + 1 if tagged else 0
    return sources[:place], sources[place:]


TRIVIAL = Input(name="trivial", title="one cell, 1 + 1", cells=("1 + 1",), expected=Seen("2"))
MODEL = (
    (
        "import pandas as pd\n"
        "from sklearn.datasets import load_iris\n"
        "from sklearn.linear_model import LogisticRegression"
    ),
    "iris = load_iris(as_frame=True)",
    "model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)",
)
PANDAS = Input(
    name="pandas",
    title="pandas and scikit-learn: load, train, then predict",
    setup=MODEL,
    parameters="petal_length = 1.4  # cm",
    cells=(
        "flower = pd.DataFrame([[5.1, 3.5, petal_length, 0.2]], columns=iris.feature_names)",
        "str(iris.target_names[model.predict(flower)[0]])",
    ),
    expected=Seen("'setosa'"),
)
MANY = Input(
    name="cells",
    title=f"{CELLS} cells",
    cells=("total = 0", *["total += 1"] * (CELLS - 2), "total"),
    expected=Seen(str(CELLS - 2)),
    has_endpoint=False,
)
LARGE = Input(
    name="output",
    title=f"{MEGABYTES} MB of output",
    cells=(f"for n in range({MEGABYTES}): print(f'{{n:02}}' + 'x' * 999_997)",),
    expected=seen(None, "".join(f"{n:02}{'x' * 999_997}\n" for n in range(MEGABYTES))),
)
INPUTS = {each.name: each for each in (TRIVIAL, PANDAS, MANY, LARGE)}

#: Uses a second of processor time, to see whether it is counted.
BURN = Input(
    name="burn",
    title="a second of processor time",
    cells=("import time\nbegan = time.process_time()\nwhile time.process_time() - began < 1: pass\n'burnt'",),
    expected=Seen("'burnt'"),
)


def holding(folder: Path, before: Input) -> Input:
    """Make a notebook that does the same, says that it is there by a file, and waits for another."""
    wait = (
        "import os, time\n"
        f"open(os.path.join({str(folder)!r}, f'held-{{os.getpid()}}'), 'w').close()\n"
        f"while not os.path.exists({str(folder / 'release')!r}): time.sleep(0.05)\n"
        "'held'"
    )
    return Input(
        name=f"hold_{before.name}",
        title=f"{before.title}, and wait",
        setup=before.setup,
        parameters=before.parameters,
        cells=(*before.cells, wait),
        expected=Seen("'held'"),
    )
