"""What may stand behind ``%%px``."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.magics.options import (
    CELL,
    CONFIG,
    RESULT,
    Options,
    OptionsError,
    leading_options,
    meant_option,
    parse,
    parse_targets,
)
from nsactors.protocol.targets import Targets


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("3", 3),
        ("-1", -1),
        ("0,2", [0, 2]),
        ("[0, 2]", [0, 2]),
        ("::2", slice(None, None, 2)),
        ("1:", slice(1, None)),
        (":-1", slice(None, -1)),
        ("all", "all"),
    ],
)
def test_engines_are_named_by_id_list_slice_or_all(text: str, targets: Targets) -> None:
    assert parse_targets(text) == targets


@pytest.mark.parametrize("text", ["", "two", "0.5", "True", "[]", "0,True", "1:2:3:4", "__import__('os')"])
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(OptionsError, match="engines are written as"):
        parse_targets(text)


@given(st.slices(20))
def test_every_slice_can_be_written(chosen: slice) -> None:
    parts = ["" if part is None else str(part) for part in (chosen.start, chosen.stop, chosen.step)]
    assert parse_targets(":".join(parts)) == chosen


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--targets 0,2", "targets", [0, 2]),
        ("--targets=::2", "targets", slice(None, None, 2)),
        ("-t 1", "targets", 1),
        ("-t1", "targets", 1),
        ("-t=1", "targets", 1),
        ("--block", "block", True),
        ("--noblock", "block", False),
        ("-a", "block", False),
        ("--local", "local", True),
        ("--out ar", "out", "ar"),
        ("-o ar", "out", "ar"),
        ("--group-outputs engine", "group_outputs", "engine"),
        ("-r", "group_outputs", "order"),
        ("--progress-after -1", "progress_after_s", -1.0),
        ("--signal-on-interrupt SIGTERM", "signal_on_interrupt", 15),
        ("--signal-on-interrupt kill", "signal_on_interrupt", 9),
        ("--signal-on-interrupt 0", "signal_on_interrupt", 0),
        ("--stream", "stream", True),
        ("--no-stream", "stream", False),
        ("--verbose", "verbose", True),
        ("--timeout 2.5", "timeout_s", 2.5),
        ("--timeout none", "timeout_s", math.inf),
        ("--no-journal", "journal", False),
        ("--no-break", "breaks", False),
    ],
)
def test_an_option_sets_its_field_alone(line: str, field: str, value: Any) -> None:
    assert parse(line, CELL, "%%px") == (Options(**{field: value}), [])


@pytest.mark.parametrize(
    ("line", "allowed", "message"),
    [
        ("--targts 0", CELL, r"%%px has no option --targts: did you mean --targets\?.*--targets, -t ENGINES"),
        ("-x", CELL, r"%%px has no option -x\.\n"),
        ("--timeout", CELL, "--timeout needs an argument: --timeout SECONDS"),
        ("--timeout nan", CELL, "--timeout: a number of seconds was expected, not 'nan'"),
        ("--timeout -1", CELL, "--timeout: a number of seconds from 0 on was expected, not '-1'"),
        ("--progress-after inf", CELL, "--progress-after: a number of seconds was expected, not 'inf'"),
        ("--timeout soon", CELL, "--timeout: a number of seconds was expected, not 'soon'"),
        ("--group-outputs colour", CELL, "--group-outputs: outputs are grouped by engine, order, type"),
        ("--out a.b", CELL, "--out: a result is kept under a name"),
        ("--signal-on-interrupt SIGNAL", CELL, "--signal-on-interrupt: a signal is given by name or number"),
        ("--local", CONFIG, "has no option --local"),
        ("--block", RESULT, "has no option --block"),
        ("--out 'a", CELL, "No closing quotation"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(line: str, allowed: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=f"(?s){message}"):
        parse(line, allowed, "%%px")


def test_words_that_are_no_options_are_given_back() -> None:
    assert parse("--block 7", CELL, "%%px") == (Options(block=True), ["7"])


@pytest.mark.parametrize(
    ("line", "options", "code"),
    [
        ("x = 1", "", "x = 1"),
        ("-a", "", "-a"),
        ("--targets 0 -a", "--targets 0", "-a"),
        ("--noblock --out=ar x --y", "--noblock --out=ar", "x --y"),
        ("--block", "--block", ""),
    ],
)
def test_a_line_may_begin_with_long_options(line: str, options: str, code: str) -> None:
    assert leading_options(line) == (options, code)


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("-t 0 x = 1", "--targets 0 x = 1"),
        ("-t0 x = 1", "--targets 0 x = 1"),
        ("-a f()", "--noblock f()"),
        ("-o ar f()", "--out ar f()"),
        ("-e print(1)", "--group-outputs engine print(1)"),
        ("x = 1 --targets 0", "--targets 0 x = 1"),
        ("f() --profile=calls", "--profile=calls f()"),
        ("-t", "--targets"),
        ("x -a b", None),
        ("-q x", None),
        ("print(1", None),
    ],
)
def test_a_line_that_is_no_code_may_have_been_meant_as_options(code: str, meant: str | None) -> None:
    assert meant_option(code) == meant


def test_what_is_given_goes_over_the_defaults() -> None:
    assert Options(timeout_s=math.inf).over(Options(timeout_s=3.0)).limit_s is None
    given, defaults = Options(block=False), Options(block=True, timeout_s=3.0)
    assert given.over(defaults) == Options(block=False, timeout_s=3.0)


@pytest.mark.parametrize(("line", "journal"), [("", False), ("--journal", True)])
def test_a_cell_is_journalled_as_the_defaults_say_unless_it_says_so_itself(line: str, journal: bool) -> None:
    defaults, _ = parse("--no-journal", CONFIG, "%pxconfig")
    given, _ = parse(line, CELL, "%%px")
    assert given.over(defaults).journal is journal


def test_a_profile_is_made_by_samples_unless_an_argument_follows_the_equals_sign() -> None:
    assert parse("--profile x", CELL, "%%px") == (Options(profile="sample"), ["x"])
    assert parse("--profile=calls", CELL, "%%px") == (Options(profile="calls"), [])
    assert leading_options("--profile print(1)") == ("--profile", "print(1)")
    assert leading_options("--profile=calls f()") == ("--profile=calls", "f()")
    with pytest.raises(OptionsError, match="sample, calls or memory, not by 'all'"):
        parse("--profile=all", CELL, "%%px")
