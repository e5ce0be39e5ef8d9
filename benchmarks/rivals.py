"""PPO on CartPole-v1 by others, in absolute steps per second, beside stock SB3 and ``fast.PPO`` on the same machine.

    python benchmarks/rivals.py --folder rivals     # a virtual environment for each, in this folder; takes minutes

Rivals: SBX (SB3's PPO in JAX), rejax (PPO and CartPole compiled as a whole by JAX) and rlox (in Rust). Every
measurement is a process of its own, on one core, and the sides take turns. Its first training is not counted: it
compiles.
"""

import argparse
import json
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from runs import spaced

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "rivals.json"
SETTINGS = {"8 × 256 steps, minibatch 64": (8, 256, 64), "64 × 64 steps, minibatch 512": (64, 64, 512)}
REQUIREMENTS = {"sbx": ["sbx-rl"], "rejax": ["rejax", "gymnax<0.1"], "rlox": ["torch", "rlox"]}
TITLES = {
    "stock": "SB3",
    "fast": "`fast.PPO`",
    "fast-array": "`fast.PPO`, not compiled",
    "sbx": "SBX",
    "rejax": "rejax",
    "rlox": "rlox",
}

# What runs in the process of each side: it defines train(), which makes N_STEPS steps, and VERSIONS.
LIKE_SB3 = """
from stable_baselines3.common.env_util import make_vec_env
import stable_baselines3 as sb3
import torch; torch.set_num_threads(1)
{imports}
model = PPO("MlpPolicy", make_vec_env("CartPole-v1", N_ENVS, seed=0), n_steps=N_ROLLOUT, batch_size=BATCH_SIZE,
            n_epochs=10, seed=0, device="cpu"{more})
def train():
    model.learn(N_STEPS, reset_num_timesteps=False)
VERSIONS = {{{versions}}}
"""
PROGRAMS = {
    "stock": LIKE_SB3.format(
        imports="from stable_baselines3 import PPO", more="", versions='"stable_baselines3": sb3.__version__'
    ),
    "fast": LIKE_SB3.format(
        imports="import sb3_pg_ext\nfrom sb3_pg_ext import fast\nPPO = fast.PPO",
        more="",
        versions='"sb3_pg_ext": sb3_pg_ext.__version__, "engine": model.describe_engine()',
    ),
    "fast-array": LIKE_SB3.format(
        imports="import sb3_pg_ext\nfrom sb3_pg_ext import fast\nPPO = fast.PPO",
        more=', engine="array"',
        versions='"sb3_pg_ext": sb3_pg_ext.__version__, "engine": model.describe_engine()',
    ),
    "sbx": LIKE_SB3.format(
        imports="import sbx, jax\nPPO = sbx.PPO",
        more="",
        versions='"sbx": sbx.__version__, "jax": jax.__version__, "stable_baselines3": sb3.__version__',
    ),
    "rejax": """
from importlib.metadata import version
import jax, rejax
ppo = rejax.PPO.create(env="CartPole-v1", num_envs=N_ENVS, num_steps=N_ROLLOUT, num_epochs=10,
                       num_minibatches=N_ENVS * N_ROLLOUT // BATCH_SIZE, total_timesteps=N_STEPS, eval_freq=N_STEPS,
                       skip_initial_evaluation=True, agent_kwargs={"activation": "tanh"})
ppo = ppo.replace(eval_callback=lambda *args: ())
compiled = jax.jit(ppo.train)
def train():
    jax.block_until_ready(compiled(jax.random.PRNGKey(0)))
VERSIONS = {name: version(name) for name in ("rejax", "gymnax", "jax")}
""",
    "rlox": """
from importlib.metadata import version
import torch; torch.set_num_threads(1)
from rlox.algorithms.ppo import PPO
def train():
    PPO("CartPole-v1", n_envs=N_ENVS, seed=0, n_steps=N_ROLLOUT, n_epochs=10, batch_size=BATCH_SIZE).train(N_STEPS)
VERSIONS = {name: version(name) for name in ("rlox", "torch")}
""",
}
ONE_CORE = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
"""
MEASURE = """
import json, time
train()
start = time.perf_counter()
train()
print(json.dumps({"steps_per_second": N_STEPS / (time.perf_counter() - start), "versions": VERSIONS}))
"""


def python_of(name: str, folder: Path) -> str:
    """The Python of a side, whose environment is made where it is missing."""
    if name not in REQUIREMENTS:
        return sys.executable
    home = folder / name
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        # torch of the build that this machine has; JAX's own dependencies are newer than the constraints.
        constraint = ["--constraint", str(ROOT / "constraints.txt")] if name != "rejax" else []
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraint, *REQUIREMENTS[name]], check=True)
        (home / "ready").touch()
    return str(python)


def measure(name: str, setting: str, n_rollouts: int, folder: Path) -> dict[str, Any]:
    """Steps per second of one side, in a process of its own."""
    n_envs, n_steps, batch_size = SETTINGS[setting]
    sizes = (
        f"N_ENVS, N_ROLLOUT, BATCH_SIZE, N_STEPS = {n_envs}, {n_steps}, {batch_size}, {n_envs * n_steps * n_rollouts}"
    )
    code = "\n".join([ONE_CORE, sizes, PROGRAMS[name], MEASURE])
    process = subprocess.run([python_of(name, folder), "-c", code], capture_output=True, text=True, cwd=ROOT)
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{process.stderr[-2000:]}")
    return {"side": name, "setting": setting, **json.loads(process.stdout.splitlines()[-1])}


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: medians, in brackets the smallest and the largest; then the median of the ratios to SB3."""
    lines = [
        "| steps/s: median, smallest and largest, ratio to SB3 | " + " | ".join(SETTINGS) + " |",
        "|---" * (1 + len(SETTINGS)) + "|",
    ]
    for name, title in TITLES.items():
        cells = []
        for setting in SETTINGS:
            found, stock = (
                [r["steps_per_second"] for r in results if (r["side"], r["setting"]) == (side, setting)]
                for side in (name, "stock")
            )
            cell = f"{spaced(statistics.median(found))} ({spaced(min(found))}–{spaced(max(found))})" if found else ""
            if found and stock and name != "stock":
                cell += f", {statistics.median(a / b for a, b in zip(found, stock, strict=True)):.1f}"
            cells.append(cell)
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Take turns, write what was measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("rivals"), help="where their environments are made")
    parser.add_argument("--sides", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), help="some of them")
    parser.add_argument("--repetitions", type=int, default=3, help="processes for each side (default: 3)")
    parser.add_argument("--rollouts", type=int, default=5, help="rollouts of a training (default: 5)")
    parser.add_argument("--install", action="store_true", help="make the environments, and nothing else")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go, as JSON")
    options = parser.parse_args()
    for name in options.sides:
        python_of(name, options.folder.absolute())
    if options.install:
        return
    results = []
    for _ in range(options.repetitions):
        for setting in SETTINGS:
            for name in options.sides:
                results.append(measure(name, setting, options.rollouts, options.folder.absolute()))
                print(f"{name}, {setting}: {results[-1]['steps_per_second']:.0f}", file=sys.stderr, flush=True)
    options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
