"""Execute the notebook anew, as its page in the documentation: `python -m tests.support.notebook`, about six minutes.

It needs `pip install nbclient ipykernel`, which nothing else here does.
"""

import json
from typing import Any

from tests.support import ROOT

NOTEBOOK = ROOT / "docs" / "walkthrough.ipynb"


def read() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def write(notebook: dict[str, Any]) -> None:
    """Write it without progress bars, and without what differs from machine to machine."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    notebook["metadata"] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def execute() -> dict[str, Any]:
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    return json.loads(nbformat.writes(notebook))


if __name__ == "__main__":
    write(execute())
