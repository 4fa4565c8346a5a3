"""Functions of maps: arguments by name, and random numbers for each item.

The stream of item ``i`` is that of ``SeedSequence(seed).spawn(n)[i]``, so a program without engines can repeat it. It
depends on the seed and the number of the item only: no seeds are drawn in advance, so even an endless map has streams.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nsactors._frozen import frozen
from nsactors.errors.exceptions import UnknownOption, WrongValue
from nsactors.protocol.messages import Reference
from nsactors.protocol.serialize import RemoteValue

if TYPE_CHECKING:
    import numpy as np

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class WithKeywords:
    """A function with some arguments by name; it arrives as a ``functools.partial``.

    It is no partial before that, because a :class:`Reference` cannot be called until it has arrived.
    """

    def __init__(self, function: Any, keywords: Mapping[str, Any]) -> None:
        self.function = function
        self.keywords = keywords

    def __reduce__(self) -> Any:
        return _bind, (self.function, dict(self.keywords))


def _bind(function: Callable[..., Any], keywords: dict[str, Any]) -> Callable[..., Any]:
    return functools.partial(function, **keywords)


def takes(function: object, name: str, positions: int, *, named: bool = False) -> bool | None:
    """Return whether a function accepts an argument by name besides the positional ones; None if it is unknown.

    Args:
        function: the function, or a reference to one.
        name: the name of the argument.
        positions: the number of positional arguments.
        named: whether it must have a parameter of this name, so that ``**kwargs`` is not enough.
    """
    try:
        parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a reference, or a function in C without a signature
        return None
    for place, parameter in enumerate(parameters.values()):
        if parameter.name == name and parameter.kind in _BY_NAME:
            return parameter.kind is parameter.KEYWORD_ONLY or place >= positions
    return not named and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def keywords_for(
    options: Callable[..., Any],
    function: object,
    positions: int,
    kwargs: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments that a function gets by name with each item.

    Args:
        options: the map, whose keyword-only parameters are its options.
        function: the function to map.
        positions: the number of its positional arguments.
        kwargs: arguments to pass regardless of its signature.
        keywords: further arguments by name; none of them is an option or in ``kwargs``.

    Raises:
        UnknownOption: for one of ``keywords`` that the function does not accept, or may not accept.
    """
    for name in keywords:
        if takes(function, name, positions) and name not in (kwargs or ()):
            continue
        known = [p.name for p in inspect.signature(options).parameters.values() if p.kind is p.KEYWORD_ONLY]
        raise UnknownOption(name, known, _why_not(function, name, kwargs or ()))
    return {**keywords, **(kwargs or {})}


def _why_not(function: Any, name: str, kwargs: Any) -> str:
    called = getattr(function, "name" if isinstance(function, Reference | RemoteValue) else "__name__", "the function")
    if name in kwargs:
        return f"kwargs= has {name!r} as well: give it once"
    if takes(function, name, 0) is None:
        return f"the arguments of {called} are not known here: kwargs={{{name!r}: ...}} passes any argument to it"
    if takes(function, name, 0):
        return f"{called} gets its {name!r} from a sequence"
    names = ", ".join(repr(p.name) for p in inspect.signature(function).parameters.values() if p.kind in _BY_NAME)
    return f"nor does {called} take it{f', only {names}' if names else ''}"


if TYPE_CHECKING:
    Seed = int | Sequence[int] | np.random.SeedSequence | np.random.Generator | bool


@frozen
class Seeds:
    """The seeds of the items of a map.

    Attributes:
        entropy: the entropy of the map's seed.
        spawn_key: distinguishes the seed from others of the same entropy.
        pool_size: the number of words of entropy that NumPy mixes.
        first: the number of the child of the seed that item 0 gets.
    """

    entropy: int | Sequence[int]
    spawn_key: tuple[int, ...] = ()
    pool_size: int = 4
    first: int = 0

    def of_item(self, index: int) -> np.random.SeedSequence:
        """Return the seed of an item."""
        # The key that SeedSequence.spawn gives to this child; the children before it are not spawned.
        key = (*self.spawn_key, self.first + index)
        seed: np.random.SeedSequence = _numpy_random().SeedSequence(
            self.entropy, spawn_key=key, pool_size=self.pool_size
        )
        return seed

    def as_sequence(self) -> np.random.SeedSequence:
        """Return a seed that gives the same seeds in another map."""
        sequence: np.random.SeedSequence = _numpy_random().SeedSequence(
            self.entropy, spawn_key=self.spawn_key, pool_size=self.pool_size, n_children_spawned=self.first
        )
        return sequence


def seeds_of(call: str, seed: Seed | None) -> Seeds | None:
    """Return the seeds of a map; None without a seed.

    Args:
        call: the public function that got ``seed``.
        seed: an int or several ints, 0 or more. With a ``SeedSequence``, the items get the seeds of its next ``spawn``,
            and it is not changed. A ``Generator`` spawns a seed, so that the next map gets another one. True means a
            new seed.

    Raises:
        WrongValue: if the seed is a generator that cannot spawn.
    """
    from numpy.random import Generator, SeedSequence

    if seed is None or seed is False:
        return None
    if isinstance(seed, Generator):
        source = getattr(seed.bit_generator, "seed_seq", None)
        if not isinstance(source, SeedSequence):
            raise WrongValue(call, "seed", seed, "a generator that was made of a seed, such as default_rng(42)")
        # Spawning advances the generator's own seed, so that its next map gets other numbers.
        (sequence,) = source.spawn(1)
    elif isinstance(seed, SeedSequence):
        sequence = seed
    elif seed is True:
        sequence = SeedSequence()
    else:
        sequence = SeedSequence([int(part) for part in seed] if isinstance(seed, Sequence) else int(seed))
    entropy: Any = sequence.entropy
    return Seeds(entropy, tuple(sequence.spawn_key), sequence.pool_size, sequence.n_children_spawned)


class ItemStream:
    """The random numbers of the running item.

    Args:
        seed: the seed of the item.
    """

    __slots__ = ("_rng", "seed")

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self.seed = seed
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The generator of the item, made at the first use and the same for all code."""
        rng = self._rng
        if rng is None:
            rng = self._rng = _numpy_random().default_rng(self.seed)
        return rng


@lru_cache
def _numpy_random() -> Any:
    """Import NumPy's random module at the first use; an import statement takes 0.3 us each time."""
    import numpy.random

    return numpy.random


ITEM: ContextVar[ItemStream] = ContextVar("ITEM")
"""The stream of the running item of a seeded map."""


def rng() -> np.random.Generator:
    """Return the random generator of the running item, for code deep inside a function of a seeded map.

    It is the generator that the function itself gets for its parameter ``rng``, if it has one.

    Example:
        >>> def noisy(x):
        ...     return x + nsactors.rng().normal()
        >>> lview.map_sync(noisy, range(3), seed=42)

    Raises:
        RuntimeError: outside of such a function, and in threads that it has started.
    """
    item = ITEM.get(None)
    if item is None:
        raise RuntimeError("nsactors.rng() is for functions while they run for an item of view.map(..., seed=42)")
    return item.rng
