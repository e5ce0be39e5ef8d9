"""Two geometries: what a small step is, measured in the parameters and measured by KL.

    python examples/gallery/geometry.py

A Gaussian policy with two parameters, μ and log σ, and the return J = −E[a²] = −(μ² + σ²). Left: the steps of the same
length around several policies, as circles in the parameters and as what has the same KL(old‖new). Right: the gradient
and the natural gradient of J, and where they lead.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure

from sb3_pg_ext.functional.heads import DiagGaussian

KL = 0.05


def gaussian(mean: np.ndarray, log_std: float) -> DiagGaussian:
    """Policies of equal σ with several means, [B]."""
    return DiagGaussian(np.asarray(mean, dtype=float)[:, None], np.array([log_std]))


def kl(mean: float, log_std: float, means: np.ndarray, log_stds: np.ndarray) -> np.ndarray:
    """KL(old‖new) to all points of a grid, [number of log σ, number of μ]."""
    old = gaussian(np.full(len(means), mean), log_std)
    return np.array([gaussian(means, each).kl(old) for each in log_stds])


def gradient(mean: float, log_std: float) -> np.ndarray:
    """∇J = (−2μ, −2σ²)."""
    return np.array([-2 * mean, -2 * np.exp(2 * log_std)])


def natural_gradient(mean: float, log_std: float) -> np.ndarray:
    """F⁻¹∇J, where F is made of the package's products with the information of the distribution."""
    head = gaussian(np.array([mean]), log_std)
    columns = [head.information((np.array([[u]]), np.array([v]))) for u, v in np.eye(2)]
    fisher = np.array([[float(part.ravel()[0]) for part in column] for column in columns]).T
    return np.linalg.solve(fisher, gradient(mean, log_std))


def path(start: tuple[float, float], natural: bool, n_steps: int, size: float) -> np.ndarray:
    """Where steps of the gradient lead, [n_steps + 1, 2]."""
    points = [np.array(start)]
    for _ in range(n_steps):
        points.append(points[-1] + size * (natural_gradient if natural else gradient)(*points[-1]))
    return np.array(points)


def draw(short: bool) -> Figure:
    """Both panels."""
    n = 20 if short else 240
    means, log_stds = np.linspace(-2.2, 2.2, n), np.linspace(-2.6, 0.9, n)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True)
    angles = np.linspace(0, 2 * np.pi, 100)
    for log_std in (-2.0, -1.0, 0.0):
        for mean in (-1.2, 0.9):
            left.plot(mean + 0.3 * np.cos(angles), log_std + 0.3 * np.sin(angles), color="C0", linewidth=0.9)
            left.contour(means, log_stds, kl(mean, log_std, means, log_stds), [KL], colors="C1")
            left.plot(mean, log_std, "k.", markersize=4)
    left.plot([], [], color="C0", label="the same distance in the parameters")
    left.plot([], [], color="C1", label=f"KL(old‖new) = {KL}")
    left.legend(loc="upper left", fontsize=8)
    left.set(title="Steps of equal size", xlabel="μ", ylabel="log σ")
    returns = -(means**2 + np.exp(2 * log_stds)[:, None])
    right.contour(means, log_stds, returns, -np.geomspace(0.01, 8, 14)[::-1], cmap="Greys", linewidths=0.7)
    n_steps = 5 if short else 60
    for start in ((-2.0, 0.6), (1.5, -1.5), (2.0, 0.0)):
        vanilla, natural = path(start, False, n_steps, 0.02), path(start, True, n_steps, 0.04)
        right.plot(*vanilla.T, ".-", color="C0", markersize=3, linewidth=0.8)
        right.plot(*natural.T, ".-", color="C1", markersize=3, linewidth=0.8)
        for name, points in (("gradient", vanilla), ("natural gradient", natural)):
            mean, log_std = points[-1]
            print(f"{name} from {start}: after {n_steps} steps μ = {mean:.3f}, σ = {np.exp(log_std):.3f}")
    right.plot([], [], color="C0", label=f"gradient, {n_steps} steps")
    right.plot([], [], color="C1", label=f"natural gradient, {n_steps} steps")
    right.legend(loc="upper left", fontsize=8)
    right.set(title="J = −(μ² + σ²), and where its gradients lead", xlabel="μ", ylim=(-2.6, 1.3))
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "geometry", draw, arguments)


if __name__ == "__main__":
    main()
