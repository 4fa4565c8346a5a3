from __future__ import annotations

import pytest

from nsactors.core.journal import Entry, State
from nsactors.core.lineage import makers
from nsactors.core.messages import Apply, Execute, RequestId
from nsactors.core.payload import Payload


def cell(code: str, *bound: str, state: State = State.COMPLETED) -> Entry:
    return Entry(RequestId("ann", 1), Execute(code), None, state, bound=bound)


def test_the_last_entry_that_bound_a_name_makes_it() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = open(b)", "f"), cell("n = 1", "n")]
    assert makers(entries, {"f"}, {"n"}) == (entries[1],)


def test_what_it_was_made_of_is_made_before_it() -> None:
    entries = [cell("db = connect()", "db"), cell("n = 3", "n"), cell("cursor = db.cursor()", "cursor")]
    assert makers(entries, {"cursor"}, {"n"}) == (entries[0], entries[2])


def test_what_the_snapshot_has_need_not_be_made() -> None:
    entries = [cell("path = find()", "path"), cell("f = open(path)", "f")]
    assert makers(entries, {"f"}, {"path"}) == (entries[1],)


def test_a_name_inside_a_function_is_used_but_not_bound() -> None:
    entries = [
        cell("lock = Lock()", "lock"),
        cell("def g():\n    lock = 1", "g"),
        cell("def h():\n    return lock", "h"),
    ]
    assert makers(entries, {"lock"}, {"g", "h"}) == (entries[0],)
    assert makers(entries, {"h"}, {"g"}) == (entries[0], entries[2])


def test_a_function_that_was_applied_uses_the_names_in_its_code() -> None:
    made = Entry(RequestId("ann", 2), Apply("f"), Payload(b"..connection.."), State.COMPLETED, bound=("cursor",))
    entries = [cell("connection = connect()", "connection"), made]
    assert makers(entries, {"cursor"}, set()) == tuple(entries)


def test_an_entry_that_seems_to_have_bound_the_same_object_again_is_kept_and_so_is_the_one_before() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = None; f = open(b)")]
    assert makers(entries, {"f"}, set()) == tuple(entries)


@pytest.mark.parametrize("code", ["%%time\nf = open(path)", "if True:\n    !ls\nf = open(path)", "f = await path"])
def test_cells_of_ipython_are_understood(code: str) -> None:
    entries = [cell("path = 1", "path"), cell(code, "f")]
    assert makers(entries, {"f"}, set()) == tuple(entries)


def test_a_cell_that_is_not_python_uses_every_name_in_it() -> None:
    entries = [cell("path = 1", "path"), cell("other = 1", "other"), cell("f = !cat {path}", "f")]
    assert makers(entries, {"f"}, set()) == (entries[0], entries[2])


def test_an_entry_that_cannot_be_repeated_stands_for_what_it_made() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = open(b)", "f", state=State.NOT_JOURNALLED)]
    assert makers(entries, {"f"}, set()) == (entries[1],)


def test_what_no_entry_made_keeps_nothing() -> None:
    assert makers([cell("n = 1", "n")], {"f"}, {"n"}) == ()
