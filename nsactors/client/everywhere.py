"""What a client does on all of its engines at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nsactors.core.targets import Targets
from nsactors.results import AsyncResult

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = ["Everywhere"]


class Everywhere(ABC):
    """A view's operations on all engines, for short. They wait until all are done."""

    @abstractmethod
    def direct_view(self, targets: Targets = "all", **flags: Any) -> DirectView:
        """A view of some engines."""

    def __getitem__(self, key: Any) -> Any:
        """A view of engines; or, for a name, its values on all engines."""
        if isinstance(key, str) and key != "all":
            return self.direct_view("all").pull(key, block=True)
        return self.direct_view(key)

    def __setitem__(self, name: str, value: Any) -> None:
        """Bind a name on all engines."""
        if not isinstance(name, str):
            raise TypeError(f"rc[...] = value binds a name on all engines: give it as text, not {name!r}")
        self.push_all({name: value})

    def push_all(self, names: dict[str, Any]) -> None:
        """Bind names on all engines; returns when it is done."""
        self.direct_view("all").push(names, block=True)

    def pull_all(self, names: str | Sequence[str]) -> list[Any]:
        """The values of a name (or of several) on all engines."""
        values: list[Any] = self.direct_view("all").pull(names, block=True)
        return values

    def scatter_all(self, name: str, seq: Any, **options: Any) -> None:
        """Split ``seq`` over all engines under ``name``; options as for ``DirectView.scatter``."""
        self.direct_view("all").scatter(name, seq, block=True, **options)

    def gather_all(self, name: str, **options: Any) -> Any:
        """Join the parts that all engines hold under ``name``; options as for ``DirectView.gather``."""
        return self.direct_view("all").gather(name, block=True, **options)

    def map_all(self, function: Callable[..., Any], *sequences: Any) -> list[Any]:
        """``list(map(function, *sequences))``, computed by all engines."""
        return self.direct_view("all").map_sync(function, *sequences)

    def execute_all(self, code: str) -> AsyncResult:
        """Run a cell on all engines; returns when it is done."""
        result: AsyncResult = self.direct_view("all").execute(code, silent=False, block=True)
        return result

    def clear(self, targets: Targets = "all", block: bool | None = None) -> Any:
        """Empty the namespaces of engines."""
        return self.direct_view("all").clear(targets=targets, block=block)
