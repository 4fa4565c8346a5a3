"""The books find what is wrong, or a run would prove nothing."""

from __future__ import annotations

import pytest

from tests.chaos.books import Book, Effect, Fate, Holding


@pytest.fixture
def book() -> Book:
    """Notes 0, 1 and 3 on engine 0 and name 2 there; note 4 on engine 1, which was lost."""
    book = Book()
    for number in (0, 1, 3):
        book.ask(Effect(0, number))
        book.end(Effect(0, number), Fate.KEPT)
    book.ask(Effect(0, 2, is_named=True))
    book.end(Effect(0, 2, is_named=True), Fate.KEPT)
    book.ask(Effect(1, 4))
    book.end(Effect(1, 4), Fate.LOST)
    return book


def errors(book: Book, *holdings: tuple[list[int], list[int]]) -> list[str]:
    return list(book.errors({engine_id: Holding(*holding) for engine_id, holding in enumerate(holdings)}))


@pytest.mark.parametrize("lost", [[], [4]])
def test_books_balance_whether_or_not_what_was_said_to_be_lost_is_there(book: Book, lost: list[int]) -> None:
    assert errors(book, ([0, 1, 3], [2]), (lost, [])) == []


@pytest.mark.parametrize(
    ("holdings", "error"),
    [
        ([([0, 3], [2]), ([], [])], "note 1 on engine 0: it was acknowledged, and is not there"),
        ([([0, 1, 3], []), ([], [])], "name 2 on engine 0: it was acknowledged, and is not there"),
        ([([0, 1, 1, 3], [2]), ([], [])], "note 1 on engine 0: is there 2 times"),
        ([([0, 1, 3], [2]), ([4, 4], [])], "note 4 on engine 1: is there 2 times"),
        ([([0, 1, 3, 4], [2]), ([], [])], "note 4 on engine 0: was not asked for, and is there"),
        ([([0, 1, 3], [2, 9]), ([], [])], "name 9 on engine 0: was not asked for, and is there"),
        ([([0, 3, 1], [2]), ([], [])], "note 1 on engine 0: came after 3"),
    ],
)
def test_what_is_missing_or_too_much_or_out_of_order_is_found(
    book: Book, holdings: list[tuple[list[int], list[int]]], error: str
) -> None:
    assert errors(book, *holdings) == [error]


def test_what_nobody_has_said_anything_of_is_an_error_wherever_it_is(book: Book) -> None:
    book.ask(Effect(1, 5))
    assert errors(book, ([0, 1, 3], [2]), ([5], [])) == [
        "note 5 on engine 1: nobody has said what became of it, and is there"
    ]


def test_what_comes_back_after_the_page_is_closed_is_an_error(book: Book) -> None:
    book.close()
    assert errors(book, ([], []), ([], [])) == []
    assert errors(book, ([3], []), ([], [])) == ["note 3 on engine 0: was not asked for, and is there"]
