"""Names of points, where there is room for them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plait.plot.style import BESIDE_POINTS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""

SIZE = 7
"""Of letters, in points."""
_HEIGHT = 1.25
"""Of a line, as a share of the size of letters."""
_BESIDE = 2.0
"""What a name is wider than its letters are, in points: that is told by how they are drawn."""
_DIRECTIONS = (90, 0, 180, 270, 45, 135, 315, 225)
_DISTANCES = (4.0, 12.0, 22.0, 34.0)
"""From the point, in points; what is further than the first has a line to it."""


def name_points(
    ax: "Axes",
    x: Array,
    y: Array,
    names: Sequence[str] | Mapping[int, str],
    rows: Sequence[int],
    most: int | None = None,
    walls: tuple[Array, Array] | None = None,
) -> None:
    """Write the names of some points beside them, over no point and no other name.

    Parameters
    ----------
    ax : matplotlib Axes
        With everything else that it will show.
    x, y : (n,) arrays
        All points, named or not.
    names : sequence of str, or mapping of int to str
        Of the first points, at least of those in ``rows``.
    rows : sequence of int
        The points that have names, the most important first; where there is room neither beside a
        point nor a little further off, its name is left out.
    most : int, optional
        How many names are written at most. Default all that have room.
    walls : (k,) arrays, optional
        x and y of more places that no name covers, and no line to one crosses.

    Notes
    -----
    Each of eight directions and four distances is tried, the nearest first. A name that is not
    next to its point is joined to it by a line.
    """
    if not len(rows):
        return
    figure: Any = ax.figure.figure  # the whole, of which axes may be in a part
    figure.draw_without_rendering()  # a layout may move the axes
    scale = 72.0 / figure.dpi
    known = np.isfinite(x) & np.isfinite(y)
    points = np.full((len(x), 2), np.inf)
    points[known] = ax.transData.transform(np.column_stack([x, y])[known]) * scale
    solid = np.empty((0, 2))
    if walls is not None:
        solid = ax.transData.transform(np.column_stack(walls)) * scale
        points = np.concatenate([points, solid])
    frame = ax.get_window_extent()
    inside = frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale
    taken: list[Box] = []
    written = 0
    for row in rows:
        if written == most:
            break
        size = _width(figure, names[row]) * scale + _BESIDE, _HEIGHT * SIZE
        for distance in _DISTANCES:
            box, shift = _room(points, row, size, distance, inside, taken, solid)
            if box is not None:
                break
        if box is None:
            continue
        written += 1
        taken += [box, *_along(points[row], shift)]
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            names[row],
            (x[row], y[row]),
            xytext=shift,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SIZE,
            bbox=BESIDE_POINTS,
            zorder=0.5,  # its ground is over lines, but not over points
            arrowprops=line if distance > _DISTANCES[0] else None,
        )


def _width(figure: Any, name: str) -> float:
    """Return the width of a name as it will be drawn, in pixels."""
    from matplotlib.text import Text

    text = Text(0.0, 0.0, name, fontsize=SIZE, figure=figure)
    return float(text.get_window_extent().width)


def _room(
    points: Array,
    row: int,
    size: tuple[float, float],
    distance: float,
    inside: Box,
    taken: Sequence[Box],
    walls: Array,
) -> tuple[Box | None, tuple[float, float]]:
    """Return the box of a name at a distance from its point that hits nothing, and its shift."""
    half_width, half_height = size[0] / 2, size[1] / 2
    for angle in _DIRECTIONS:
        across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        shift = (
            round(across, 9) * (distance + half_width),
            round(up, 9) * (distance + half_height),
        )
        middle = points[row] + shift
        box = (
            middle[0] - half_width,
            middle[1] - half_height,
            middle[0] + half_width,
            middle[1] + half_height,
        )
        if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
            continue
        parts = [box, *_along(points[row], shift)]
        if any(_overlap(part, other) for part in parts for other in taken):
            continue
        if not _covers(box, points) and not any(_covers(part, walls) for part in parts[1:]):
            return box, shift
    return None, (0.0, 0.0)


def _covers(box: Box, points: Array) -> bool:
    """Tell whether any point is in a box, or as good as in it."""
    across, up = points.T
    return bool(
        np.any(
            (across > box[0] - 2) & (across < box[2] + 2) & (up > box[1] - 2) & (up < box[3] + 2)
        )
    )


def _along(point: Array, shift: tuple[float, float]) -> list[Box]:
    """Return small boxes on the line from a point to its name, but for what is close to it."""
    places = np.linspace(0.3, 1.0, 12)[:, None] * np.array(shift) + point
    return [(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for x, y in places.tolist()]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
