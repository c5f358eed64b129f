"""docs/errors.md, from the table of cases: `python -m tests.support.errors_page > docs/errors.md`."""

from tests.support.cases import CASES

HEAD = """\
# What may be wrong with an input, and the message for it

Written by `python -m tests.support.errors_page > docs/errors.md`; do not edit it here. `tests/faults/test_errors.py`
provokes every line: it compares the sentence and the exit code, and makes sure that there is no traceback and that
nothing half-written lies where an output should be. Paths are shown from the root of the repository, and … stands for
the words of a library. Exit code 2: the input is wrong; 1: the work failed; 0: no fault, and what happens instead.
"""


def page() -> str:
    """The whole page, Markdown."""
    parts = [HEAD]
    for topic, cases in CASES.items():
        parts.append(f"\n## {topic}\n\n| input | message | exit code |\n|---|---|---|\n")
        parts += [f"| {_cell(case.given)} | {_message(case.message, case.code)} | {case.code} |\n" for case in cases]
    return "".join(parts)


def _message(text: str, code: int) -> str:
    if not code:
        return _cell(text)
    # Two backticks, because the sentences have single ones.
    return "<br>".join(f"`` {_cell(line)} ``" for line in text.splitlines())


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    print(page(), end="")
