"""The PMI-1 exchange: lines in, lines out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsactors.mpi.pmi import Command, Exchange, Refuse, Send, Spawn, process_mapping

IDS = [1111, 2222, 3333]


def exchange(count: int = 3) -> Exchange:
    """A world of so many ranks, all of which have been let in: peer k has rank k."""
    world = Exchange(IDS[:count], "world", process_mapping(["here"] * count))
    for peer, number in enumerate(IDS[:count]):
        world.handle(peer, f"cmd=initack pmiid={number}\n")
    return world


def said(world: Exchange, peer: int, line: str) -> str:
    (effect,) = world.handle(peer, f"{line}\n")
    assert isinstance(effect, Send)
    assert effect.peer == peer
    return effect.text


def test_an_id_gives_its_rank() -> None:
    world = Exchange(IDS, "world", "")
    told = "cmd=initack rc=0\ncmd=set size=3\ncmd=set rank=1\ncmd=set debug=0"
    assert world.handle(7, "cmd=initack pmiid=2222\n") == [Send(7, told)]


def test_whoever_has_no_id_or_one_that_was_used_is_refused() -> None:
    world = exchange(2)
    for line in (
        "cmd=initack pmiid=1111",
        "cmd=initack pmiid=4444",
        "cmd=initack",
        "cmd=get key=a",
        "",
        "GET / HTTP/1.1",
    ):
        assert world.handle(9, f"{line}\n") == [Refuse(9)]


def test_it_knows_who_is_missing() -> None:
    world = Exchange(IDS, "world", "")
    assert world.missing == [0, 1, 2]
    world.handle(0, "cmd=initack pmiid=2222\n")
    assert world.missing == [0, 2]
    assert exchange().missing == []


def test_it_answers_what_mpich_asks_when_it_is_initialised() -> None:
    world = exchange()
    assert said(world, 0, "cmd=init pmi_version=1 pmi_subversion=1").startswith(
        "cmd=response_to_init rc=0 pmi_version=1"
    )
    assert "kvsname_max=256" in said(world, 0, "cmd=get_maxes")
    assert said(world, 0, "cmd=get_appnum") == "cmd=appnum rc=0 appnum=0"
    assert said(world, 0, "cmd=get_my_kvsname") == "cmd=my_kvsname rc=0 kvsname=world"
    assert said(world, 0, "cmd=get_universe_size") == "cmd=universe_size rc=0 size=3"
    assert said(world, 0, "cmd=get kvsname=world key=PMI_process_mapping").endswith("value=(vector,(0,1,3))")
    assert said(world, 0, "cmd=finalize") == "cmd=finalize_ack rc=0"


def test_what_one_rank_puts_another_gets_blanks_and_all() -> None:
    world = exchange()
    assert said(world, 0, "cmd=put kvsname=world key=card value=tcp a=b c") == "cmd=put_result rc=0 msg=success"
    assert said(world, 2, "cmd=get kvsname=world key=card") == "cmd=get_result rc=0 msg=success value=tcp a=b c"


def test_a_key_that_is_not_there_is_said_to_be_missing() -> None:
    assert "rc=-1" in said(exchange(), 0, "cmd=get kvsname=world key=nothing")


def test_a_key_is_put_once_and_has_its_limits() -> None:
    world = exchange()
    said(world, 0, "cmd=put kvsname=world key=a value=1")
    for line in ("key=a value=2", f"key={'k' * 65} value=1", f"key=b value={'v' * 4097}", "value=1"):
        assert "rc=-1" in said(world, 1, f"cmd=put kvsname=world {line}")


def test_a_barrier_lets_nobody_out_before_all_are_in_and_serves_again() -> None:
    world = exchange()
    for _ in range(2):
        assert world.handle(2, "cmd=barrier_in\n") == []
        assert world.handle(0, "cmd=barrier_in\n") == []
        out = world.handle(1, "cmd=barrier_in\n")
        assert sorted(out) == [Send(peer, "cmd=barrier_out rc=0") for peer in range(3)]


def test_a_published_name_is_found_until_it_is_taken_back() -> None:
    world = exchange()
    port = "tag=0 port=1234 business=a"
    assert said(world, 0, f"cmd=publish_name service=solver port={port}") == "cmd=publish_result rc=0 info=ok"
    assert "rc=1" in said(world, 1, "cmd=publish_name service=solver port=b")
    assert said(world, 1, "cmd=lookup_name service=solver") == f"cmd=lookup_result rc=0 info=ok port={port}"
    assert "rc=0" in said(world, 0, "cmd=unpublish_name service=solver")
    for what in ("lookup", "unpublish"):
        assert "rc=1" in said(world, 1, f"cmd={what}_name service=solver")


def test_an_order_to_start_processes_is_taken_line_by_line() -> None:
    world = exchange()
    first = "mcmd=spawn nprocs=2 execname=python totspawns=2 spawnssofar=1 argcnt=1 arg1=-V preput_num=1"
    lines = [*first.split(), "preput_key_0=PARENT", "preput_val_0=a=b c", "info_num=1", "info_key_0=wdir"]
    lines += ["info_val_0=/tmp", "endcmd", "mcmd=spawn", "nprocs=1", "execname=true", "totspawns=2", "spawnssofar=2"]
    assert [effect for line in lines for effect in world.handle(1, f"{line}\n")] == []
    commands = (Command(("python", "-V"), 2, "/tmp"), Command(("true",), 1, None))
    assert world.handle(1, "endcmd\n") == [Spawn(1, commands, {"PARENT": "a=b c"})]
    assert said(world, 1, "cmd=get_appnum") == "cmd=appnum rc=0 appnum=0"


def test_what_it_does_not_know_is_said_to_be_unsupported() -> None:
    assert said(exchange(), 0, "cmd=abort") == "cmd=abort_result rc=-1 msg=not_supported"


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=20))
def test_a_mapping_tells_for_each_rank_its_machine(places: list[str]) -> None:
    blocks = process_mapping(places).removeprefix("(vector,(").removesuffix("))").split("),(")
    numbers = [
        node for node, one, count in (map(int, block.split(",")) for block in blocks) for _ in range(one * count)
    ]
    order = list(dict.fromkeys(places))
    assert numbers == [order.index(place) for place in places]


@given(st.text(max_size=80))
def test_no_line_of_a_stranger_does_anything_but_end_its_connection(line: str) -> None:
    world = Exchange(IDS, "world", "")
    if "initack" not in line:
        assert world.handle(0, line) == [Refuse(0)]
    assert len(world.missing) == 3
