"""What a search, a front, a plan and a profile look like, on axes of matplotlib."""

from __future__ import annotations

from typing import Any

from placement import Plan, Problem, score
from solvers.fronts.points import Front
from solvers.searching.axes import axes_or_new
from solvers.searching.solution import Solution
from traces import InputError, Profile

__all__ = ["plot_affinity", "plot_front", "plot_history", "plot_loads"]


def plot_history(solution: Solution, ax: Any | None = None) -> Any:
    """Draw a search's score and bound over time.

    Parameters
    ----------
    solution : Solution
    ax : matplotlib.axes.Axes, optional
        A new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    return solution.plot(ax)


def plot_front(front: Front, ax: Any | None = None) -> Any:
    """Draw a front's cost over the figure that it is weighed against, the knee marked; see `plot_history`."""
    return front.plot(ax)


def plot_loads(problem: Problem, plan: Plan, ax: Any | None = None) -> Any:
    """Draw the largest load of each layer relative to the fair share, 1 and the load cap as lines.

    Parameters
    ----------
    problem : Problem
    plan : Plan
        Of the problem's sizes.
    ax : matplotlib.axes.Axes, optional
        A new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax = axes_or_new(ax)
    load = score(problem, plan.physical_to_logical_map).max_load
    ax.bar([str(layer) for layer in problem.profile.layer_ids], load, color="tab:blue")
    ax.axhline(1.0, color="black", linewidth=0.8)
    cap = problem.constraints.load_cap
    if cap is not None:
        ax.axhline(cap, color="tab:red", linewidth=0.8, linestyle="--", label=f"load cap {cap:g}")
        ax.legend()
    ax.set(xlabel="layer", ylabel="busiest GPU / fair share", ylim=(0.98 * min(1.0, float(load.min())), None))
    return ax


def plot_affinity(profile: Profile, layer: int, ax: Any | None = None) -> Any:
    """Draw how often tokens go from each expert of a layer to each of the next: rows add up to 1.

    Parameters
    ----------
    profile : Profile
        Of tokens.
    layer : int
        Row of the profile; not the last one.
    ax : matplotlib.axes.Axes, optional
        A new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If the profile holds counts only, or the layer has none after it.
    ImportError
        If matplotlib is not installed.
    """
    if profile.affinity is None:
        detail = "The profile holds counts per expert only; affinity needs tokens."
        raise InputError.of("counts_only", "/profile", detail, "Record a trace with token identity (topk_ids).")
    if not 0 <= layer < len(profile.affinity):
        detail = f"Layer {layer} is not one of 0..{len(profile.affinity) - 1}."
        raise InputError.of("layer_unknown", "/layer", detail, "Give a row of the profile that another follows.")
    ax = axes_or_new(ax)
    pairs = profile.affinity[layer].astype(float)
    share = pairs / pairs.sum(axis=1, keepdims=True).clip(min=1.0)
    image = ax.imshow(share, cmap="Blues", vmin=0.0, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="share of the tokens")
    here, following = profile.layer_ids[layer : layer + 2].tolist()
    ax.set(xlabel=f"expert of layer {following}", ylabel=f"expert of layer {here}")
    return ax
