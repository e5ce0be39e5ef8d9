"""What the examples of the gallery share: their command line, and how a picture is drawn and kept."""

import argparse
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

IMAGES = Path(__file__).parents[2] / "docs" / "gallery" / "images"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})


def main(description: str | None, name: str, draw: Callable[[bool], Figure], arguments: Sequence[str] | None) -> None:
    """Run an example and keep its picture.

    :param description: what ``--help`` says
    :param name: what the picture's file is called, without its ending
    :param draw: makes the picture; it is told whether to be short, which shows that it runs and nothing else
    :param arguments: the command line; ``None`` for the process's own
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few tiny steps, to see that everything works")
    parser.add_argument(
        "--output", type=Path, default=IMAGES / f"{name}.png", help="the picture (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    figure = draw(options.short)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=100, bbox_inches="tight")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(128).save(options.output, optimize=True)  # a third of the size
