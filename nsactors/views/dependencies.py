"""What tasks may depend on, as people say it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nsactors.core import scheduling
from nsactors.errors import InvalidDependency
from nsactors.results import AsyncResult

__all__ = ["Dependency", "dependency_of"]


class Dependency(set[str]):
    """Tasks that another one depends on, and which of their ends count.

    Args:
        dependencies: results, message ids, or one of these.
        all: whether each of them must end in a way that counts, or any one.
        success: whether a success counts.
        failure: whether a failure counts; to be aborted is one.

    Raises:
        InvalidDependency: for anything else.
        ValueError: if nothing counts.

    Example:
        >>> with lview.temp_flags(after=Dependency([first, second], all=False)):
        ...     third = lview.apply_async(f)
    """

    def __init__(
        self,
        dependencies: Iterable[str | AsyncResult] | str | AsyncResult = (),
        all: bool = True,
        success: bool = True,
        failure: bool = False,
    ) -> None:
        if not (success or failure):
            raise ValueError("a dependency counts successes, failures or both: it can never be met otherwise")
        single = isinstance(dependencies, str | AsyncResult)
        parts: list[Any] = [dependencies] if single else _listed(dependencies)
        super().__init__(msg_id for part in parts for msg_id in _msg_ids(part))
        self.all = all
        self.success = success
        self.failure = failure
        self.results = [part for part in parts if isinstance(part, AsyncResult)]  # while held, they are not forgotten

    def for_scheduler(self, client: str) -> scheduling.Dependency | None:
        """The same by the numbers that tasks have in a client's scheduler; None if it is empty.

        Raises:
            InvalidDependency: if one of them is no task of that client.
        """
        if not self:
            return None
        numbers = frozenset(_number(msg_id, client) for msg_id in self)
        return scheduling.Dependency(numbers, self.all, self.success, self.failure)


def dependency_of(given: Any) -> Dependency | None:
    """A dependency from the forms that flags take: a dependency, a result, a message id, several of these, None.

    Raises:
        InvalidDependency: for anything else.
    """
    return given if given is None or isinstance(given, Dependency) else Dependency(given)


def _listed(dependencies: Any) -> list[Any]:
    try:
        return list(dependencies)
    except TypeError:
        raise InvalidDependency(repr(dependencies)) from None


def _msg_ids(part: Any) -> list[str]:
    if isinstance(part, AsyncResult):
        return part.msg_ids
    if isinstance(part, str):
        return [part]
    raise InvalidDependency(repr(part))


def _number(msg_id: str, client: str) -> int:
    owner, _, number = msg_id.rpartition(":")
    if owner != client or not number.isdigit():
        raise InvalidDependency(repr(msg_id))
    return int(number)
