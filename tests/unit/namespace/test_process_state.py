"""The state of a process beside its names: read into records, and set from them in another process."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nsactors.namespace.process_state import EngineProcess, NumpyGenerator, PythonGenerator
from nsactors.protocol.messages import RequestId
from nsactors.recovery.journal import ProcessState

REQUEST = RequestId("ann", 1)


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The process is afterwards what it was before."""
    states = random.getstate(), np.random.get_state()
    environment, path = dict(os.environ), [*sys.path]
    monkeypatch.chdir(tmp_path)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    process = EngineProcess()
    yield process
    process.close()


def written(state: ProcessState) -> ProcessState:
    """Return a value in the form in which it is read from a journal."""
    copy: ProcessState = pickle.loads(pickle.dumps(state))
    return copy


def draws() -> list[float]:
    return [random.random(), random.gauss(), float(np.random.rand()), float(np.random.normal())]


def test_what_is_quiet_is_given_once(process: EngineProcess) -> None:
    assert process.changes().keys() >= {"random", "numpy.random", "NumPy's entropy"}
    assert process.changes() == {}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (random.random, "random"),
        (lambda: random.shuffle([1, 2, 3]), "random"),
        (lambda: random.seed(5), "random"),
        (np.random.rand, "numpy.random"),
        (lambda: np.random.seed(5), "numpy.random"),
        (lambda: os.environ.update(NSACTORS_TEST="1"), "the environment"),
        (lambda: os.environ.pop("PATH"), "the environment"),
        (lambda: os.chdir("/"), "the working folder"),
        (lambda: sys.path.insert(0, "/somewhere"), "sys.path"),
    ],
)
def test_what_has_changed_is_given_and_can_be_set_again(process: EngineProcess, change: object, part: str) -> None:
    process.changes()
    before, _ = process.state()
    assert callable(change)
    change()
    changes = process.changes()
    assert changes.keys() == {part}
    assert process.set(written(before)) == {}
    assert process.changes() == {}, "what has been set counts as given"
    assert process.state()[0] == before
    assert process.set(written(changes)) == {}
    assert process.state()[0] == {**before, **changes}


def test_generators_go_on_where_they_were(process: EngineProcess) -> None:
    draws()  # the second of a pair of normal numbers is due
    state, _ = process.state()
    expected = draws()
    draws()
    process.set(written(state))
    assert draws() == expected


def test_the_second_of_a_pair_of_normal_numbers_is_not_missed() -> None:
    part = NumpyGenerator()
    part.value()
    np.random.normal()
    assert part.changed() is not None
    np.random.normal()  # moves nothing but what is due
    assert part.changed() is not None
    assert part.changed() is None


def test_another_bit_generator_of_the_users_is_kept(process: EngineProcess) -> None:
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(5))
        state, _ = process.state()
        expected = draws()
        np.random.set_bit_generator(np.random.MT19937(7))
        process.set(written(state))
        assert draws() == expected
    finally:
        np.random.set_bit_generator(usual)


def test_the_generator_of_pytorch_is_kept_if_it_has_been_imported(
    process: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torch(ModuleType):
        """As much of it as is used: its generator, whose states are arrays."""

        uint8 = np.uint8
        state = np.arange(8, dtype=np.uint8)

        def get_rng_state(self) -> Torch:
            return self

        def numpy(self) -> np.ndarray:
            return self.state

        def frombuffer(self, data: bytearray, dtype: type) -> np.ndarray:
            return np.frombuffer(data, dtype)

        def set_rng_state(self, state: np.ndarray) -> None:
            self.state = state

    monkeypatch.setitem(sys.modules, "torch", torch := Torch("torch"))
    state, _ = process.state()
    torch.state = torch.state[::-1].copy()
    assert "torch" in process.changes()
    process.set(written(state))
    assert torch.state.tolist() == [*range(8)]


def test_the_environment_of_another_machine_stays_but_for_what_the_user_changed() -> None:
    os.environ.update(MACHINE="old", SHARED="1")
    process = EngineProcess()
    os.environ.update(MINE="2", SHARED="3")
    del os.environ["PATH"]
    state, _ = process.state()
    process.close()
    os.environ.update(MACHINE="new", SHARED="1", PATH="/bin")
    del os.environ["MINE"]
    process = EngineProcess()
    process.set(written(state))
    assert [os.environ.get(name) for name in ("MACHINE", "SHARED", "MINE", "PATH")] == ["new", "3", "2", None]
    process.close()


def test_a_folder_that_is_gone_is_named(process: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    changes = process.changes()
    os.chdir(tmp_path)
    (tmp_path / "gone").rmdir()
    assert "No such file" in process.set(written(changes))["the working folder"]


def test_unseeded_generators_of_numpy_are_drawn_again_in_a_replay(process: EngineProcess) -> None:
    def numbers() -> list[object]:
        process.set(before)
        process.begin(REQUEST)
        drawn = [
            float(np.random.default_rng().random()),
            np.random.SeedSequence().entropy,
            np.random.RandomState().rand(),
        ]
        np.random.seed()
        drawn.append(np.random.rand())
        process.end()
        return drawn

    before, _ = process.state()
    first = numbers()
    assert len({str(number) for number in first}) == len(first)
    assert numbers() == first
    other = EngineProcess()
    assert np.random.SeedSequence().entropy != np.random.SeedSequence().entropy, "outside of requests nothing repeats"
    other.set(written(before))
    other.begin(REQUEST)
    assert float(np.random.default_rng().random()) == first[0]
    other.close()


def test_requests_draw_other_numbers_than_each_other(process: EngineProcess) -> None:
    drawn = []
    for seq in range(3):
        process.begin(RequestId("ann", seq))
        drawn.append(np.random.SeedSequence().entropy)
        process.end()
    assert len(set(drawn)) == 3


def test_children_of_a_request_draw_numbers_of_their_own(process: EngineProcess) -> None:
    process.begin(REQUEST)
    read, write = os.pipe()
    for _ in range(2):
        if (child := os.fork()) == 0:
            os.write(write, b"%d\n" % np.random.SeedSequence().entropy)
            os._exit(0)
        os.waitpid(child, 0)
    os.close(write)
    with open(read) as file:
        first, second = file.read().split()
    assert first != second
    process.end()


def test_numpy_has_its_own_entropy_again_when_the_process_is_followed_no_more() -> None:
    from numpy.random import bit_generator

    before = vars(bit_generator)["randbits"]
    process = EngineProcess()
    assert vars(bit_generator)["randbits"] != before
    process.close()
    assert vars(bit_generator)["randbits"] == before


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


IN_A_NEW_PROCESS = """
import sys
from nsactors.protocol.messages import RequestId
from nsactors.namespace.process_state import EngineProcess

process = EngineProcess()
assert "numpy" not in sys.modules
process.set({"NumPy's entropy": bytes(32)})
process.begin(RequestId("ann", 1))
import numpy as np
first = np.random.rand(), np.random.default_rng().random()
process.end()
print(first)
state = process.state()[0]
assert "numpy.random" in state
assert not any(type(finder).__module__.startswith("nsactors") for finder in sys.meta_path), "it is not in the way"
assert "exec_module" not in vars(np.random.bit_generator.__loader__)
"""


def test_numpy_that_a_request_imports_is_seeded_as_in_its_replay() -> None:
    first, again = in_a_new_process(IN_A_NEW_PROCESS), in_a_new_process(IN_A_NEW_PROCESS)
    assert first == again != ""


SET_BEFORE_THE_IMPORT = """
import sys
from nsactors.namespace.process_state import EngineProcess

process = EngineProcess()
state = {"numpy.random": ("MT19937", bytes(range(256)) * 9 + bytes(192), 624, 0, 0.0)}
assert process.set(state) == {}
assert "numpy" not in sys.modules, "nothing is imported for it"
assert process.state()[0]["numpy.random"] == state["numpy.random"], "and it is not forgotten meanwhile"
import numpy.random
assert process.state()[0]["numpy.random"] == state["numpy.random"]
"""


def test_what_belongs_to_a_library_is_set_when_that_is_imported() -> None:
    in_a_new_process(SET_BEFORE_THE_IMPORT)


def test_a_part_in_disorder_costs_no_request_and_is_named(
    process: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: PythonGenerator) -> None:
        raise RuntimeError("no state")

    monkeypatch.setattr(PythonGenerator, "changed", broken)
    assert "random" not in process.changes()
    monkeypatch.setattr(PythonGenerator, "value", broken)
    assert process.state()[1] == {"random": "RuntimeError: no state"}
