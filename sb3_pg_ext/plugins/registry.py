"""What the loaded plug-ins provide, looked up by kind and name."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from sb3_pg_ext.plugins.records import BaselineSpec, EstimatorSpec, Spec

SpecT = TypeVar("SpecT", bound=Spec)
MadeT = TypeVar("MadeT", EstimatorSpec, BaselineSpec)


@dataclass(frozen=True)
class Provider:
    """Where a plug-in comes from.

    :param plugin: the name of its entry point
    :param package: the distribution that declares the entry point
    :param version: the version of that distribution
    """

    plugin: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"plug-in {self.plugin!r} of {self.package} {self.version}"


@dataclass(frozen=True)
class Entry:
    """A record and the plug-in that provides it."""

    spec: Spec
    provider: Provider


@dataclass(frozen=True)
class Failure:
    """A plug-in that did not load, and why. Nothing of it is registered."""

    provider: Provider
    error: BaseException

    @property
    def reason(self) -> str:
        """The type of the error and its message."""
        try:
            return f"{type(self.error).__name__}: {self.error}"
        except Exception as another:  # from the error's own __str__
            return f"{type(self.error).__name__}, whose message cannot be read ({type(another).__name__})"

    def __str__(self) -> str:
        return f"{self.provider} failed to load ({self.reason})"


@dataclass(frozen=True)
class Registry:
    """Everything that plug-ins provide.

    :param entries: all records with their providers, in the order of loading: this package's own come first
    :param failures: the plug-ins that did not load
    :param skipped: the plug-ins that ``SB3_PG_EXT_LOAD_PLUGINS`` leaves out
    """

    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...] = ()
    skipped: tuple[Provider, ...] = ()

    def names(self, kind: type[Spec]) -> list[str]:
        """All names of one kind, sorted.

        :param kind: the class of the records, such as ``EstimatorSpec``
        """
        return sorted({entry.spec.name for entry in self.entries if isinstance(entry.spec, kind)})

    def find(self, kind: type[SpecT], name: str) -> SpecT:
        """The record of this kind and name.

        :param kind: the class of the record, such as ``EstimatorSpec``
        :param name: the name under which a plug-in provides it
        :raises ValueError: if no plug-in provides the name, or more than one does
        """
        found = [
            (entry.spec, entry.provider)
            for entry in self.entries
            if isinstance(entry.spec, kind) and entry.spec.name == name
        ]
        if not found:
            raise ValueError(self._describe_unknown(kind, name))
        if len(found) > 1:
            providers = " and by ".join(str(provider) for _, provider in found)
            raise ValueError(
                f"The {kind.kind} {name!r} is provided by {providers}: "
                "uninstall all but one of them, or choose one with SB3_PG_EXT_LOAD_PLUGINS"
            )
        return found[0][0]

    def find_by_factory(self, kind: type[MadeT], factory: object) -> MadeT | None:
        """The record of this kind that makes what it stands for with this factory: the first one, or None.

        :param kind: the class of the record, such as ``EstimatorSpec``
        :param factory: the factory; for an instance, its class
        """
        specs = (entry.spec for entry in self.entries)
        return next((spec for spec in specs if isinstance(spec, kind) and spec.factory is factory), None)

    def _describe_unknown(self, kind: type[Spec], name: str) -> str:
        known = self.names(kind)
        close = get_close_matches(str(name), known)
        lines = [
            f"Unknown {kind.kind} {name!r}" + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
        ]
        if issubclass(kind, EstimatorSpec | BaselineSpec):
            lines.append(f"If a saved model names this {kind.kind}, the plug-in that provided it is not installed")
        lines.append(f"Known {kind.kind}s: {', '.join(known) or 'none'}")
        lines += [str(failure) for failure in self.failures]
        lines += [f"{provider} was not loaded: SB3_PG_EXT_LOAD_PLUGINS leaves it out" for provider in self.skipped]
        return "\n".join(lines)
