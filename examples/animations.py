"""Train agents with the shipped configurations and animate an episode of each, for the page of results.

    python examples/animations.py                        # all of them: a quarter of an hour
    python examples/animations.py npg:CartPole-v1        # one

Each is trained by ``sb3-pg train``, greedy episodes from fixed seeds are played by ``sb3-pg evaluate``, and the one
with the median return becomes ``docs/images/agents/<algo>_<env>.webp``. MuJoCo's are drawn without a display.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageSequence

IMAGES = Path(__file__).parents[1] / "docs" / "images" / "agents"
AGENTS = {
    "npg:CartPole-v1": 50_000,
    "acktr:Acrobot-v1": 200_000,
    "naf:Pendulum-v1": 10_000,
    "acktr:LunarLander-v3": 1_000_000,
    "acktr:HalfCheetah-v4": 500_000,
    "ppo_kl:Hopper-v4": 1_000_000,
}
"""Algorithm and environment, and steps of training."""
WIDTH = 240
MAX_SECONDS = 8
MAX_BYTES = 350_000
FRAMES_PER_SECOND = 15
N_EPISODES = 11


def sb3_pg(*words: str) -> str:
    """What a command of ``sb3-pg`` prints."""
    command = [sys.executable, "-m", "sb3_pg_ext.zoo", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def animate(algo: str, env_id: str, n_timesteps: int, folder: Path, images: Path) -> None:
    """Train an agent, choose an episode, and draw it."""
    where = ["--algo", algo, "--env", env_id, "-f", str(folder)]
    following = ["--env-kwargs", "camera_name:'track'"] if env_id.endswith("-v4") else []  # MuJoCo's camera
    words = ["-n", str(n_timesteps), "--seed", "0", "--eval-freq", "-1", "--verbose", "0", *following]
    sb3_pg("train", *where, *words)
    evaluation = [*where, "--cache", str(folder / "episodes")]
    played = json.loads(sb3_pg("evaluate", *evaluation, "--episodes", str(N_EPISODES), "--json"))
    episodes = sorted(zip(played["returns"], played["seeds"], strict=True))
    median_return, seed = episodes[len(episodes) // 2]
    recording = folder / f"{algo}_{env_id}.webp"
    sb3_pg("evaluate", *evaluation, "--replay", str(seed), "--output", str(recording))
    path = images / recording.name
    shrink(recording, path)
    print(f"{algo}, {env_id}, {n_timesteps} steps: return {median_return:.1f}; {path}", flush=True)


def shrink(recording: Path, path: Path) -> None:
    """Make a recording small: fewer and smaller frames, and less quality until it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(recording) as image:
        frames, milliseconds = list[Image.Image](), 0.0
        for frame in ImageSequence.Iterator(image):
            if milliseconds >= 1000 * len(frames) / FRAMES_PER_SECOND and milliseconds < 1000 * MAX_SECONDS:
                frames.append(frame.convert("RGB").resize((WIDTH, round(WIDTH * frame.height / frame.width))))
            milliseconds += frame.info["duration"]
    for quality in (60, 40, 25, 15):
        first, *others = frames
        duration = round(1000 / FRAMES_PER_SECOND)
        first.save(path, save_all=True, append_images=others, duration=duration, loop=0, quality=quality, method=6)
        if path.stat().st_size <= MAX_BYTES:
            break


def main() -> None:
    """Animate all agents, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", metavar="ALGO:ENV", help=f"of {', '.join(AGENTS)} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("logs/animations"), help="where the trainings are kept")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the animations go")
    parser.add_argument("-n", "--n-timesteps", type=int, help="steps of training, instead of the usual ones")
    options = parser.parse_args()
    if unknown := sorted({*options.agents} - {*AGENTS}):
        parser.error(f"{', '.join(unknown)}; allowed: {', '.join(AGENTS)}")
    for agent in options.agents or AGENTS:
        algo, env_id = agent.split(":")
        animate(algo, env_id, options.n_timesteps or AGENTS[agent], options.folder, options.images)


if __name__ == "__main__":
    main()
