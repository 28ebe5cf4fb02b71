"""The panels around the talk as rows: state, processes, the last turn, cost."""

from __future__ import annotations

from messages import Tokens
from rtvoice.console.rows import Row, Span, cut, joined, padded
from rtvoice.view import Latency, Process, View
from rtvoice.view.sentences import count_of, server_of

__all__ = ["process_rows", "state_rows", "turn_rows"]

_FLOOR_DBFS = -60.0
"""Level of an empty meter."""
_DIED_S = 1.0
"""How long a process is shown as dead at least: most are back before an eye has seen it."""
_BACK_S = 6.0
"""How long it is shown that it is back."""

_PHASES = {
    "starting": "dim",
    "hearing you": "user",
    "thinking": "warn",
    "speaking": "assistant",
    "paused": "warn",
    "muted": "warn",
    "reconnecting": "bad",
    "ending": "dim",
    "failed": "bad",
}


# -- the strip --------------------------------------------------------------------------------


def state_rows(view: View, width: int) -> list[Row]:
    """Return the two rows at the top."""
    cells = 10 if width >= 70 else 6
    phase: Span = (padded(view.phase.upper(), 12), f"{_PHASES.get(view.phase, '')} strong")
    parts: list[Row] = [
        (phase,),
        *((_meter("mic", view.input_dbfs, cells), _meter("out", view.output_dbfs, cells))),
    ]
    if view.muted and view.phase != "muted":
        parts.append((("muted", "warn"),))
    if echo := _echo(view):
        parts.append((echo,))
    if width >= 110 and view.started is not None:
        parts.append(((server_of(view.started), "dim"),))
    return [joined(parts, width, "  "), joined(_numbers(view), width)]


def _meter(name: str, dbfs: float, cells: int) -> Row:
    """Return a meter; its full part differs from the empty one without colour too."""
    full = min(max(round((1 - dbfs / _FLOOR_DBFS) * cells), 0), cells)
    style = "bad" if dbfs > -1.0 else "good"
    return ((f"{name} ", "dim"), ("█" * full, style), ("·" * (cells - full), "dim"))


def _echo(view: View) -> Span | None:
    echo = view.echo
    if echo is None or echo.state == "learning":
        return None
    if echo.state == "cancelled":
        text = f"echo -{echo.erle_db:.0f} dB" if echo.erle_db > 0 else "no echo"
        return text, "dim"
    return "no echo cancelling", "warn" if echo.state == "failed" else "dim"


def _numbers(view: View) -> list[Row]:
    counts = view.counts
    trip_ms = view.round_trip_ms
    trip = "-" if trip_ms is None else f"{trip_ms:.{'1' if trip_ms < 10 else '0'}f} ms"
    lost = str(counts.lost) if not counts.lost_ms else f"{counts.lost} ({counts.lost_ms} ms)"
    return [
        (("trip ", "dim"), (trip, "")),
        (("underruns ", "dim"), (str(counts.underruns), "")),
        (("lost ", "dim"), (lost, "warn" if counts.lost or counts.lost_ms else "")),
        (("restarts ", "dim"), (str(counts.restarts), "")),
        (("vol ", "dim"), (f"{view.volume * 100:.0f}%", "")),
        (("speed ", "dim"), (f"{view.speed:g}", "")),
        (("reconnects ", "dim"), (str(counts.reconnects), "")),
        (("interruptions ", "dim"), (str(counts.interruptions), "")),
    ]


# -- the processes ----------------------------------------------------------------------------


def process_rows(view: View, width: int, now_s: float) -> list[Row]:
    """Return a heading, and a row a process."""
    count = 9 if width >= 70 else 4
    wide = max(width - count - 34, 10)
    names = f"{padded('restarts' if count > 4 else 'rst', count, right=True)}"
    names += f"{'MiB':>7}{'CPU':>7}{'mail':>6}"
    head: Row = ((f"  {'process':<12}{padded('state', wide)}{names}", "dim"),)
    rows = [_process(process, wide, count, now_s) for process in view.processes.values()]
    return [cut(row, width) for row in (head, *rows)]


def _process(process: Process, wide: int, count: int, now_s: float) -> Row:
    mark, state, style = _state(process, now_s)
    memory = "-" if process.memory_bytes is None else f"{process.memory_bytes / 2**20:.1f}"
    cpu = "-" if process.cpu is None else f"{process.cpu:.1%}"
    return (
        (f"{mark} ", style),
        (padded(process.name, 12), f"{style} @kill({process.name})".strip()),
        (padded(state, wide), style),
        (f"{process.restarts:>{count}}{memory:>7}{cpu:>7}{process.mailbox:>6}", ""),
    )


def _state(process: Process, now_s: float) -> tuple[str, str, str]:
    """Return mark, words and style of a process; one that died is seen dead for a second."""
    since = None if process.died_s is None else now_s - process.died_s
    if process.state == "parked":
        return "✖", f"waits: {process.cause}", "bad"
    if process.state == "down" or (since is not None and since < _DIED_S):
        return "✖", process.cause or "died", "bad"
    if process.state == "starting":
        return "○", "starting", "dim"
    if process.back_ms is not None and since is not None and since < _BACK_S + _DIED_S:
        return "✔", f"back in {process.back_ms:.0f} ms", "good"
    back = f"back in {process.back_ms:.0f} ms" if process.back_ms is not None else ""
    return "●", " · ".join(filter(None, ("up", back, process.device))), ""


# -- the last turn ----------------------------------------------------------------------------


def turn_rows(view: View, width: int, budget: float | None = None) -> list[Row]:
    """Return the last turn as a waterfall, what all of them took, tokens and money.

    Args:
        view: The state.
        width: Cells of a row.
        budget: Dollars that the conversation may use; None: no limit is known.
    """
    rows: list[Row] = []
    last = view.waits.last
    if last is None:
        rows.append((("no spoken turn was answered yet", "dim"),))
    else:
        rows += _waterfall(last, width)
        median, high = view.waits.percentile(50), view.waits.percentile(95)
        text = f"p50 {median} ms · p95 {high} ms · {count_of(len(view.waits), 'answer')}"
        rows.append(((text, ""),))
    rows.append(())
    rows += _cost(view, budget)
    return [cut(row, width) for row in rows]


def _waterfall(last: Latency, width: int) -> list[Row]:
    names = ("speech ends → commit", "→ first audio", "→ heard")
    ends = (last.committed_ms, last.received_ms, last.heard_ms)
    label = 21
    scale = max(width - label - 10, 5) / max(last.heard_ms, 1)
    rows: list[Row] = []
    before = 0
    for name, end_ms in zip(names, ends, strict=True):
        if end_ms is None:
            continue
        end = min(max(end_ms, before), last.heard_ms)
        left, right = round(before * scale), round(end * scale)
        bar = " " * left + "█" * max(right - left, 1)
        rows.append(((padded(name, label), "dim"), (bar, "warn"), (f" {end - before} ms", "")))
        before = end
    rows.append(((padded("all of it", label), "dim"), (f"{last.heard_ms} ms", "strong")))
    return rows


def _cost(view: View, budget: float | None) -> list[Row]:
    tokens = view.tokens
    rows: list[Row] = [
        (("tokens in  ", "dim"), (_kinds(tokens, "input"), "")),
        (("tokens out ", "dim"), (_kinds(tokens, "output"), "")),
    ]
    money = "price not known" if view.dollars is None else f"${view.dollars:.4f}"
    if budget is not None and view.dollars is not None:
        money += f" of ${budget:g} ({view.dollars / budget:.0%})"
    style = "warn" if view.budget_percent else ""
    if view.budget_percent:
        money += f"; {view.budget_percent} % of the budget is used"
    return [*rows, (("cost       ", "dim"), (money, style))]


def _kinds(tokens: Tokens, side: str) -> str:
    """Return the tokens of one side by kind."""
    parts = []
    for kind in ("text", "audio", "image"):
        count = getattr(tokens, f"{side}_{kind}", 0)
        cached = getattr(tokens, f"cached_{kind}", 0) if side == "input" else 0
        if count:
            parts.append(f"{kind} {count}" + (f" ({cached} cached)" if cached else ""))
    return " · ".join(parts) or "0"
