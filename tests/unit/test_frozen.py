"""Frozen classes behave as frozen data classes with slots do, and compile ``__init__`` when it is first needed."""

import copy
import inspect
import pickle
import signal
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest

from nsactors._frozen import frozen
from nsactors.namespace.interrupts import is_user_code


@frozen
class Point:
    """A point of a plane."""

    x: float
    y: float = 0.0
    labels: dict[str, str] = field(default_factory=dict, compare=False)
    secret: str = field(default="", repr=False)

    @property
    def is_origin(self) -> bool:
        return self.x == self.y == 0


@frozen
class Other:
    x: float
    y: float = 0.0


@frozen
class Nothing:
    """It has no fields."""


@frozen
class Positive:
    """It checks its field, and changes it."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(self.number)
        object.__setattr__(self, "number", abs(self.number))


@dataclass(frozen=True, slots=True)
class Plain:
    """A point, as the standard library defines it."""

    x: float
    y: float = 0.0
    labels: dict[str, str] = field(default_factory=dict, compare=False)
    secret: str = field(default="", repr=False)


def test_an_instance_takes_its_fields_by_position_and_by_name() -> None:
    assert (Point(1, 2).y, Point(1, y=3).y, Point(x=1).y) == (2, 3, 0.0)
    assert Point(0).is_origin
    assert Nothing() == Nothing()


def test_each_instance_has_a_default_of_its_own_by_a_factory() -> None:
    assert Point(1).labels == {}
    assert Point(1).labels is not Point(1).labels


@pytest.mark.parametrize(
    ("arguments", "names"), [((), {}), ((1, 2, {}, "", 5), {}), ((1,), {"z": 1}), ((1,), {"x": 1})]
)
def test_wrong_arguments_raise_the_errors_of_functions(arguments: tuple[Any, ...], names: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as found:
        Point(*arguments, **names)
    with pytest.raises(TypeError) as expected:
        Plain(*arguments, **names)
    assert str(found.value) == str(expected.value).replace("Plain", "Point")


def test_the_signature_is_that_of_a_data_class_before_and_after_the_first_instance() -> None:
    def shape(cls: type) -> list[tuple[str, Any, bool]]:
        signature = inspect.signature(cls).parameters.values()
        return [(p.name, p.annotation, p.default is inspect.Parameter.empty) for p in signature]

    @frozen
    class Fresh:
        x: float
        y: float = 0.0

    assert shape(Fresh) == shape(Fresh)
    assert shape(Point) == shape(Plain)
    assert shape(Other) == shape(Fresh)


def test_methods_are_compiled_with_the_first_instance() -> None:
    @frozen
    class Fresh:
        x: float

    assert not inspect.isfunction(vars(Fresh)["__init__"])
    assert Fresh(1).x == 1
    assert inspect.isfunction(vars(Fresh)["__init__"])
    assert not is_user_code(Fresh.__init__.__code__)
    assert vars(Fresh)["__eq__"] is vars(Point)["__eq__"]


def test_a_program_that_ends_by_ctrl_c_and_makes_a_first_instance_then_ends_by_the_signal() -> None:
    program = """
import atexit
from nsactors._frozen import frozen

@frozen
class Fresh:
    x: float

atexit.register(Fresh, 1)
raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("Error")) == (-signal.SIGINT, 0)


def test_nothing_can_be_assigned_or_deleted() -> None:
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(point, name, 2)
        with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(point, name)
    assert not hasattr(point, "__dict__")


def test_instances_are_equal_if_class_and_compared_fields_are() -> None:
    assert Point(1, 2, {"a": "b"}) == Point(1, 2)
    assert hash(Point(1, 2, {"a": "b"})) == hash(Point(1, 2))
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Other([]))  # type: ignore[arg-type]


def test_the_repr_is_that_of_a_data_class() -> None:
    assert repr(Point(1, 2, {}, "hidden")) == repr(Plain(1, 2, {}, "hidden")).replace("Plain", "Point")
    assert repr(Nothing()) == "Nothing()"
    holds_itself: list[Any] = []
    holds_itself.append(Point(0, labels=holds_itself))  # type: ignore[arg-type]
    assert repr(holds_itself) == "[Point(x=0, y=0.0, labels=[...])]"


@pytest.mark.parametrize("value", [Point(1, 2, {"a": "b"}, "s"), Other(1), Nothing(), Positive(3)], ids=repr)
@pytest.mark.parametrize("again", [lambda v: pickle.loads(pickle.dumps(v)), copy.copy, copy.deepcopy, replace])
def test_copies_and_pickles_have_the_same_fields(value: Any, again: Any) -> None:
    found = again(value)
    assert found == value
    assert [getattr(found, f.name) for f in fields(value)] == [getattr(value, f.name) for f in fields(value)]


def test_the_functions_and_patterns_of_data_classes_accept_it() -> None:
    assert is_dataclass(Point)
    assert replace(Point(1, 2), y=5) == Point(1, 5)
    match Point(1, 2):
        case Point(x, y, secret=""):
            assert (x, y) == (1, 2)
        case _:
            pytest.fail("the pattern does not match")


def test_checks_of_the_fields_run_after_they_are_set() -> None:
    assert Positive(3).number == 3
    with pytest.raises(ValueError, match="-1"):
        Positive(-1)


@pytest.mark.parametrize("options", [{"init": False}, {"kw_only": True}])
def test_a_field_that_is_not_taken_by_position_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="by position"):

        @frozen
        class Refused:
            x: int = field(default=0, **options)


def test_a_class_that_inherits_fields_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Refused is frozen: it inherits no fields: \['x', 'y'\]"):

        @frozen
        class Refused(Other):
            z: int = 0


def test_a_class_that_compares_in_its_own_way_needs_a_hash() -> None:
    with pytest.raises(TypeError, match="needs a __hash__"):
        frozen(type("Refused", (), {"__annotations__": {"x": int}, "__eq__": lambda self, other: True}))

    @frozen
    class Taken:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    assert Taken(1) == Taken(2)
    assert hash(Taken(1)) == 7


@pytest.mark.parametrize("name", ["self", "_missing", "_set_x", "_factory_x"])
def test_a_field_may_not_have_a_name_that_init_uses(name: str) -> None:
    annotations = {"x": list, name: int}
    with pytest.raises(TypeError, match=f"uses these names of fields itself: \\['{name}'\\]"):
        frozen(type("Refused", (), {"__annotations__": annotations, "x": field(default_factory=list), name: 0}))


def test_init_is_a_function_before_there_is_an_instance() -> None:
    @frozen
    class Pair:
        one: int
        other: int = 2

    init = vars(Pair)["__init__"]
    assert callable(init)
    pair = Pair.__new__(Pair)
    init(pair, 1)
    assert pair == Pair(1, 2)
