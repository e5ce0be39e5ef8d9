"""Load plug-ins through their entry points, each on its own, so that a broken one harms nothing else."""

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from sb3_pg_ext.plugins import hooks
from sb3_pg_ext.plugins.hooks import PROJECT, RECORD_OF_HOOK
from sb3_pg_ext.plugins.records import Spec
from sb3_pg_ext.plugins.registry import Entry, Failure, Provider, Registry
from sb3_pg_ext.version import __version__

STRICT = "SB3_PG_EXT_STRICT"
ALLOW_LIST = "SB3_PG_EXT_LOAD_PLUGINS"

_is_loading = ContextVar("is_loading", default=False)


@cache
def registry() -> Registry:
    """The registry of everything installed. The first call loads the plug-ins, every later one returns the same."""
    return load_registry()


def load_registry() -> Registry:
    """Load all plug-ins anew, as the environment variables say.

    ``SB3_PG_EXT_LOAD_PLUGINS=a,b`` loads only the named plug-ins (names of entry points or of packages), and this
    package's own. A plug-in that fails is left out as a whole, recorded, and warned about; with
    ``SB3_PG_EXT_STRICT=1`` its error is raised instead.

    :raises RuntimeError: if a plug-in fails and ``SB3_PG_EXT_STRICT`` is 1
    :raises ValueError: if an environment variable has a value that is not allowed
    """
    if _is_loading.get():
        raise RuntimeError("what is registered is not known while plug-ins are loaded; allowed: to ask for it later")
    token = _is_loading.set(True)
    try:
        return _load()
    finally:
        _is_loading.reset(token)


def _load() -> Registry:
    strict, allowed = _read_strict(), _read_allow_list()
    entries: list[Entry] = []
    failures: list[Failure] = []
    skipped: list[Provider] = []
    built_in: set[tuple[str, str]] = set()
    for entry_point, provider in _find_plugins():
        own = _is_own(provider.package)
        if not own and allowed is not None and allowed.isdisjoint({provider.plugin, _canonical(provider.package)}):
            skipped.append(provider)
            continue
        try:
            specs = _collect_specs(entry_point.load())
            _refuse_duplicates(specs, built_in)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, too: a script that runs on import must not end the program
            failures.append(_report(Failure(provider, error), strict))
            continue
        entries += [Entry(spec, provider) for spec in specs]
        if own:
            built_in.update((spec.kind, spec.name) for spec in specs)
    return Registry(tuple(entries), tuple(failures), tuple(skipped))


def _find_plugins() -> Iterator[tuple[EntryPoint, Provider]]:
    """All entry points of the group with their providers: this package's own first, then by package and name."""
    installed = []
    for entry_point in entry_points(group=PROJECT):
        dist = entry_point.dist
        assert dist is not None  # importlib.metadata sets it for everything that it finds
        # What an interrupted uninstall leaves may lack both.
        provider = Provider(entry_point.name, dist.name or "an unnamed package", dist.version or "without a version")
        installed.append((entry_point, provider))
    if not any(_is_own(provider.package) for _, provider in installed):
        installed += [(entry, Provider(entry.name, PROJECT, __version__)) for entry in _read_checkout()]
    yield from sorted(installed, key=lambda found: (not _is_own(found[1].package), found[1].package, found[1].plugin))


def _read_checkout() -> Iterator[EntryPoint]:
    """This package's own entry points as setup.cfg declares them, for a checkout that is not installed."""
    config = ConfigParser()
    config.read_string((Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8"))
    for line in config["options.entry_points"][PROJECT].strip().splitlines():
        name, value = line.split("=")
        yield EntryPoint(name.strip(), value.strip(), PROJECT)


def _collect_specs(plugin: Any) -> list[Spec]:
    """All records of one plug-in. It gets a plug-in manager of its own, so that it cannot interfere with others."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(plugin)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise TypeError(f"it implements none of the hooks {', '.join(RECORD_OF_HOOK)}: is @hookimpl missing?")
    specs: list[Spec] = []
    for hook, record in RECORD_OF_HOOK.items():
        caller = getattr(manager.hook, hook)
        if len(found := caller()) < len(caller.get_hookimpls()):
            raise TypeError(f"{hook} returned None; allowed: an iterable of {record.__name__}")
        for yielded in found:
            if not isinstance(yielded, Iterable):
                raise TypeError(
                    f"{hook} returned {yielded!r}; allowed: an iterable of {record.__name__}: yield it instead of "
                    "returning it"
                )
            for spec in yielded:
                if not isinstance(spec, record):
                    raise TypeError(f"{hook} yielded {spec!r}; allowed: {record.__name__}")
                specs.append(spec)
    return specs


def _refuse_duplicates(specs: list[Spec], built_in: set[tuple[str, str]]) -> None:
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        if (spec.kind, spec.name) in built_in:
            raise ValueError(f"it claims the {spec.kind} {spec.name!r}, which is built in")
        if (spec.kind, spec.name) in seen:
            raise ValueError(f"it provides the {spec.kind} {spec.name!r} twice")
        seen.add((spec.kind, spec.name))


def _report(failure: Failure, strict: bool) -> Failure:
    if strict:
        raise RuntimeError(str(failure)) from failure.error
    warnings.warn(f"{failure}; everything else works. {STRICT}=1 shows the whole error", stacklevel=2)
    return failure


def _read_strict() -> bool:
    value = os.environ.get(STRICT, "0")
    if value not in ("", "0", "1"):
        raise ValueError(f"{STRICT}={value!r}; allowed: 1 (raise when a plug-in fails) and 0 (warn)")
    return value == "1"


def _read_allow_list() -> set[str] | None:
    value = os.environ.get(ALLOW_LIST)
    if value is None:
        return None
    names = {name.strip() for name in value.split(",")}
    return names | {_canonical(name) for name in names}


def _is_own(package: str) -> bool:
    return _canonical(package) == _canonical(PROJECT)


def _canonical(package: str) -> str:
    """The one spelling of a package's name: ``My_Plugin`` and ``my-plugin`` are the same package."""
    return re.sub(r"[-_.]+", "-", package).lower()
