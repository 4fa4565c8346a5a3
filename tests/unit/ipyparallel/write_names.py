"""Write the public names of ipyparallel and their signatures to ``names.json``; run where it is installed."""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import pkgutil
from typing import Any

MODULES = (
    "ipyparallel",
    "ipyparallel.client.asyncresult",
    "ipyparallel.client.client",
    "ipyparallel.client.magics",
    "ipyparallel.client.map",
    "ipyparallel.client.remotefunction",
    "ipyparallel.client.view",
    "ipyparallel.cluster",
    "ipyparallel.cluster.app",
    "ipyparallel.cluster.cluster",
    "ipyparallel.cluster.launcher",
    "ipyparallel.controller.app",
    "ipyparallel.controller.dependency",
    "ipyparallel.controller.hub",
    "ipyparallel.engine.app",
    "ipyparallel.engine.datapub",
    "ipyparallel.datapub",
    "ipyparallel.error",
    "ipyparallel.joblib",
    "ipyparallel.serialize",
    "ipyparallel.util",
)

# Of what is not provided at all, the names are enough.
NAMES_ONLY = {
    "ipyparallel.cluster.app",
    "ipyparallel.cluster.launcher",
    "ipyparallel.controller.app",
    "ipyparallel.controller.hub",
    "ipyparallel.engine.app",
    "ipyparallel.engine.datapub",
}


def parameters_of(function: Any) -> list[list[Any]] | None:
    """Name, kind and whether it may be left out, of each parameter; None for what cannot be called."""
    own = inspect.isclass(function) and inspect.isfunction(function.__init__)
    if not callable(function) or (inspect.isclass(function) and not own):
        return None
    try:
        # Not of the class: that of a class with traits is another one's.
        found = inspect.signature(function.__init__ if inspect.isclass(function) else function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[p.name, p.kind.name, p.default is not p.empty] for p in found]


def names_of(module: Any) -> dict[str, Any]:
    """The public names of a module, and of the classes that it defines."""
    found: dict[str, Any] = {}
    for name, value in sorted(vars(module).items()):
        home = getattr(value, "__module__", "") or ""
        listed = name in getattr(module, "__all__", ())
        belongs = home == module.__name__ or (module.__name__.count(".") == 0 and home.startswith("ipyparallel"))
        if name.startswith("_") or inspect.ismodule(value) or not (belongs or listed):
            continue
        found[name] = {"parameters": parameters_of(value)}
        if inspect.isclass(value) and home == module.__name__ and module.__name__ not in NAMES_ONLY:
            found[name]["members"] = members_of(value)
    return found


def members_of(kind: type) -> dict[str, Any]:
    """The public names that a class or its bases in ipyparallel define."""
    names = {
        name
        for base in kind.__mro__
        if base.__module__.startswith("ipyparallel")
        for name in vars(base)
        if not name.startswith("_")
    }
    return {name: parameters_of(getattr(kind, name, None)) for name in sorted(names)}


def _rows(found: dict[str, Any]) -> str:
    """A line for each name."""
    return ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())


if __name__ == "__main__":
    names = {module: names_of(importlib.import_module(module)) for module in MODULES}
    # It is enough if other modules exist.
    package = importlib.import_module("ipyparallel")
    found = {each.name for each in pkgutil.walk_packages(package.__path__, "ipyparallel.")}
    names |= {module: {} for module in sorted(found) if module not in names and ".tests" not in module}
    path = pathlib.Path(__file__).with_name("names.json")
    rows = (f"{json.dumps(module)}: {{\n{_rows(found)}\n}}" for module, found in names.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
