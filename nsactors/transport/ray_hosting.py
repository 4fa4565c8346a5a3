"""Services on Ray: one actor on the head node hosts all of a cluster's."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import getpass
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from nsactors.core.machine import Answer, Desks, Machine, Ticket, Waiting, name_of
from nsactors.core.payload import Payload, pack, unpack
from nsactors.errors import ClusterStopped, ServiceClosed
from nsactors.transport.hosting import Service
from nsactors.transport.ray_nodes import head_place
from nsactors.transport.ray_outbox import FULL, Item, Outbox
from nsactors.transport.ray_presence import Presences
from nsactors.transport.ray_store import RayStore

__all__ = ["RayServices", "ServiceHost"]

_NAME = "services"
ANSWER_S = 2.0
END_S = 5.0
OVERTAKEN_S = 0.001
SETTLE_S = 30.0
NAME_S, LOOK_S = 5.0, 0.02  # the name of an actor that has died is free again after some milliseconds
REMEMBERED = 1_000  # parties that have left
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
MAX_CONCURRENCY = 20_000  # calls that wait hold one each


class ServiceHost:
    """The actor class of the host. Its methods are coroutines; nothing in them blocks.

    A call that waits costs nothing. It ends with its answer, or when it is withdrawn, or when the process of its caller
    does: nothing of Ray's ends a call whose caller is dead.

    Args:
        namespace: of the cluster in Ray, whose end is this host's.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._following: asyncio.Task[None] | None = None
        self._desks = Desks()
        self._answers: dict[tuple[str, Ticket], asyncio.Future[Answer]] = {}
        self._heard: dict[tuple[str, str], _Heard] = {}
        self._presences = Presences()
        self._left: deque[str] = deque(maxlen=REMEMBERED)

    async def host(self, name: str, machine: Payload) -> str:
        """Host a machine, unless there is one of this name; what calls name it by, which no later one is."""
        self._following = self._following or asyncio.get_running_loop().create_task(self._follow_controller())
        return self._desks.open(name, lambda: unpack(machine))

    async def call(
        self, key: str, party: str, number: int, after: int, request: Any, told: Sequence[Item] = ()
    ) -> Answer:
        """Answer a call; see ``Desk``. What its party has told before comes along."""
        ticket = Ticket(party, number)
        desk = self._desks.get(key)
        if desk is None:
            return Answer(ticket, error=ServiceClosed(name_of(key)))
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[key, ticket] = answer
        self._hear(key, party, told).count += 1
        self._deliver(key, desk.call(ticket, after, request, time.monotonic()))
        return await answer

    async def post(self, key: str, party: str, told: Sequence[Item]) -> None:
        """What a party tells, and nobody waits for."""
        self._hear(key, party, told)

    async def flush(self, key: str, party: str, told: Sequence[Item], sent: int) -> Exception | None:
        """Return when everything that a party has sent has been handled: what went wrong with what it told, if any."""
        if key not in self._desks:
            return ServiceClosed(name_of(key))
        heard = self._hear(key, party, told)
        give_up = time.monotonic() + SETTLE_S
        while heard.count < sent and key in self._desks and time.monotonic() < give_up:  # messages overtake each other
            await asyncio.sleep(OVERTAKEN_S)
        if heard.count < sent and key in self._desks:
            return TimeoutError(f"the service {name_of(key)!r} has not got all that it was told")
        failure, heard.failure = heard.failure, None
        return failure

    async def withdraw(self, key: str, party: str, number: int) -> None:
        """Nobody waits for a call any more."""
        if desk := self._desks.get(key):
            self._deliver(key, desk.withdraw(Ticket(party, number)))

    async def presence(self, party: str) -> None:
        """Called by a party, and does not return while that is there; it may have left before this call was begun."""
        if party not in self._left:
            await self._presences.last(party)

    async def stand_by(self, key: str, party: str, presence: Sequence[Any]) -> None:
        """Watch over the process of the party whose reference to its :meth:`presence` this is."""
        if await self._presences.died(presence):
            self._leave(key, party, died=True)

    async def leave(self, key: str, party: str, told: Sequence[Item], sent: int) -> None:
        """A party calls no more."""
        await self.flush(key, party, told, sent)
        self._leave(key, party, died=False)

    async def close(self, key: str) -> None:
        """End a service."""
        if desk := self._desks.pop(key, None):
            self._deliver(key, desk.close(partial(ServiceClosed, name_of(key))))
            for party in desk.parties:
                self._presences.end(party)

    async def waiting(self) -> list[Waiting]:
        """The calls that wait, each with how long it has."""
        now = time.monotonic()
        calls = [waiting for desk in self._desks.values() for waiting in desk.waiting()]
        return [waiting._replace(since=now - waiting.since) for waiting in calls]

    async def _follow_controller(self) -> None:
        import ray

        # It may have gone already, or die with the process that the cluster belongs to.
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            controller = ray.get_actor("controller", self._namespace)
            await controller.never.options(max_task_retries=-1).remote()
        # Whoever stops a cluster ends this too. Ray tells of a process that ends by itself.
        await asyncio.sleep(END_S)
        os._exit(0)

    def _hear(self, key: str, party: str, told: Sequence[Item]) -> _Heard:
        heard, desk = self._heard.setdefault((key, party), _Heard()), self._desks.get(key)
        for item in told:
            if desk is None:
                break
            if isinstance(item, int):
                desk.acknowledge(Ticket(party, item))
            elif item[0] not in heard.recent:
                number, after, request = item
                heard.recent.append(number)
                if isinstance(request, _Packed):
                    request = unpack(request.payload)
                self._deliver(key, desk.call(Ticket(party, number), after, request, time.monotonic()))
            heard.count += 1
        return heard

    def _leave(self, key: str, party: str, *, died: bool) -> None:
        self._heard.pop((key, party), None)
        self._left.append(party)
        self._presences.end(party)
        if desk := self._desks.get(key):
            self._deliver(key, desk.leave(party, died=died))

    def _deliver(self, key: str, answers: Iterable[Answer]) -> None:
        for answer in answers:
            waiting = self._answers.pop((key, answer.ticket), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
            elif answer.error is not None and (heard := self._heard.get((key, answer.ticket.party))):
                heard.failure = answer.error  # of what was told


class _Packed(NamedTuple):
    payload: Payload


def _is_plain(request: Any, ref_types: tuple[type, ...]) -> bool:
    """Whether a request is made of what can certainly be sent."""
    if isinstance(request, tuple):
        return all(_is_plain(part, ref_types) for part in request)
    return type(request) in _PLAIN or type(request) in ref_types


class _Heard:
    """What has come of a party's, for who wants to know whether something is still on its way.

    Attributes:
        count: of calls and items.
        recent: numbers of those that were told, for some may come twice.
        failure: the last thing that went wrong with one of those.
    """

    def __init__(self) -> None:
        self.count = 0
        self.recent: deque[int] = deque(maxlen=2 * FULL)
        self.failure: Exception | None = None


class RayServices:
    """The services of a cluster, from one client.

    Args:
        namespace: of the cluster in Ray.
        stopped: set when this process has stopped the cluster.
    """

    def __init__(self, namespace: str, stopped: threading.Event) -> None:
        self._namespace = namespace
        self._stopped = stopped
        self._actor_class: Any = None

    def host(self, machine: Machine, name: str | None) -> Service:
        """The service of this name, or a new one; see ``Services``."""
        import ray

        if self._stopped.is_set():
            raise ClusterStopped
        name = name or f"{type(machine).__name__}-{secrets.token_hex(4)}"
        payload = pack(machine, what="the machine")
        self._actor_class = self._actor_class or ray.remote(ServiceHost)
        actor_class = self._actor_class.options(
            name=_NAME,
            namespace=self._namespace,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            scheduling_strategy=head_place(),
            max_concurrency=MAX_CONCURRENCY,
            enable_task_events=False,
        )
        give_up, pause = time.monotonic() + NAME_S, threading.Event()
        while True:
            try:
                host = actor_class.remote(self._namespace)
                return Service(_RayWire(host, name, ray.get(host.host.remote(name, payload))))
            except (ValueError, ray.exceptions.RayActorError):  # the name belongs to one that has just died
                if time.monotonic() > give_up:
                    raise
                pause.wait(LOOK_S)

    def waiting(self) -> list[Waiting]:
        """The calls that wait; see ``Services``."""
        import ray

        if self._stopped.is_set():
            raise ClusterStopped
        try:
            host: Any = ray.get_actor(_NAME, self._namespace)
            calls: list[Waiting] = ray.get(host.waiting.remote(), timeout=ANSWER_S)
        except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            # Nobody has needed a host, or it has died, or is being started.
            return []
        return calls


class _RayWire:
    """A way to a service on Ray; see ``Wire``."""

    def __init__(self, host: Any, name: str, key: str) -> None:
        import ray

        self.name = name
        self._key = key
        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)
        self._host = host
        self._party = ""
        self._outbox: Outbox | None = None

    def party(self) -> str:
        if not self._party:
            self._check()
            party = f"{_who()}/{secrets.token_hex(6)}"
            self._host.stand_by.remote(self._key, party, [self._host.presence.remote(party)])
            self._outbox = Outbox(partial(_post, self._host, self._key, party), partial(_settle, self.name))
            atexit.register(self._outbox.close, wait=True)
            self._party = party
        return self._party

    def submit(self, ticket: Ticket, after: int, request: Any) -> Any:
        self._check()
        assert self._outbox is not None, "a ticket bears the name of its party"
        return self._outbox.along(lambda told: self._host.call.remote(self._key, *ticket, after, request, told))

    def tell(self, ticket: Ticket, after: int, request: Any) -> None:
        self._check()
        assert self._outbox is not None, "a ticket bears the name of its party"
        if not _is_plain(request, self.ref_types):  # what cannot be sent is to be known before anything else is told
            request = _Packed(pack(request, what="what is told", ref_types=self.ref_types))
        self._outbox.add((ticket.number, after, request))

    def flush(self) -> None:
        if self._outbox is None:
            return
        self._check()
        self._outbox.post()
        failure = _settle(self.name, self._host.flush.remote(self._key, self._party, (), self._outbox.sent))
        if failure is not None:
            raise failure

    def is_answered(self, handle: Any) -> bool:
        import ray

        self._check()
        return bool(ray.wait([handle], timeout=0)[0])

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        import ray

        self._check()
        try:
            answer: Answer = ray.get(handle, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(f"the service {self.name!r} has not answered in {timeout_s:g} s") from None
        except ray.exceptions.RayActorError:
            raise ServiceClosed(self.name) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # without some ten frames of Ray's
        except Exception as error:
            if ray.is_initialized():
                raise
            raise ServiceClosed(self.name) from error  # Ray went meanwhile, and has many words for that
        return answer

    def acknowledge(self, ticket: Ticket) -> None:
        assert self._outbox is not None, "a ticket bears the name of its party"
        self._outbox.add(ticket.number)

    def withdraw(self, ticket: Ticket) -> None:
        self._say("withdraw", *ticket)

    def keep(self, payload: Payload) -> Any:
        return RayStore().put(payload)

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayActorError):  # it is gone already
                ray.get(self._host.close.remote(self._key))

    def _say(self, method: str, *args: Any) -> None:
        if sys.is_finalizing():
            return
        import ray

        if ray.is_initialized():
            getattr(self._host, method).remote(self._key, *args)

    def _check(self) -> None:
        import ray

        if not ray.is_initialized():  # a call would make Ray start another cluster
            raise ServiceClosed(self.name)

    def __del__(self) -> None:
        if self._outbox is not None:
            atexit.unregister(self._outbox.close)
            self._outbox.close()
            self._say("leave", self._party, (), self._outbox.sent)

    def __reduce__(self) -> Any:
        return _RayWire, (self._host, self.name, self._key)


def _post(host: Any, name: str, party: str, told: list[Item]) -> Any:
    if sys.is_finalizing():
        return None
    import ray

    return host.post.remote(name, party, told) if ray.is_initialized() else None


def _settle(name: str, posted: Any) -> Any:
    import ray

    if posted is None or not ray.is_initialized():
        return None
    try:
        return ray.get(posted, timeout=SETTLE_S)
    except ray.exceptions.GetTimeoutError:
        raise TimeoutError(f"the service {name!r} has not taken in {SETTLE_S:g} s what it was told") from None
    except ray.exceptions.RayActorError:
        raise ServiceClosed(name) from None


def _who() -> str:
    """What people know this process by."""
    import ray

    context = ray.get_runtime_context()
    name = context.get_actor_name() if context.get_actor_id() else ""
    if name and name.startswith("engine-"):
        return f"engine {name.removeprefix('engine-').partition('.')[0]}"
    return getpass.getuser()
