"""MapReduce: the same output whatever the number of engines, of splits, of combinations, and of deaths."""

from __future__ import annotations

import datetime
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import Client, Cluster, RemoteValue
from nsactors.errors import InvalidKey, ObjectLost
from nsactors.models.inputs import chunks, names, text_files, text_lines
from nsactors.models.map_reduce import MapReduce, Step, hash_partitioner, increment
from nsactors.protocol.messages import Capability
from nsactors.testing import wait_until

TEXT = ["the quick brown fox", "jumps over", "the lazy dog", "", "the end of the fox"]


def words(line: str) -> list[tuple[str, int]]:
    return [(word, 1) for word in line.split()]


def add(key: Any, values: list[int]) -> Iterator[tuple[Any, int]]:
    yield key, sum(values)


def listed(key: Any, values: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    yield key, values


COUNT = Step(words, add, combiner=add)
ANSWER = Counter(" ".join(TEXT).split())


@pytest.fixture(scope="module")
def text() -> list[str]:
    generator = random.Random(7)
    return [" ".join(f"w{generator.randrange(50)}" for _ in range(10)) for _ in range(200)]


@pytest.mark.parametrize("combiner", [None, add])
def test_words_are_counted(rc: Client, combiner: Any) -> None:
    assert MapReduce(rc).run(TEXT, Step(words, add, combiner=combiner)).to_dict() == ANSWER


def test_functions_typed_at_a_prompt_are_taken(rc: Client, from_main: Callable[[str], SimpleNamespace]) -> None:
    main = from_main("""
        def letters(word):
            for letter in word:
                yield letter, one
        one = 1
        def add(letter, ones):
            yield letter, sum(ones)
    """)
    assert MapReduce(rc).run(["abba", "b"], Step(main.letters, main.add)).to_dict() == {"a": 2, "b": 3}


@pytest.mark.once
def test_the_keys_of_each_partition_come_in_increasing_order(rc: Client, text: list[str]) -> None:
    output = MapReduce(rc, partitions=3).run(text, Step(words, listed))
    parts = [[key for key, _ in output.partition(index)] for index in range(3)]
    assert all(part == sorted(part) and part for part in parts)
    assert sorted(key for part in parts for key in part) == sorted({word for line in text for word in line.split()})


def test_the_values_of_a_key_come_in_the_order_of_the_input(rc: Client) -> None:
    output = MapReduce(rc).run(range(1000), Step(lambda number: [(number % 7, number)], listed))
    assert output.to_dict() == {rest: list(range(rest, 1000, 7)) for rest in range(7)}


@pytest.mark.once
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_output_does_not_depend_on_the_number_of_engines(n: int, text: list[str]) -> None:
    with Cluster(n=n, backend="local") as rc:
        output = MapReduce(rc, partitions=5).run(text, Step(words, listed))
        assert [output.partition(index) for index in range(5)] == expected_partitions(text)


def expected_partitions(text: list[str]) -> list[list[Any]]:
    """Return the counts of the words in five partitions, as one process computes them."""
    counts = Counter(word for line in text for word in line.split())
    parts: list[list[Any]] = [[] for _ in range(5)]
    for word in sorted(counts):
        parts[hash_partitioner(word, 5)].append((word, [1] * counts[word]))
    return parts


def test_steps_follow_one_another_on_the_engines(rc: Client) -> None:
    by_count = Step(lambda pair: [(pair[1], pair[0])], lambda count, words: [(count, sorted(words))])
    mr = MapReduce(rc)
    both = mr.run(TEXT, COUNT, by_count).to_dict()
    first = mr.run(TEXT, COUNT)
    assert (
        both
        == mr.run(first, by_count).to_dict()
        == {4: ["the"], 2: ["fox"], 1: sorted(w for w in ANSWER if ANSWER[w] == 1)}
    )


def test_between_two_steps_the_namespaces_are_free(rc: Client) -> None:
    output = MapReduce(rc).run(TEXT, COUNT)
    rc[0].execute("a = 1", block=True)
    assert rc[0]["a"] == 1
    assert all(isinstance(part, RemoteValue) for part in output.partitions)


@pytest.mark.once
def test_without_a_reducer_pairs_are_sorted_by_key(rc: Client) -> None:
    output = MapReduce(rc, partitions=1).run([3, 1, 2, 1], Step(lambda number: [(number, str(number))]))
    assert list(output) == [(1, "1"), (1, "1"), (2, "2"), (3, "3")]


@pytest.mark.once
def test_counters_are_counted_once(rc: Client) -> None:
    def counting(line: str) -> list[tuple[str, int]]:
        increment("empty", not line)
        return words(line)

    counters = MapReduce(rc).run(TEXT, Step(counting, add)).counters
    assert {name: counters[name] for name in ("empty", "records in", "keys", "pairs out", "pairs shuffled")} == {
        "empty": 1,
        "records in": len(TEXT),
        "keys": len(ANSWER),
        "pairs out": len(ANSWER),
        "pairs shuffled": sum(ANSWER.values()),
    }


@pytest.mark.once
def test_a_partitioner_of_ones_own_says_where_keys_go(rc: Client) -> None:
    step = Step(lambda number: [(number, 1)], add, partitioner=lambda key, partitions: key * partitions // 100)
    output = MapReduce(rc, partitions=4).run(range(100), step)
    assert [key for key, _ in output] == list(range(100))


@pytest.mark.once
def test_a_mapper_may_see_a_whole_split(rc: Client) -> None:
    step = Step(lambda lines: Counter(word for line in lines for word in line.split()).items(), add, by_split=True)
    assert MapReduce(rc).run(TEXT, step).to_dict() == ANSWER


def test_arrays_are_cut_and_cuts_may_overlap(rc: Client) -> None:
    digits = "31415926535897932384626433832795028841971"
    pairs = Step(lambda chunk: [(chunk[1][i : i + 2], 1) for i in range(len(chunk[1]) - 1)], add, combiner=add)
    counted = MapReduce(rc).run(chunks(digits, 7, overlap=1), pairs).to_dict()
    assert counted == Counter(digits[i : i + 2] for i in range(len(digits) - 1))
    even = Step(lambda number: [(bool(number % 2), int(number))], add)
    assert MapReduce(rc).run(np.arange(1000), even).to_dict() == {False: 249500, True: 250000}


def test_names_on_engines_are_input(rc: Client) -> None:
    rc[:].scatter("lines", TEXT, block=True)
    assert MapReduce(rc).run(names(rc[:], "lines"), COUNT).to_dict() == ANSWER


def test_files_are_input(rc: Client, tmp_path: Path) -> None:
    for number, line in enumerate(TEXT):
        (tmp_path / f"{number}.txt").write_text(f"{line}\nétage\n", encoding="utf-8")
    whole = MapReduce(rc).run(
        text_files(tmp_path / "*.txt"), Step(lambda file: [(file[0][-5:], file[1].count("\n"))], listed)
    )
    assert whole.to_dict() == {f"{number}.txt": [2] for number in range(5)}
    assert MapReduce(rc).run(text_lines(tmp_path / "*.txt"), COUNT).to_dict() == ANSWER + Counter({"étage": 5})


@pytest.mark.once
def test_an_error_of_a_function_is_raised_here(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        MapReduce(rc).run([1, 0], Step(lambda number: [(1 / number, 1)], add))


@pytest.mark.once
def test_a_job_has_steps(rc: Client) -> None:
    with pytest.raises(TypeError, match="at least one step"):
        MapReduce(rc).run(TEXT)


def test_what_is_lost_between_two_steps_is_made_again(
    rc: Client, add_engines: Callable[[int], list[int]], end_engine: Callable[[int], None]
) -> None:
    mr = MapReduce(rc.load_balanced_view(add_engines(2)))
    output = mr.run(TEXT, COUNT)
    end_engine(output.partitions[0].engine_id)
    by_count = Step(lambda pair: [(pair[1], pair[0])], lambda count, words: [(count, len(words))])
    assert mr.run(output, by_count).to_dict() == {4: 1, 2: 1, 1: len(ANSWER) - 2}
    assert output.to_dict() == ANSWER


def test_names_that_are_lost_cannot_be_made_again(
    rc: Client, add_engines: Callable[[int], list[int]], end_engine: Callable[[int], None]
) -> None:
    view = rc[add_engines(1)[0]]
    view["lines"] = TEXT
    source = names(view, "lines")
    end_engine(view.targets)
    wait_until(lambda: is_lost(source(1)[0].args[0]))
    with pytest.raises(ObjectLost, match="'lines'"):
        MapReduce(rc.load_balanced_view([0, 1])).run(source, COUNT)


def is_lost(value: RemoteValue) -> bool:
    try:
        value.get()
    except ObjectLost:
        return True
    return False


@pytest.mark.needs(Capability.PROCESS)
def test_engines_that_are_killed_midway_change_nothing(
    rc: Client, add_engines: Callable[[int], list[int]], tmp_path: Path, text: list[str]
) -> None:
    """One dies when it maps a record, another when it reduces a key, after the first half of both is done."""

    def die_once(marker: Path) -> None:
        import os
        import signal

        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def fatal_words(line: str) -> list[tuple[str, int]]:
        if line == text[100]:
            die_once(tmp_path / "mapping")
        return words(line)

    def fatal_list(word: str, ones: list[int]) -> Iterator[tuple[str, list[int]]]:
        if word == "w25":
            die_once(tmp_path / "reducing")
        yield word, ones

    output = MapReduce(rc.load_balanced_view(add_engines(3)), partitions=5).run(text, Step(fatal_words, fatal_list))
    assert [output.partition(index) for index in range(5)] == expected_partitions(text)
    assert {path.name for path in tmp_path.iterdir()} == {"mapping", "reducing"}


def one_each(key: Any) -> list[tuple[Any, int]]:
    return [(key, 1)]


@pytest.mark.sampled("partitions", "combiner")
@pytest.mark.parametrize("combiner", [None, add])
@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_equal_sets_are_one_key_wherever_they_were_made(rc: Client, partitions: int, combiner: Any) -> None:
    pairs = [frozenset(pair) for pair in itertools.combinations(["a", "b", "c", "d", "e"], 2)]
    output = MapReduce(rc, partitions).run(pairs * 9, Step(one_each, add, combiner=combiner))
    assert Counter(dict(output)) == dict.fromkeys(pairs, 9)
    assert len(list(output)) == 10


@pytest.mark.once
def test_equal_keys_of_several_types_are_one_key(rc: Client) -> None:
    noon = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    zones = [datetime.timezone(datetime.timedelta(hours=hours)) for hours in range(-6, 6)]
    keys = [1, 1.0, True, Decimal(1), Fraction(1), np.int64(1), 0.0, -0.0, float("nan"), np.float64("nan")]
    keys += [("k", 2), ("k", 2.0), *(noon.astimezone(zone) for zone in zones)]
    output = dict(MapReduce(rc).run(keys, Step(one_each, add, combiner=add)))
    assert [output.pop(key) for key in (1, 0, ("k", 2), noon)] == [6, 2, 2, 12]
    assert [(str(key), count) for key, count in output.items()] == [("nan", 2)]


@pytest.mark.once
def test_keys_that_python_does_not_order_have_one_order(rc: Client) -> None:
    keys: list[Any] = [
        None,
        2,
        "b",
        ("a", 1),
        frozenset("ab"),
        frozenset("c"),
        b"x",
        1.5,
        "a",
        float("nan"),
        ("a", "b"),
    ]
    runs = [list(MapReduce(rc, 1).run(generator, Step(one_each))) for generator in (keys, keys[::-1])]
    assert str(runs[0]) == str(runs[1])
    assert [key for key, _ in runs[0]][:4] == [1.5, 2, "a", "b"]


@pytest.mark.once
def test_a_key_that_other_processes_could_not_tell_is_refused_by_name(rc: Client) -> None:
    with pytest.raises(
        InvalidKey, match=r"object cannot be a key: it has no hash that is the same in every process.*tuple"
    ):
        MapReduce(rc).run(range(3), Step(lambda number: [(object(), number)], add))


@pytest.mark.once
def test_keys_of_any_class_are_told_apart_by_it_where_a_partitioner_places_them(rc: Client) -> None:
    class Folded:
        def __init__(self, text: str) -> None:
            self.text = text

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Folded) and self.text.lower() == other.text.lower()

        def __hash__(self) -> int:
            return hash(self.text.lower())

        def __lt__(self, other: Any) -> bool:
            return bool(self.text.lower() < other.text.lower())

    step = Step(lambda word: [(Folded(word), 1)], add, partitioner=lambda key, count: len(key.text) % count)
    output = list(MapReduce(rc).run(["b", "a", "A", "B", "a"], step))
    assert [(key.text.lower(), count) for key, count in output] == [("a", 3), ("b", 2)]
