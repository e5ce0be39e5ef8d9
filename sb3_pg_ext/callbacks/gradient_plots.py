"""What GradientVarianceCallback has logged, as a picture."""

from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from matplotlib.figure import Figure

PANELS = {
    "variance": "variance of the gradient",
    "snr": "signal-to-noise ratio",
    "cosine": "cosine to the reference",
    "removable": "share that a baseline could remove",
}


def plot_gradient_variance(log: str | Path) -> Figure:
    """Draw the statistics of gradients against the steps of the training, a line for every estimator.

    There is a panel for the variance, the signal-to-noise ratio and the cosine, and with ``n_states`` one for the share
    of the variance that a baseline could still remove.

    :param log: the ``progress.csv`` of SB3's logger, ``configure(folder, ["csv"])``, or its folder
    :return: the figure; save it by ``savefig``
    :raises ValueError: if nothing of the kind was logged
    """
    path = Path(log)
    table = pd.read_csv(path / "progress.csv" if path.is_dir() else path)
    columns = [column.split("/", 1)[1].rsplit("/", 1) for column in table if column.startswith("gradient/")]
    if not columns:
        raise ValueError(
            f"log={str(log)!r} has no gradient/…; allowed: that of a training with GradientVarianceCallback"
        )
    panels = [key for key in PANELS if any(key == each for _, each in columns)]
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in sorted(name for name, each in columns if each == key):
            values = table[f"gradient/{name}/{key}"]
            measured = np.isfinite(values)
            axes.plot(table["time/total_timesteps"][measured], values[measured], marker=".", label=name)
        axes.set(xlabel="environment steps", ylabel=PANELS[key], yscale="log" if key == "variance" else "linear")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return figure
