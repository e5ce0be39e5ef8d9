"""What the numbers say, in words."""

import math
from collections import Counter
from collections.abc import Sequence

from sb3_pg_ext.evaluation.report.analysis import ALL, Analysis, Comparison, compare
from sb3_pg_ext.evaluation.report.runs import Run, differing_keys
from sb3_pg_ext.evaluation.statistics import Interval, holm

ENOUGH_RUNS = 10
SIGNIFICANT = 0.05


def number(value: float) -> str:
    """A number with four significant digits, as people write it."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    digits = 3 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    text = f"{rounded:,.{max(digits, 0)}f}" if 1e-4 <= abs(value) < 1e9 else f"{value:.3e}"
    if "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace(",", "\u202f").replace("-", "−")


def interval(value: Interval, unbounded: str = "no interval") -> str:
    """An estimate with its interval."""
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return f"{number(value.estimate)} ({unbounded})"
    return f"{number(value.estimate)} ({number(value.low)} to {number(value.high)})"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def warnings(analysis: Analysis) -> list[str]:
    """Why the numbers might say less than they seem to."""
    found = []
    for (label, env), runs in analysis.groups.items():
        finished = [run for run in runs if run.is_finished]
        lost = Counter(run.status for run in runs if not run.is_finished)
        if lost:
            kinds = listed([f"{count} {status}" for status, count in sorted(lost.items())])
            found.append(
                f"{label} on {env}: {kinds} of {len(runs)} runs. They have no score, so the numbers are those of the "
                "runs that came through, which may be the lucky ones."
            )
        steps = [run.n_timesteps or run.last_step for run in finished]
        if steps and min(steps) < 0.95 * max(steps):
            found.append(
                f"{label} on {env}: runs of different length, {number(min(steps))} to {number(max(steps))} steps."
            )
    found += _about_environments(analysis)
    return found + _about_seeds(analysis)


def _about_seeds(analysis: Analysis) -> list[str]:
    sizes = {key: sum(run.is_finished for run in runs) for key, runs in analysis.groups.items()}
    sizes = {key: size for key, size in sizes.items() if size}
    found = []
    alone = [f"{label} on {env}" for (label, env), size in sizes.items() if size == 1]
    if alone:
        found.append(
            f"One run only: {listed(alone)}. One seed tells nothing about other seeds: there is no interval, and no "
            "comparison can be made."
        )
    if sizes and min(sizes.values()) < ENOUGH_RUNS:
        fewest = min(sizes.values())
        found.append(
            f"Few seeds: some groups have {fewest} {'run' if fewest == 1 else 'runs'}, fewer than {ENOUGH_RUNS}. Where "
            "a fifth of all runs fails, the 95 % interval of a mean of 5 runs covers the truth in 70 % of studies only "
            "(10 runs: 89 %), since the failures are often not among the five. With 3 runs against 3 no difference is "
            "significant at 5 %, however large it is."
        )
    return found


def _about_environments(analysis: Analysis) -> list[str]:
    found = []
    for env in analysis.envs:
        finished = [run for label in analysis.labels for run in analysis.finished(label, env)]
        if finished and not analysis.has_evaluations(env):
            some = any(len(run.final) for run in finished)
            found.append(
                f"{env}: scores are mean returns of the episodes in the last tenth of the training, with its "
                f"exploration, since {'not all' if some else 'none'} of the runs were evaluated at their end."
            )
        lengths = {
            label: max((run.n_timesteps or run.last_step for run in analysis.finished(label, env)), default=0)
            for label in analysis.labels
        }
        lengths = {label: length for label, length in lengths.items() if length}
        if lengths and min(lengths.values()) < 0.95 * max(lengths.values()):
            shortest, longest = min(lengths, key=lambda x: lengths[x]), max(lengths, key=lambda x: lengths[x])
            found.append(
                f"{env}: {longest} was trained for {number(lengths[longest])} steps, {shortest} for "
                f"{number(lengths[shortest])}: their scores are not of the same effort."
            )
    versions = [run.versions for runs in analysis.groups.values() for run in runs if run.versions]
    if keys := differing_keys(versions):
        found.append(f"The runs were made with different versions of {listed(keys)}; they stand under “Settings”.")
    return found


def comparison(analysis: Analysis, a: str, b: str) -> tuple[str, list[str], list[Comparison]]:
    """Is A better than B, by how much, how sure?

    :return: the answer, what it rests on, and the comparisons themselves, that of all environments first
    """
    single = [c for env in analysis.envs if (c := compare(analysis, a, b, env)) is not None]
    overall = compare(analysis, a, b, ALL) if len(single) > 1 else None
    if not single:
        return f"{a} and {b} have no environment with finished runs in common.", [], []
    adjusted = holm([c.p_value for c in single])
    if overall is None:
        if len(single) == 1:
            return _verdict(single[0], a, b, f"on {single[0].env}"), _details(single[0], a, b), single
        return "Environment by environment:", _by_environment(single, adjusted, a, b), single
    better, worse = (
        [c.env for c, p in zip(single, adjusted, strict=True) if p < SIGNIFICANT and sign * c.difference.estimate > 0]
        for sign in (1, -1)
    )
    place = f"on average over {len(analysis.common()[0])} environments"
    answer = _verdict(overall, a, b, place)
    if better and worse:
        answer = f"It depends: {a} is better on {listed(better)}, {b} on {listed(worse)}. On the whole: {answer}"
    scale = (
        "Scores are put on one scale for the average: 0 is the lowest score of a run on an environment, 1 the highest "
        "(unless given by --reference)."
    )
    return answer, [*_details(overall, a, b), scale, *_by_environment(single, adjusted, a, b)], [overall, *single]


def _by_environment(single: list[Comparison], adjusted: list[float], a: str, b: str) -> list[str]:
    lines = []
    for c, p in zip(single, adjusted, strict=True):
        first, second = (a, b) if c.difference.estimate >= 0 else (b, a)
        sure = f"{first} is better than {second}" if p < SIGNIFICANT else "no difference is shown"
        adjusting = f", {number(p)} when adjusted for {len(single)} environments" if len(single) > 1 else ""
        lines.append(
            f"{c.env}: {sure}; {number(c.means[0])} against {number(c.means[1])}, difference "
            f"{interval(c.difference)}, p = {number(c.p_value)}{adjusting}."
        )
    return lines


def _verdict(c: Comparison, a: str, b: str, place: str) -> str:
    means = f"{number(c.means[0])} against {number(c.means[1])}"
    by = f"by {number(abs(c.difference.estimate))}"
    if c.difference.estimate == 0 and c.p_value == 1:
        return f"No difference {place}: {means}."
    if min(c.n_runs) < 2:
        return f"Cannot be said: {means} {place}, but one seed alone tells nothing about other seeds."
    if c.smallest_p >= SIGNIFICANT:
        return (
            f"Not shown: {means} {place}. With {c.n_runs[0]} against {c.n_runs[1]} runs no difference, however large, "
            "is significant at 5 %: four runs each are the least."
        )
    if c.p_value >= SIGNIFICANT:
        needed = (
            f" To show a difference of this size, some {c.needed} runs of each would be needed."
            if c.needed is not None and c.needed > max(c.n_runs)
            else ""
        )
        return f"Not shown: {means} {place}, but seeds differ too much for that (p = {number(c.p_value)}).{needed}"
    if c.difference.estimate > 0:
        return f"Yes: {a} is better than {b} {place}, {by} ({means}; p = {number(c.p_value)})."
    return f"No, the other way round: {b} is better than {a} {place}, {by} ({means}; p = {number(c.p_value)})."


def _details(c: Comparison, a: str, b: str) -> list[str]:
    lines = [
        f"By how much: the difference of the means, {a} minus {b}, is {interval(c.difference)}.",
        f"How often: a run of {a} scores higher than one of {b} with probability {interval(c.probability)}.",
        f"How sure: if both were equal, a difference as large as this would come about by chance in "
        f"{number(100 * c.p_value)} % of such studies (permutation test of Welch’s t, {c.n_runs[0]} against "
        f"{c.n_runs[1]} runs).",
    ]
    return lines if min(c.n_runs) > 1 else []


def difference_of_settings(runs: Sequence[Run]) -> list[str]:
    """The hyper-parameters in which some runs differ."""
    return differing_keys([run.hyperparameters for run in runs])
