"""The scripts of the command line that RL Zoo does not have."""

import argparse
import json

from sb3_pg_ext import testing
from sb3_pg_ext.checkpoints import ModelReport, inspect_model
from sb3_pg_ext.checkpoints import convert as convert_file
from sb3_pg_ext.checkpoints.safety.pickles import printable
from sb3_pg_ext.plugins import Registry, registry
from sb3_pg_ext.testing.checking import find_specs

COLUMNS = ("kind", "name", "package", "version")


def plugins() -> None:
    """List everything registered and what failed to load, as a table or, with ``--json``, for programs."""
    parser = argparse.ArgumentParser(description="List what plug-ins provide, and which of them failed to load.")
    parser.add_argument("--json", action="store_true", help="write JSON for programs instead of a table")
    as_json = parser.parse_args().json
    try:
        listing = _describe(registry())
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(listing, indent=2) if as_json else _format(listing))


def check() -> None:
    """Check an estimator, a baseline or an algorithm; exit with status 1 if it fails."""
    parser = argparse.ArgumentParser(
        description="Check that an estimator, a baseline or an algorithm keeps its contract."
    )
    parser.add_argument("name", metavar="NAME", help="the name under which a plug-in provides it")
    name = parser.parse_args().name
    try:
        find_specs(name)
    except ValueError as error:  # the user's; any other comes from what is checked
        parser.error(str(error))
    try:
        testing.check(name)
    except AssertionError as error:
        raise SystemExit(f"{name} fails:\n{error}") from None
    print(f"{name} passes all checks")


def _add_trusted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trusted", action="append", default=[], metavar="CLASS", help="a class that it may refer to; may be repeated"
    )


def inspect() -> None:
    """Say what a model's file holds; exit with status 1 unless it is safe."""
    parser = argparse.ArgumentParser(
        description="Say what a model's file holds and whether it is safe to load, without running any of it."
    )
    parser.add_argument("file", metavar="FILE", help="a model of SB3, sb3-contrib or this package")
    _add_trusted(parser)
    parser.add_argument("--json", action="store_true", help="write JSON for programs")
    options = parser.parse_args()
    try:
        report = inspect_model(options.file, options.trusted)
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        parser.error(str(error))
    print(json.dumps(report.as_dict(), indent=2, allow_nan=False) if options.json else _format_report(report))
    if report.verdict != "safe":
        raise SystemExit(1)


def _format_report(report: ModelReport) -> str:
    rows = [
        ("verdict", report.verdict),
        ("algorithm", " or ".join(report.algorithms) or "unknown"),
        ("SB3", report.sb3_version or "unknown"),
        ("observations", report.observation_space),
        ("actions", report.action_space),
        ("parameters", f"{report.n_parameters}"),
        *((f"trust {printable(name)}", "--trusted, if you know it") for name in report.trusted),
        *((f"refused {printable(key)}", reason) for key, reason in report.reasons.items()),
        *((f"  {printable(key)}", value) for key, value in sorted(report.hyperparameters.items())),
        *((f"imports of {printable(key)}", ", ".join(names)) for key, names in sorted(report.imports.items())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in rows)


def convert() -> None:
    """Convert a file to one without pickles, or back."""
    parser = argparse.ArgumentParser(
        description="Convert a model (.zip), statistics of VecNormalize or a replay buffer (.pkl) to a file without "
        "pickles (.zip, .npz), or back, without running any of it."
    )
    parser.add_argument("source", metavar="FILE")
    parser.add_argument("target", metavar="TARGET")
    _add_trusted(parser)
    options = parser.parse_args()
    try:
        convert_file(options.source, options.target, options.trusted)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _describe(plugins: Registry) -> dict[str, list[dict[str, str]]]:
    registered = [
        (entry.spec.kind, entry.spec.name, entry.provider.package, entry.provider.version) for entry in plugins.entries
    ]
    return {
        "registered": [dict(zip(COLUMNS, row, strict=True)) for row in sorted(registered)],
        "failed": [{**vars(failure.provider), "reason": failure.reason} for failure in plugins.failures],
        "skipped": [dict(vars(provider)) for provider in plugins.skipped],
    }


def _format(listing: dict[str, list[dict[str, str]]]) -> str:
    rows = [COLUMNS, *(tuple(row.values()) for row in listing["registered"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for failure in listing["failed"]:
        lines.append("\nfailed to load: {plugin} of {package} {version}\n  {reason}".format(**failure))
    for provider in listing["skipped"]:
        lines.append(
            "\nnot loaded, as SB3_PG_EXT_LOAD_PLUGINS says: {plugin} of {package} {version}".format(**provider)
        )
    return "\n".join(lines)
