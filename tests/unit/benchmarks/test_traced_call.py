"""The picture of a traced call."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.studies.traced_call import CLIENT, ENGINE, Row, Visit, draw, rows, trace


def visit(file: str, begun: float, *below: Visit, side: str = CLIENT) -> Visit:
    return Visit(side, file, f"f_of_{file}", begun, list(below))


def test_files_that_call_no_others_stand_below_their_caller_s_row() -> None:
    call = visit("view", 0.0, visit("arguments", 0.1), visit("session", 0.2, visit("wire", 0.3)))
    assert rows([call]) == [
        Row(CLIENT, 0, "f_of_view", "view", ("arguments f_of_arguments",)),
        Row(CLIENT, 1, "f_of_session", "session", ("wire f_of_wire",)),
    ]


def test_a_visit_that_goes_on_after_the_reply_has_a_second_row() -> None:
    call = visit("requests", 0.0, visit("wire", 0.1), visit("outcome", 3.0))
    engine = visit("engine", 1.0, visit("shell", 2.0, side=ENGINE), side=ENGINE)
    assert [(row.side, row.function) for row in rows([call, engine])] == [
        (CLIENT, "f_of_requests"),
        (ENGINE, "f_of_engine"),
        (CLIENT, "f_of_requests, with the reply"),
    ]


def test_the_picture_is_drawn_from_rows() -> None:
    helpers = tuple(f"module_{number} function_{number}" for number in range(9))
    picture = draw(
        [Row(CLIENT, 0, "Session.<submit>", "session.py", helpers), Row(ENGINE, 2, "handle", "engine.py", ())]
    )
    words = "".join(ElementTree.fromstring(picture).itertext())
    assert all(text in words for text in ("Session.<submit>", "session.py", "module_8", "handle", "client", "engine"))


def test_a_real_call_goes_from_the_view_to_the_shell_and_back() -> None:
    drawn = rows(trace())
    files = [row.file for row in drawn]
    assert files.index("views/direct.py") < files.index("transport/local.py") < files.index("engine_actor.py")
    assert {row.side for row in drawn} == {CLIENT, ENGINE}
    assert drawn[-1].side == CLIENT
