"""Draw a run's training curves as docs/results.svg: python docs/figure.py RUN_FOLDER."""

import csv
import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Colour-blind-safe (Okabe and Ito).
COLOURS = {"teacher": "#0072B2", "baseline": "#999999", "student": "#D55E00"}


def draw(folder: Path, target: Path) -> None:
    """Validation accuracy by epoch, a line a model, with the test accuracy in the legend."""
    rows = list(csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines()))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    matplotlib.rcParams.update({"svg.hashsalt": "tutelage", "font.size": 11})  # same bytes again
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for stage, colour in COLOURS.items():
        own = [row for row in rows if row["stage"] == stage]
        model = results["models"][stage]
        label = f"{stage}: {model['parameters']:,} parameters, test {100 * model['accuracy']:.1f} %"
        axes.plot(
            [int(row["epoch"]) for row in own],
            [100 * float(row["val_accuracy"]) for row in own],
            color=colour,
            marker="o",
            markersize=3,
            label=label,
        )
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title=results["data"]["name"])
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("results.svg"))
