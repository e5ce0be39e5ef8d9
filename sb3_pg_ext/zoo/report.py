"""``sb3-pg report``: one page about many runs."""

import argparse

from sb3_pg_ext.evaluation.report import Report, write_report


def report() -> None:
    """Write the page, and say what was asked."""
    parser = _make_parser()
    options = parser.parse_args()
    try:
        made = write_report(
            options.folders,
            options.output,
            compare=tuple(options.compare) if options.compare else None,
            title=options.title,
            confidence=options.confidence,
            references=_references(options.reference),
            thresholds=_thresholds(options.threshold),
        )
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except OSError as error:
        parser.exit(2, f"{parser.prog}: error: {options.output} cannot be written: {error.strerror or error}\n")
    print(_summary(made))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write one HTML page about all runs below some folders: of sb3-pg sweep, of RL Zoo, or of SB3's\n"
        "Monitor. It holds learning curves, scores, profiles, comparisons, settings and failures, and opens from\n"
        "the disk.",
        epilog="an example:\n  sb3-pg report logs -o report.html --compare npg ppo",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="where runs are, at any depth")
    parser.add_argument("-o", "--output", metavar="PAGE.html", default="report.html", help="default: %(default)s")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="is A better than B, by how much, how sure?")
    parser.add_argument("--title", default="", help="of the page; default: the algorithms and environments")
    parser.add_argument("--confidence", type=float, default=0.95, help="of all intervals; default: %(default)s")
    parser.add_argument(
        "--reference",
        nargs=3,
        action="append",
        default=[],
        metavar=("ENV", "LOW", "HIGH"),
        help="scores that are 0 and 1 where environments are put together; default: the lowest and highest of a run",
    )
    parser.add_argument(
        "--threshold",
        nargs=2,
        action="append",
        default=[],
        metavar=("ENV", "RETURN"),
        help="a return to look for in learning curves, in place of the default ones; can be repeated",
    )
    return parser


def _references(given: list[list[str]]) -> dict[str, tuple[float, float]]:
    references = {env: (_number("--reference", low), _number("--reference", high)) for env, low, high in given}
    for env, (low, high) in references.items():
        if not low < high:
            raise ValueError(f"--reference {env} {low:g} {high:g}: the first number has to be the smaller one")
    return references


def _thresholds(given: list[list[str]]) -> dict[str, list[float]]:
    thresholds: dict[str, list[float]] = {}
    for env, value in given:
        thresholds.setdefault(env, []).append(_number("--threshold", value))
    return thresholds


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ValueError(f"{option}: {text!r} is no number")
    return number


def _summary(made: Report) -> str:
    lines = [f"not used: {problem}" for problem in made.problems]
    lines += [f"warning: {warning}" for warning in made.warnings]
    lines += made.answer
    lines.append(f"{made.n_runs} run{'s' * (made.n_runs != 1)} on {made.path}")
    return "\n".join(lines)
