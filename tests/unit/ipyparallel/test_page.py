"""The examples of the page on ipyparallel run."""

import pathlib
import re

import pytest

import nsactors

PAGE = pathlib.Path(nsactors.__file__).parents[1] / "docs" / "how-to" / "ipyparallel.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_runs(number: int) -> None:
    exec(compile(EXAMPLES[number], f"{PAGE.name}, example {number}", "exec"), {"__name__": "__main__"})
