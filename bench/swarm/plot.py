"""The medians as one SVG, written by hand: no dependency, no script.

Panels of curves over the number of receivers, on a logarithmic scale whose lowest line is the bound, and one of bars
for what has no curve. A panel without figures is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from .report import Row

WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 960, 460, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 34
HEADER, BAR = 56, 24
LABEL_WIDTH = 250
COLOURS = {"hfpeer": "#1f6feb", "nginx+curl": "#8b949e", "libtorrent": "#d29922", "hf download": "#cf222e"}
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 13px }
  .faint { fill: #6e7781; font-size: 11px } .grid { stroke: #d8dee4 } .bound { stroke: #24292f; stroke-dasharray: 4 3 }
"""
Value = Callable[[Row], float | None]
CURVES: tuple[tuple[str, str, Value], ...] = (
    ("One holder: time over the bound", "holder", lambda row: row.ratio),
    ("One holder: copies it sends", "holder", lambda row: row.holder_payload),
    ("Only the hub has it: time over the bound", "wan", lambda row: row.ratio),
    ("Only the hub has it: copies over the WAN", "wan", lambda row: row.wan_payload),
)


def draw(rows: Sequence[Row]) -> str:
    """The whole picture."""
    panels = [panel for title, scenario, value in CURVES if (panel := _curves(title, scenario, value, rows))]
    drawn, y = [], HEADER
    for number, panel in enumerate(panels):
        drawn.append(_moved(panel, (number % 2) * (WIDTH - PANEL_WIDTH), y + number // 2 * PANEL_HEIGHT))
    y += math.ceil(len(panels) / 2) * PANEL_HEIGHT
    others = [row for row in rows if row.scenario not in ("holder", "wan") and row.ratio is not None]
    if others:
        drawn.append(_moved(_bars("The rest: time over the bound", others), 0, y))
        y += TOP + BAR * len(others)
    body = "\n".join([_legend(rows), *drawn])
    size = f'width="{WIDTH}" height="{y + 16}" viewBox="0 0 {WIDTH} {y + 16}"'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{background}\n{body}\n</svg>\n'


def _legend(rows: Sequence[Row]) -> str:
    drawn, x = [], LEFT
    for way in dict.fromkeys(row.way for row in rows):
        drawn.append(f'<rect x="{x}" y="20" width="14" height="4" fill="{_colour(way)}"/>{_text(x + 20, 26, way)}')
        x += 60 + 8 * len(way)
    return "".join(drawn)


def _curves(title: str, scenario: str, value: Value, rows: Sequence[Row]) -> str | None:
    """One panel: a curve a way, receivers to the right, doublings upwards from the bound; None without figures."""
    points = [(row.way, row.receivers, found) for row in rows if row.scenario == scenario and (found := value(row))]
    if not points:
        return None
    counts = sorted({count for _, count, _ in points})
    doublings = max(1, math.ceil(math.log2(max(found for _, _, found in points))))

    def x(count: int) -> float:
        return LEFT + (PANEL_WIDTH - LEFT - RIGHT) * (counts.index(count) + 0.5) / len(counts)

    def y(number: float) -> float:
        return PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - TOP - BOTTOM) * max(0.0, math.log2(number)) / (doublings + 0.2)

    drawn = [_text(LEFT, 18, title, "title")]
    for doubling in range(doublings + 1):
        kind = "grid" if doubling else "bound"
        height = y(1 << doubling)
        drawn.append(
            f'<line class="{kind}" x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
        )
        drawn.append(_text(LEFT - 8, height + 4, str(1 << doubling), "faint", "end"))
    drawn += [_text(x(count), PANEL_HEIGHT - 14, f"N = {count}", "faint", "middle") for count in counts]
    for way in dict.fromkeys(way for way, _, _ in points):
        drawn.append(_curve([(x(count), y(found), found) for name, count, found in points if name == way], way))
    return "".join(drawn)


def _curve(points: Sequence[tuple[float, float, float]], way: str) -> str:
    colour = _colour(way)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y, _ in points)
    labels = "".join(_text(x, y - 7, f"{found:.2f}", "faint", "middle") for x, y, found in points)
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}{labels}'


def _bars(title: str, rows: Sequence[Row]) -> str:
    longest = max(row.ratio or 0.0 for row in rows)
    scale = (WIDTH - LABEL_WIDTH - 70) / longest
    drawn = [_text(LEFT, 18, title, "title")]
    for number, row in enumerate(rows):
        ratio, y = row.ratio or 0.0, TOP + BAR * number
        drawn.append(_text(LABEL_WIDTH - 8, y + 12, f"{row.scenario}, {row.way}, N = {row.receivers}", "", "end"))
        bar = f'width="{ratio * scale:.1f}" height="14" fill="{_colour(row.way)}"'
        drawn.append(f'<rect x="{LABEL_WIDTH}" y="{y}" {bar}/>')
        drawn.append(_text(LABEL_WIDTH + ratio * scale + 6, y + 12, f"{ratio:.2f}", "faint"))
    return "".join(drawn)


def _moved(drawn: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:.0f} {y:.0f})">{drawn}</g>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _colour(way: str) -> str:
    return COLOURS.get(way, "#57606a")
