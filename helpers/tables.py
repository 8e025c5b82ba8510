"""Recorded tables: what the metrics of the runs of a grid (`helpers.runs.records`) say over seeds and patients."""

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import t

from helpers.stats import bootstrap_interval


def provenance(rows: list[dict]) -> str:
    """One line for a caption: how many runs are recorded, which are stale or missing, and whether the data agree."""
    counts = {state: [r for r in rows if r["state"] == state] for state in ("recorded", "stale", "missing")}
    parts = [f"{len(rows) - len(counts['missing'])} of {len(rows)} runs recorded"]
    for state in ("stale", "missing"):
        if counts[state]:
            parts.append(f"{state}: {', '.join(_label(row['params'], rows) for row in counts[state])}")
    seen = {}
    for row in rows:
        if row["record"] and row["record"]["data"]:
            seen.setdefault(row["record"]["data"]["name"], set()).add(row["record"]["data"]["hash"])
    parts += [f"the runs saw different data of the name {name}" for name, hashes in seen.items() if len(hashes) > 1]
    return "; ".join(parts)


def _label(params: dict, rows: list[dict]) -> str:
    """What tells a run from the others of its table."""
    varying = [name for name in params if any(row["params"].get(name) != params[name] for row in rows)]
    return " ".join(f"{name} {params[name]}" for name in varying) or "the run"


def groups(rows: list[dict], *names: str) -> dict:
    """The rows by their value of a parameter, or their tuple of values of several, in the order of the grid."""
    found = {}
    for row in rows:
        values = tuple(row["params"][name] for name in names)
        found.setdefault(values[0] if len(names) == 1 else values, []).append(row)
    return found


def points(rows: list[dict], metric: str) -> list:
    """A metric (a number, or a list per patient) of every recorded run; None where it is missing or not finite."""
    return [row["record"]["metrics"].get(metric) for row in rows if row["record"]]


def over_seeds(rows: list[dict], metric: str, *, interval: str = "range", level: float = 0.95) -> dict:
    """Spread over runs that differ in the seed alone: `points`, `mean`, `low`, `high` (NaN without a number).

    `interval`: "range", from the lowest point to the highest; or "t", Student's t interval of the mean, which needs
    two points or more (else NaN) and takes them as normal. A list per patient counts with its mean.
    """
    if interval not in ("range", "t"):
        raise ValueError(f"interval is {interval!r}, expected range or t")
    values = [np.nanmean(_floats(p)) if isinstance(p, list) else p for p in points(rows, metric)]
    values = [float(value) for value in values if value is not None and math.isfinite(value)]
    mean = float(np.mean(values)) if values else math.nan
    low, high = (min(values), max(values)) if values else (math.nan, math.nan)
    if interval == "t":
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        half = float(t.ppf((1 + level) / 2, max(len(values) - 1, 1))) * error
        low, high = mean - half, mean + half
    return {"points": values, "mean": mean, "low": low, "high": high}


def over_patients(rows: list[dict], metric: str, *, statistic: Callable = np.nanmean, level: float = 0.95) -> dict:
    """Bootstrap over patients of a metric that is a list per patient: `points` (one a patient), `mean`, `low`, `high`.

    The runs must be of the same patients in the same order; a patient's values are first averaged over the runs, so
    that the interval is that of patients, not of seeds. Raises ValueError otherwise.
    """
    lists = [p for p in points(rows, metric) if p is not None]
    lengths = sorted({len(p) if isinstance(p, list) else 0 for p in lists})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(f"{metric}: lists of lengths {lengths}; expected one value per patient, as many in every run")
    values = np.stack([_floats(p) for p in lists])
    values = values[:, ~np.isnan(values).any(axis=0)].mean(axis=0)
    low, high = bootstrap_interval(statistic, values, level=level)
    return {"points": values.tolist(), "mean": float(statistic(values)), "low": low, "high": high}


def _floats(values: list) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=float)
