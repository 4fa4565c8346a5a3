"""The server's side of PMI-1, version 1.1, the wire protocol that MPICH speaks to its process manager.

A process that finds ``PMI_PORT`` and ``PMI_ID`` in its environment connects, sends its id and gets its rank. Then
the processes exchange their addresses: each puts keys, all meet at a barrier, each gets the keys of the others.
Messages are lines of ``key=value`` pairs. Flux describes the protocol in its RFC 13.

This module takes lines and peers, and returns messages. It uses no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

KEY_BYTES = 64
VALUE_BYTES = 4096
LINE_BYTES = 8192
"""The longest line that a peer may send."""


class Send(NamedTuple):
    """Send one or several lines to a peer."""

    peer: int
    text: str


class Refuse(NamedTuple):
    """Close the connection of a peer that does not belong to this world."""

    peer: int


class Command(NamedTuple):
    """Start processes with these arguments, in a folder if one is given."""

    arguments: tuple[str, ...]
    processes: int
    folder: str | None


class Spawn(NamedTuple):
    """Start processes for a peer, as a world of their own that has these values from the start."""

    peer: int
    commands: tuple[Command, ...]
    values: dict[str, str]


Effect = Send | Refuse | Spawn


def process_mapping(places: Sequence[object]) -> str:
    """Return the ranks that share a machine, in MPICH's notation.

    Args:
        places: a place for each rank, equal for ranks on one machine.

    Example:
        >>> process_mapping(["a", "a", "b"])
        '(vector,(0,1,2),(1,1,1))'
    """
    numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
    blocks = [(place, len(list(ranks))) for place, ranks in groupby(places)]
    return "".join(["(vector", *(f",({numbers[place]},1,{count})" for place, count in blocks), ")"])


@dataclass(slots=True)
class Exchange:
    """The ranks of one world as they join it.

    Args:
        ids: for each rank the id that admits its process; each is good for one connection.
        name: the unique name of the world.
        mapping: see :func:`process_mapping`.
        given: values that exist from the start.
    """

    ids: Sequence[int]
    name: str
    mapping: str
    given: Mapping[str, str] = field(default_factory=dict)
    _ranks: dict[int, int] = field(init=False, default_factory=dict)  # by peer
    _admissible: dict[str, int] = field(init=False)
    _values: dict[str, str] = field(init=False)
    _waiting: list[int] = field(init=False, default_factory=list)
    _published: dict[str, str] = field(init=False, default_factory=dict)
    _orders: dict[int, list[dict[str, str]]] = field(init=False, default_factory=dict)  # orders of children, by peer
    _ordering: set[int] = field(init=False, default_factory=set)  # peers in the middle of an order

    def __post_init__(self) -> None:
        self._admissible = {str(number): rank for rank, number in enumerate(self.ids)}
        self._values = dict(self.given)
        if len(self.mapping) <= VALUE_BYTES:  # without it MPICH compares the names of the machines
            self._values["PMI_process_mapping"] = self.mapping

    @property
    def missing(self) -> list[int]:
        """Return the ranks that have not joined yet."""
        return list(self._admissible.values())

    def handle(self, peer: int, line: str) -> list[Effect]:
        """Handle a line from a peer; return the effects."""
        line = line.rstrip("\n")
        if peer in self._ordering or (peer in self._ranks and line == "mcmd=spawn"):
            return self._order(peer, line)
        said = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
        command = said.get("cmd")
        if peer not in self._ranks:
            return self._admit(peer, said) if command == "initack" else [Refuse(peer)]
        match command:
            case "init":
                return [Send(peer, "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1")]
            case "get_maxes":
                sizes = f"kvsname_max=256 keylen_max={KEY_BYTES} vallen_max={VALUE_BYTES}"
                return [Send(peer, f"cmd=maxes rc=0 {sizes}")]
            case "get_appnum":
                return [Send(peer, "cmd=appnum rc=0 appnum=0")]
            case "get_my_kvsname":
                return [Send(peer, f"cmd=my_kvsname rc=0 kvsname={self.name}")]
            case "get_universe_size":
                return [Send(peer, f"cmd=universe_size rc=0 size={len(self.ids)}")]
            case "put":
                return [self._put(peer, said.get("key", ""), line)]
            case "get":
                return [self._get(peer, said.get("key", ""))]
            case "barrier_in":
                return self._meet(peer)
            case "finalize":
                return [Send(peer, "cmd=finalize_ack rc=0")]
            case "publish_name" | "unpublish_name" | "lookup_name":
                return [self._name(peer, command.removesuffix("_name"), said.get("service", ""), line)]
            case _:
                return [Send(peer, f"cmd={command}_result rc=-1 msg=not_supported")]

    def _admit(self, peer: int, said: dict[str, str]) -> list[Effect]:
        rank = self._admissible.pop(said.get("pmiid", ""), None)
        if rank is None:
            return [Refuse(peer)]
        self._ranks[peer] = rank
        lines = ("initack rc=0", f"set size={len(self.ids)}", f"set rank={rank}", "set debug=0")
        return [Send(peer, "\n".join(f"cmd={line}" for line in lines))]

    def _put(self, peer: int, key: str, line: str) -> Send:
        # The value comes last and may hold blanks and equal signs.
        value = line.partition(" value=")[2]
        if not key or len(key) > KEY_BYTES or len(value) > VALUE_BYTES or key in self._values:
            return Send(peer, "cmd=put_result rc=-1 msg=invalid_or_duplicate_key")
        self._values[key] = value
        return Send(peer, "cmd=put_result rc=0 msg=success")

    def _get(self, peer: int, key: str) -> Send:
        if key not in self._values:
            return Send(peer, "cmd=get_result rc=-1 msg=key_not_found value=unknown")
        return Send(peer, f"cmd=get_result rc=0 msg=success value={self._values[key]}")

    def _name(self, peer: int, verb: str, service: str, line: str) -> Send:
        if (service in self._published) == (verb == "publish"):
            return Send(peer, f"cmd={verb}_result rc=1 info=no_such_or_already_published_service")
        found = ""
        match verb:
            case "publish":
                self._published[service] = line.partition(" port=")[2]
            case "unpublish":
                del self._published[service]
            case _:
                found = f" port={self._published[service]}"
        return Send(peer, f"cmd={verb}_result rc=0 info=ok{found}")

    def _order(self, peer: int, line: str) -> list[Effect]:
        """Take a line of an order to start processes; several orders may follow each other."""
        orders = self._orders.setdefault(peer, [])
        if line == "mcmd=spawn":
            self._ordering.add(peer)
            orders.append({})
        elif line != "endcmd":
            key, _, value = line.partition("=")
            orders[-1][key] = value
        else:
            self._ordering.discard(peer)
            if len(orders) == int(orders[-1].get("totspawns", 1)):
                del self._orders[peer]
                values = {k: v for order in orders for k, v in _pairs(order, "preput_key", "preput_val", "preput_num")}
                return [Spawn(peer, tuple(map(_command, orders)), values)]
        return []

    def _meet(self, peer: int) -> list[Effect]:
        self._waiting.append(peer)
        if len(self._waiting) < len(self.ids):
            return []
        met, self._waiting = self._waiting, []
        return [Send(waiting, "cmd=barrier_out rc=0") for waiting in met]


def _command(order: dict[str, str]) -> Command:
    arguments = [order[f"arg{number}"] for number in range(1, int(order.get("argcnt", 0)) + 1)]
    info = dict(_pairs(order, "info_key", "info_val", "info_num"))
    return Command((order["execname"], *arguments), int(order["nprocs"]), info.get("wdir"))


def _pairs(order: dict[str, str], key: str, value: str, number: str) -> list[tuple[str, str]]:
    return [(order[f"{key}_{k}"], order[f"{value}_{k}"]) for k in range(int(order.get(number, 0)))]
