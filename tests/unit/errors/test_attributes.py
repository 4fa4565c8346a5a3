"""Names that an object does not have."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from nsactors import Client, Cluster
from nsactors.errors import suggest_name


class Thing:
    __getattr__ = suggest_name

    def gather(self) -> None: ...

    @property
    def broken(self) -> int:
        raise AttributeError("it looks for something else")


def refused(owner: object, name: str) -> AttributeError:
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    return caught.value


def test_the_nearest_name_is_suggested() -> None:
    error = refused(Thing(), "gater")
    assert str(error) == "'Thing' object has no attribute 'gater': did you mean 'gather'?"
    assert error.name == "gater"


@pytest.mark.parametrize("name", ["zzz", "_gather", "__gather__"])
def test_for_other_names_none_is(name: str) -> None:
    assert str(refused(Thing(), name)) == f"'Thing' object has no attribute {name!r}"


def test_python_does_not_say_it_again() -> None:
    text = traceback.format_exception_only(refused(Thing(), "gater"))[-1]
    assert text.lower().count("did you mean") == 1


def test_what_a_property_misses_is_not_taken_for_the_property() -> None:
    assert str(refused(Thing(), "broken")) == "it looks for something else"


@pytest.fixture(scope="module")
def objects() -> Any:
    cluster = Cluster(n=1, backend="local")
    client = cluster.start_and_connect_sync()
    result = client[0].apply_async(abs, -1)
    result.get()
    yield {
        "Cluster": cluster,
        "Client": client,
        "DirectView": client[:],
        "LoadBalancedView": client.load_balanced_view(),
        "AsyncResult": result,
        "Metadata": result.metadata,
    }
    cluster.stop_cluster_sync()


@pytest.mark.parametrize(
    ("owner", "wrong", "right"),
    [
        ("Cluster", "start_engine", "start_engines"),
        ("Client", "load_balanced_veiw", "load_balanced_view"),
        ("Client", "get_results", "get_result"),
        ("DirectView", "aply", "apply"),
        ("DirectView", "scater", "scatter"),
        ("LoadBalancedView", "map_asnyc", "map_async"),
        ("AsyncResult", "gett", "get"),
        ("AsyncResult", "stdot", "stdout"),
        ("Metadata", "engine_ids", "engine_id"),
    ],
)
def test_what_people_have_in_hand_suggests_names(objects: dict[str, Any], owner: str, wrong: str, right: str) -> None:
    error = refused(objects[owner], wrong)
    assert str(error) == f"{owner!r} object has no attribute {wrong!r}: did you mean {right!r}?"


def test_a_client_is_asked_for_names_by_programs_all_the_time(objects: dict[str, Client]) -> None:
    assert not hasattr(objects["Client"], "_ipython_display_")
