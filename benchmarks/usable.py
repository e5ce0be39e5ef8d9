"""What an algorithm can be used with, in a table, from what the conformance tests know and its signatures.

    python benchmarks/usable.py npg

``benchmarks/tables.py`` puts these tables into the pages of the algorithms.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS = [str(ROOT / "tests"), str(ROOT / "tests" / "conformance")]

ACTIONS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")


def table(*names: str) -> str:
    """A column for every algorithm.

    :param names: Zoo ids
    """
    sys.path[:0] = [path for path in TESTS if path not in sys.path]
    from algorithms import find

    columns = [facts(find(name)) for name in names]
    titles = [find(name).cls.__name__ for name in names]
    lines = ["| can I use | " + " | ".join(titles) + " |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| {row} | " + " | ".join(column[row] for column in columns) + " |" for row in columns[0]]
    return "\n".join(lines)


def facts(algorithm: Any) -> dict[str, str]:
    """What holds for an algorithm, row by row.

    :param algorithm: of the tests' ``algorithms.py``
    """
    cls, traits, takes = algorithm.cls, algorithm.traits, algorithm.parameters
    learn = inspect.signature(cls.learn).parameters
    answers = {f"{action} actions": action in traits.action_spaces for action in ACTIONS} | {
        "vectors, images, Discrete observations": {"MlpPolicy", "CnnPolicy"} <= traits.policies,
        "Dict observations": "MultiInputPolicy" in traits.policies,
        "action masks": "use_masking" in learn,
        "gSDE": traits.supports_sde,
        "a replay buffer": algorithm.spec.off_policy,
        "several environments": True,
        "several processes of its own": traits.asynchronous,
        "a cluster, by Ray": traits.asynchronous and "backend" in takes,
        "a GPU": not (traits.asynchronous and "n_workers" in takes),
    }
    return {row: "yes" if answer else "no" for row, answer in answers.items()}


if __name__ == "__main__":
    print(table(*sys.argv[1:]))
