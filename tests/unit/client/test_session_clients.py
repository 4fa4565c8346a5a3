"""The magics that the first client of an IPython session adds, and the client that they use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import IPython
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nsactors import Client, Cluster
from nsactors.client.prompt import MAGICS, SessionClients
from nsactors.magics import Extension
from nsactors.magics.extension import bind_rc

CLUSTERS: list[Cluster] = []  # that in which code of an engine makes a client


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    cluster = Cluster(n=1, backend="local")
    cluster.start_and_connect_sync()
    CLUSTERS.append(cluster)
    yield
    CLUSTERS.remove(cluster)
    cluster.stop_cluster_sync()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shell = InteractiveShell()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    yield shell
    shell.extension_manager.unload_extension("nsactors")
    shell.history_manager.end_session()


def client() -> Client:
    return CLUSTERS[-1].connect_client_sync()


def names(shell: Any) -> dict[str, set[str]]:
    return {kind: set(known) for kind, known in shell.magics_manager.magics.items()}


def make_a_client() -> None:
    client().close()


def test_the_first_client_adds_the_magics_of_the_extension(shell: Any) -> None:
    before = names(shell)
    client().close()
    added = {kind: found - before[kind] for kind, found in names(shell).items()}
    assert added == {kind: set(known) for kind, known in MAGICS.items()}
    assert isinstance(shell.magics_manager.registry["nsactors"], Extension)


@pytest.mark.parametrize(("kind", "name"), [("line", "px"), ("cell", "px"), ("line", "result")])
def test_a_magic_of_the_users_stays_and_none_is_added(shell: Any, kind: str, name: str) -> None:
    shell.register_magic_function(print, kind, name)
    before = names(shell)
    client().close()
    assert names(shell) == before
    assert shell.magics_manager.magics[kind][name] is print


def test_a_magic_that_is_loaded_when_it_is_used_counts_as_one_of_the_users(shell: Any) -> None:
    shell.magics_manager.lazy_magics = {"px": "of_mine"}
    before = names(shell)
    client().close()
    assert names(shell) == before


@pytest.mark.parametrize("when", ["before the first client", "after it"])
def test_magics_that_were_removed_are_not_added_again(shell: Any, when: str) -> None:
    before = names(shell)
    if when == "after it":
        client().close()
    else:
        shell.extension_manager.load_extension("nsactors")
    shell.extension_manager.unload_extension("nsactors")
    client().close()
    assert names(shell) == before
    shell.extension_manager.load_extension("nsactors")
    assert "px" in names(shell)["cell"]


def test_only_the_first_client_adds_them(shell: Any) -> None:
    shell.register_magic_function(print, "line", "px")
    client().close()
    del shell.magics_manager.magics["line"]["px"]
    client().close()
    assert "px" not in names(shell)["line"]


def test_removing_them_leaves_a_magic_that_has_replaced_one_of_them(shell: Any) -> None:
    client().close()
    shell.register_magic_function(print, "line", "result")
    shell.extension_manager.unload_extension("nsactors")
    assert shell.magics_manager.magics["line"]["result"] is print
    assert "px" not in names(shell)["line"]


def test_a_client_that_code_of_an_engine_makes_adds_nothing(shell: Any) -> None:
    SessionClients.of(shell).adds_magics = False
    rc = client()
    SessionClients.of(shell).adds_magics = True
    before = names(shell)
    rc[0].apply_sync(make_a_client)
    rc[0].execute(f"import {__name__} as here\nhere.make_a_client()", block=True)
    assert names(shell) == before
    assert SessionClients.of(shell).newest() is rc
    rc.close()


def test_a_shell_that_cannot_have_them_has_clients_all_the_same(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell.Completer, "custom_matchers", None)
    with pytest.warns(UserWarning, match="%px is not available"):
        rc = client()
    assert rc.ids == [0]
    rc.close()


def test_cells_go_to_a_client_that_has_no_name_in_the_session(
    shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [client()]
    extension: Extension = shell.magics_manager.registry["nsactors"]
    monkeypatch.setattr(extension, "start_cluster", lambda: pytest.fail("a cluster beside a client that is open"))
    shell.run_line_magic("px", "found = 5")
    assert kept[0][0]["found"] == 5
    named = shell.user_ns["rc"] = client()
    kept.append(client())
    assert extension.client_at_hand() is named
    del shell.user_ns["rc"]
    assert extension.client_at_hand() is kept[1]
    for each in (named, *kept):
        each.close()
    assert SessionClients.of(shell).newest() is None
    with pytest.raises(UsageError, match="no cluster yet"):
        shell.run_line_magic("pxinfo", "found")


def test_cells_go_to_the_newest_client_that_has_a_name(shell: Any) -> None:
    old = shell.user_ns["rc"] = client()
    extension: Extension = shell.magics_manager.registry["nsactors"]
    shell.user_ns["_1"] = old  # as IPython does when it shows the client
    new = shell.user_ns["rc"] = client()
    assert extension.client_at_hand() is new
    new.close()
    assert extension.client_at_hand() is old
    old.close()


def test_engines_that_a_cell_has_started_are_rc_in_place_of_a_closed_client(shell: Any) -> None:
    closed, used, new = client(), client(), client()
    closed.close()
    for known, expected in ((closed, new), (used, used), (None, None)):
        shell.user_ns["rc"] = known
        bind_rc(shell.user_ns, new)
        assert shell.user_ns["rc"] is expected
    del shell.user_ns["rc"]
    bind_rc(shell.user_ns, new)
    assert shell.user_ns["rc"] is new
    used.close()
    new.close()
