"""The exceptions nsactors raises itself."""

import copy
import inspect
import pickle
import re

import pytest

from nsactors import errors
from nsactors.errors import exceptions, joining, services, tasks

INSTANCES: list[errors.NsactorsError] = [
    errors.NsactorsError("a message"),
    errors.NoEngines(),
    errors.NoEngines("start some in your notebook"),
    errors.NoSuchEngine(engine_id=7, ids=[0, 1, 2, 3]),
    errors.InvalidTarget(1.5),
    errors.UnknownFlag("blok", ["block", "track", "targets"]),
    errors.UnknownOption("num_gpu", ["num_cpus", "num_gpus"]),
    errors.InvalidName("1x"),
    errors.InvalidName("1x", "scatter(key)"),
    errors.WrongType("execute", "block", "no", "True, False or None"),
    errors.WrongValue("rc[name] = value", "name", -1, "text"),
    errors.InvalidKey("__main__.Thing"),
    errors.InvalidKey("tuple", "list"),
    errors.SerializationError("name 'sock'", "cannot pickle 'socket' object"),
    errors.StoreFull("what was sent (80 MB)"),
    errors.StoreFull("a result (80 MB)", "/dev/shm has 3 MB left"),
    errors.SnapshotUnproved("no memory"),
    errors.SnapshotUnwritten(3, "No space left on device", 2),
    errors.ClientClosed(),
    errors.ProgramEnded("sim-4711", "it sends what cannot be read"),
    errors.RayShutDown(),
    errors.ClusterLost("Ray's raylet (process 4711)", "was killed by SIGKILL"),
    errors.ClusterStopped(),
    errors.RayImportedFirst(),
    errors.RayStartError("its raylet ended with status 1", "/tmp/logs"),
    errors.ClusterUnreachable("127.0.0.1:6379", "connection refused"),
    errors.AlreadyConnected("127.0.0.1:6379", "127.0.0.1:6380"),
    errors.ForkedClient(4711, 4712),
    errors.EngineLost(2, "apply(crash)", "killed by signal 9 (SIGKILL)", "Fatal error\nlast words"),
    errors.EngineLost(2, "apply(f)", "killed", began=False, running="apply(crash)"),
    errors.UnknownKey("stdot", ["stdout"]),
    errors.NoEngines(targets=[], ids=[0, 1]),
    errors.EngineSilent(3, "peek(len(x))"),
    errors.EngineStartError(3, "the start-up code failed", "ImportError: no module"),
    errors.ObjectLost("a", 2, "pull(a)", "its process ended"),
    errors.TaskAborted(1, "apply(f)"),
    errors.TaskAborted(None, "map(f)"),
    errors.TimeLimitExceeded(1, "apply(f)", 2.5),
    errors.UnmetDependency("import numpy"),
    errors.ImpossibleDependency("apply(f)", "targets: engine 3 gone"),
    errors.InvalidDependency(1.5, "set_flags(after)"),
    errors.TaskTimeout("apply(f)", "it was submitted 2 s ago, and no engine runs it"),
    errors.TaskLost("apply(f)", "engines 0-2 died while running it"),
    errors.SchedulerLost("apply(f)", "it was killed"),
    errors.SchedulerLost("apply(f)", "KeyError: 3", process=False),
    errors.SchedulerOverloaded("apply(f)", 2_000_000_000),
    errors.ResultUnavailable("ann-4f2a:17", "newer ones have taken its place"),
    errors.FolderTooLong("/a/long/path", 20),
    errors.PackageMissing("to_pandas()", "pandas", "pip install pandas"),
    errors.DebuggerUnavailable("no engine keeps the frames of a failure"),
    errors.CapabilityError("interrupt an engine", "the local transport", "use Cluster(backend='ray')"),
    errors.DuplicateRequest(0, "client-1:17"),
    errors.ServiceClosed("mailboxes-1"),
    errors.ServiceOverloaded(8_000),
    errors.MemberLost(2, "recv from 2 tag 5"),
    errors.MeetingFailed("barrier", {0: "barrier", 1: "bcast from 0", 2: "barrier"}),
    errors.AccessRefused("127.0.0.1:6379", "the token is wrong"),
    errors.OutsideCluster("10.0.0.1:6379", "`nsactors launch join lab` lets it take part"),
    errors.ProcessLimit(50, 40, 12),
    errors.ClusterNameTaken("lab"),
    errors.ClusterNotFound("lab", ["other"]),
    errors.ClusterNotReady("lab"),
    errors.VersionMismatch({"ray": ("2.60.0", "2.61.0")}),
    errors.LaunchError("no engines on b: ssh has ended with status 255", "No route to host"),
    errors.MpiUnavailable([0, 1, 3], "No module named 'mpi4py'"),
    errors.MpiInUse([2]),
    errors.WorldNotFormed("engine 2 died while it joined"),
    errors.WorldBroken(2, 5, "killed by signal 9 (SIGKILL)").on(engine_id=3),
    errors.WorldBroken(2, 5, "it was stopped", returns=False).on(engine_id=3),
]
ABSTRACT = {
    errors.TargetError,
    errors.InvalidArgument,
    errors.ConnectionLost,
    errors.EngineError,
    errors.ProtocolError,
    errors.MpiError,
    errors.ServiceError,
}
every_instance = pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)


def test_every_class_of_the_tree_is_among_the_instances_tested_here() -> None:
    members = [
        cls
        for module in (exceptions, exceptions, tasks, joining, joining, services, services)
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if not name.startswith("_")
    ]
    classes = {cls for cls in members if issubclass(cls, errors.NsactorsError)}
    assert classes == {type(error) for error in INSTANCES} | ABSTRACT


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", exceptions.__doc__ or ""))
    below_the_root = {
        name
        for module in (exceptions, tasks, joining)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
    } - {"NsactorsError"}
    assert drawn == below_the_root | {"RemoteError", "CompositeError", "ServiceError", "MpiError"}


@every_instance
@pytest.mark.parametrize(
    "clone",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_an_error_survives_being_cloned(error: errors.NsactorsError, clone: object) -> None:
    error.add_note("seen on Monday")
    twin = clone(error)  # type: ignore[operator]
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


@every_instance
def test_the_message_is_prose_and_not_the_repr_of_something(error: errors.NsactorsError) -> None:
    assert str(error)
    assert str(error)[0] not in "\"('" or isinstance(error, errors.InvalidName)


def test_no_engines_says_how_to_start_some() -> None:
    assert "Cluster(n=4)" in str(errors.NoEngines())


def test_a_missing_engine_is_an_index_error_that_names_those_there_are() -> None:
    with pytest.raises(IndexError, match=r"no engine 7; there are engines 0-2, 5: name one of them"):
        raise errors.NoSuchEngine(7, [0, 1, 2, 5])
    assert str(errors.NoSuchEngine(1, [0])) == "there is no engine 1; there is engine 0: name that one"


def test_a_missing_engine_where_there_is_none_says_how_to_start_some() -> None:
    assert "Cluster(n=4)" in str(errors.NoSuchEngine(0, []))


def test_an_invalid_target_says_what_targets_may_be() -> None:
    with pytest.raises(TypeError, match=r"1\.5 cannot be a target: give an int, a list of ints, a slice, or 'all'"):
        raise errors.InvalidTarget(1.5)


def test_an_unknown_flag_suggests_the_nearest_one() -> None:
    with pytest.raises(KeyError) as caught:
        raise errors.UnknownFlag("blok", ["track", "block"])
    assert str(caught.value) == "unknown flag 'blok': did you mean 'block'? the flags are block, track"


def test_an_unknown_flag_like_no_other_suggests_none() -> None:
    assert "did you mean" not in str(errors.UnknownFlag("zzz", ["block"]))


def test_an_unreachable_cluster_is_a_connection_error_like_pythons() -> None:
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:6379: connection refused"):
        raise errors.ClusterUnreachable("127.0.0.1:6379", "connection refused")


def test_a_lost_engine_tells_which_call_killed_it_how_and_its_last_words() -> None:
    text = str(errors.EngineLost(2, "apply(crash)", "killed by signal 9 (SIGKILL)", "Fatal error\nlast words"))
    assert text.startswith("engine 2 died while running apply(crash): killed by signal 9 (SIGKILL)\n")
    assert "    last words\n" in text
    assert "the other engines continue" in text


def test_an_engine_that_was_asked_to_end_has_not_died() -> None:
    ended = errors.group_failures([errors.EngineLost(i, "execute", exceptions.SHUTDOWN_REQUESTED) for i in (0, 1)])
    assert [group.summary for group in ended] == [
        "EngineLost: engines 0-1 ended while running execute: a shutdown was requested  [engines 0-1]"
    ]


def test_an_idle_engine_dies_idle() -> None:
    assert "engine 2 died while idle: out of memory" in str(errors.EngineLost(2, "", "out of memory"))


def test_a_call_that_only_waited_is_not_blamed() -> None:
    text = str(errors.EngineLost(2, "apply(f)", "killed", began=False, running="apply(crash)"))
    assert text.splitlines() == [
        "engine 2 died while running apply(crash): killed",
        "apply(f) had not begun there. It does not restart, and its namespace is lost; the other engines continue",
    ]
    assert str(errors.EngineLost(2, "apply(f)", "killed", began=False)).startswith("engine 2 died: killed\n")
    assert str(errors.EngineLost(2, "apply(f)", "killed", began=None)).startswith(
        "engine 2 died before it answered apply(f): killed\n"
    )


def test_targets_that_select_no_engine_are_told_from_no_engines() -> None:
    assert str(errors.NoEngines(targets=[], ids=[0, 1, 5])) == "[] selects none of engines 0-1, 5: name at least one"
    for targets, shown in [(slice(5, None), "[5:]"), (slice(-1, 0, 2), "[-1:0:2]"), (slice(None, 0), "[:0]")]:
        assert str(errors.NoEngines(targets=targets, ids=[0])).startswith(f"{shown} selects none of engine 0")


def test_what_cannot_do_something_is_named_as_it_is() -> None:
    assert str(errors.CapabilityError("take a snapshot", "this engine", "start it so")) == (
        "this engine cannot take a snapshot: start it so"
    )


def test_long_last_words_are_cut_in_the_message_and_kept_in_the_field() -> None:
    words = "\n".join(f"line {number}" for number in range(100))
    error = errors.EngineLost(0, "execute", "exit status 1", words)
    assert "line 89\n" not in str(error)
    assert "line 90\n" in str(error)
    assert error.stderr_tail == words


def test_a_huge_target_is_not_carried_along() -> None:
    assert len(str(errors.InvalidTarget("x" * 10_000_000))) < 200
