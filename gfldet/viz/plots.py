"""Curves of a run and of a validation, and the confusion matrix, drawn with matplotlib.

The functions take plain numbers and write a picture file.  They import matplotlib on the first call and use its
figures as objects, without a window, a backend or global state, so any thread may plot.
"""

from __future__ import annotations

import atexit
import csv
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfldet.errors import DataError, OutputError
from gfldet.files import read_text
from gfldet.viz.draw import class_colour
from gfldet.viz.fonts import fonts_for, use_fonts
from gfldet.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_DPI = 120
_NAMED_LINES = 12  # up to this number of classes, each class has a colour and a line in the legend
_NAMED_CELLS = 30  # up to this number of classes, the cells of the confusion matrix hold numbers


def results_panels(csv_path: Path) -> tuple[Floats, tuple[dict[str, Floats], ...]]:
    """The epochs of a results.csv, and its columns by their short names: losses, metrics, rates; as `read_columns`."""
    columns = read_columns(csv_path)
    rows = len(next(iter(columns.values()), ()))
    losses, metrics = (
        {name.removeprefix(kind): values for name, values in columns.items() if name.startswith(kind)}
        for kind in ("train/", "metrics/")
    )
    rates = {name: values for name, values in columns.items() if name == "lr" or name.startswith("lr/")}
    return columns.get("epoch", np.arange(1.0, rows + 1)), (losses, metrics, rates)


def plot_results(csv_path: str | Path, path: str | Path) -> None:
    """results.csv -> one picture: training losses, metrics and learning rate against the epoch.

    Columns are found by name: `train/...` losses, `metrics/...`, `lr`, and `epoch`.  Missing columns, and cells
    without a number, are left out.  Raises DataError if the file cannot be read.
    """
    epochs, panels = results_panels(Path(csv_path))
    figure, axes = _figure(13.0, 4.0, len(panels), fitted=True)  # rates have labels of any length
    from matplotlib.ticker import MaxNLocator

    for ax, title, lines in zip(axes, ("training losses", "validation", "learning rate"), panels, strict=True):
        for i, (label, values) in enumerate(lines.items()):
            _line(ax, epochs, values, _colour(i), _text(label))
        _finish(ax, title, "epoch", "", empty=not lines)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            ax.legend(fontsize=8)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(0, 1)
    _save(figure, path)


def plot_precision_recall(
    path: str | Path,
    recall: Sequence[ArrayLike | None],
    precision: Sequence[ArrayLike | None],
    names: Sequence[str],
    ap50: Sequence[float],
) -> None:
    """Precision against recall, one curve per class and their mean; the legend shows `ap50`, the AP of each class.

    recall, precision  for each class the points in order of falling score; None for a class without truths.  The
                       curve shows the best precision at this recall or a higher one, as in COCO's AP.
    """
    figure, (ax,) = _figure(7.0, 5.5, 1)
    grid = np.linspace(0, 1, 101)
    points = enumerate(zip(recall, precision, strict=True))
    lines = {c: envelope(r, p, grid) for c, (r, p) in points if r is not None and p is not None}
    for c, line in lines.items():
        _class_line(ax, grid, line, f"{_text(names[c])} {ap50[c]:.3f}", c, len(lines))
    _mean_line(ax, grid, lines, f"all {np.mean([ap50[c] for c in lines] or [0.0]):.3f}")
    if lines:
        ax.legend(fontsize=8, title="class, AP50", loc="lower left")
    _finish(ax, "precision and recall (IoU .5)", "recall", "precision", empty=not lines)
    _unit_square(ax)
    _save(figure, path, names)


def plot_confidence(
    path: str | Path,
    scores: Sequence[ArrayLike | None],
    curves: Mapping[str, Sequence[ArrayLike | None]],
    names: Sequence[str],
    best_conf: float = float("nan"),
) -> None:
    """Values against the score threshold: one panel per entry of `curves`, e.g. "precision" -> values of each class.

    scores     for each class its thresholds, falling; None for a class without truths.  A curve has one value for each.
    best_conf  the threshold to mark; NaN: no mark
    """
    figure, axes = _figure(13.0, 4.0, len(curves))
    grid = np.linspace(0, 1, 1001)
    for ax, (title, values) in zip(axes, curves.items(), strict=True):
        points = enumerate(zip(scores, values, strict=True))
        lines = {c: at_thresholds(s, v, grid) for c, (s, v) in points if s is not None and v is not None}
        for c, line in lines.items():
            _class_line(ax, grid, line, _text(names[c]), c, len(lines))
        _mean_line(ax, grid, lines, "all")
        if np.isfinite(best_conf):
            ax.axvline(best_conf, color="black", linewidth=1, linestyle="--", label=f"best F1 at {best_conf:.3f}")
        _finish(ax, f"{title} (IoU .5)", "score threshold", "", empty=not lines)
        _unit_square(ax)
    if axes[-1].get_legend_handles_labels()[0]:
        axes[-1].legend(fontsize=8)
    _save(figure, path, names)


def plot_confusion(path: str | Path, matrix: ArrayLike, names: Sequence[str]) -> None:
    """(C+1, C+1) counts -> picture; rows are true classes, columns are predicted classes, the background is last.

    Colours show the share of a row; up to 30 classes, the cells also show the counts.
    """
    counts = np.asarray(matrix, np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [*(_text(name) for name in names), "background"]
    side = float(np.clip(2.5 + 0.45 * len(labels), 5.0, 18.0))
    figure, (ax,) = _figure(side + 1.0, side, 1, fitted=True)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=ax, shrink=0.7, label="share of the row")
    small = 9 if len(labels) <= _NAMED_CELLS else 7
    step = 1 + len(labels) // 120  # with more than 120 labels, names would overlap
    ticks = range(0, len(labels), step)
    ax.set_xticks(ticks, labels[::step], rotation=90, fontsize=small)
    ax.set_yticks(ticks, labels[::step], fontsize=small)
    if len(names) <= _NAMED_CELLS:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if share[row, column] > 0.5 else "black"
            text = f"{counts[row, column]:.0f}"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title("confusion matrix")
    _save(figure, path, names)


def warm_up() -> None:
    """Load all that the first pictures need."""
    figure, (ax,) = _figure(2.0, 2.0, 1, fitted=True)
    figure.colorbar(ax.imshow(np.zeros((1, 1))), ax=ax)
    ax.plot([0], label="a")
    ax.legend()
    figure.savefig(io.BytesIO(), format="png")


# ----------------------------------------------------------------------------------------------------- the details


def read_columns(path: Path) -> dict[str, Floats]:
    """Every column of a CSV file with at least one number; cells without a number become NaN."""
    try:
        text = read_text(path, DataError)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table of results: {error}.") from error
    names = [name for name in (rows[0] if rows else {}) if name]
    columns = {name.strip(): np.array([_number(row.get(name)) for row in rows]) for name in names}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def _number(cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def envelope(recall: ArrayLike, precision: ArrayLike, grid: Floats) -> Floats:
    """For each recall of the grid, the best precision at this recall or a higher one; 0 above the highest recall."""
    reached, values = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    best = np.maximum.accumulate(values[::-1])[::-1]
    return np.append(best, 0.0)[np.searchsorted(reached, grid)]


def at_thresholds(scores: ArrayLike, values: ArrayLike, grid: Floats) -> Floats:
    """For each threshold of the grid, the value at the lowest score >= the threshold; 0 if there is no such score."""
    falling = np.asarray(scores, np.float64)
    kept = np.searchsorted(-falling, -grid, side="right")
    return np.concatenate([[0.0], np.asarray(values, np.float64)])[kept]


def _figure(width: float, height: float, panels: int, fitted: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches.  Its margins suit labels from 0.0 to 1.0; `fitted` measures what is drawn, which
    takes as long again as drawing it."""
    if "matplotlib" not in sys.modules and "MPLCONFIGDIR" not in os.environ:
        _import_with_temporary_cache()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained" if fitted else None)
    if not fitted:
        sides = {"left": 0.6 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
        figure.subplots_adjust(**sides, wspace=0.2)
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _import_with_temporary_cache() -> None:
    """Imports matplotlib with a temporary folder for its list of fonts; this process removes the folder at its end.

    By default matplotlib writes the list into HOME, and warns if it cannot.
    """
    folder = Path(tempfile.gettempdir()) / f"gfldet-{token_hex(8)}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # before it is there: a signal may come between
    folder.mkdir(mode=0o700)
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # matplotlib warns when the list takes long
    os.environ["MPLCONFIGDIR"] = str(folder)
    try:
        import matplotlib.font_manager  # noqa: F401 - the module reads the folder's name once and keeps it
    finally:
        del os.environ["MPLCONFIGDIR"]
        log.setLevel(level)


def _line(ax: Axes, x: Floats, y: Floats, colour: tuple[float, ...], label: str) -> None:
    """A line over finite points; with few points, markers show each one, so that a single point is visible."""
    finite = np.isfinite(x) & np.isfinite(y)
    ax.plot(x[finite], y[finite], color=colour, label=label, linewidth=1.5, marker="o" if len(x) <= 20 else "")


def _class_line(ax: Axes, x: Floats, y: Floats, label: str, index: int, classes: int) -> None:
    """The line of a class: coloured and named if there are few classes, else thin and grey without a name."""
    if classes <= _NAMED_LINES:
        ax.plot(x, y, color=_colour(index), linewidth=1.5, label=label)
    else:
        ax.plot(x, y, color="0.75", linewidth=0.6)


def _mean_line(ax: Axes, x: Floats, lines: Mapping[int, Floats], label: str) -> None:
    if len(lines) > 1:
        ax.plot(x, np.mean(list(lines.values()), axis=0), color="black", linewidth=2.5, label=label)


def _finish(ax: Axes, title: str, x: str, y: str, empty: bool) -> None:
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    if empty:
        ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", va="center", color="0.5")


def _unit_square(ax: Axes) -> None:
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)


def _colour(index: int) -> tuple[float, ...]:
    """The colour of a class as on its boxes; light colours (yellow) are darker, because the background is white."""
    colour = class_colour(index)
    light = min(colour[:2]) > 180
    return tuple(v / 255 * (0.8 if light else 1.0) for v in colour)


def _text(name: str) -> str:
    """A class name that matplotlib shows as it is.

    It would show text between dollars as a formula, and hide a name that starts with an underscore.
    """
    plain = name.replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def _save(figure: Figure, path: str | Path, names: Sequence[str] = ()) -> None:
    """Writes the picture; `names` are texts in it whose letters may need a font of the system."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # `fonts_for` tells of them
            use_fonts(figure, fonts_for(names))
            format = path.suffix.removeprefix(".") or "png"
            # Packed less, a PNG is a third larger and takes less than half the time.
            packed = {"compress_level": 1} if format.lower() == "png" else {}
            write_whole(path, lambda file: figure.savefig(file, format=format, pil_kwargs=packed), lasting=False)
    except (OSError, ValueError) as error:  # ValueError: the suffix is not a picture format
        raise OutputError(
            f"{path}: the plot cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from error
