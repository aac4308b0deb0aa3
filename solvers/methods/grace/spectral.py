"""Groups of bounded sizes in a weighted graph: spectral embedding, then k-means with room in every cluster.

References
----------
Ng, Jordan and Weiss, "On spectral clustering", NIPS 2001, for the embedding; Bradley, Bennett and Demiriz, "Constrained
k-means clustering", MSR-TR-2000-65, for the assignment with sizes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["embed", "group", "kept_weight"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FORBIDDEN = 1e6  # far above the squared distance of two unit vectors, which is at most 4
ROUNDS = 50  # of k-means; it rarely needs ten
SAME = 1e-9  # relative weight below which two groupings are equally good


def embed(weight: Floats, dimensions: int) -> Floats:
    """Return unit vectors (n, dimensions) that are near each other where vertices are strongly joined.

    Parameters
    ----------
    weight : (n, n) float64
        Symmetric, not negative; the diagonal is ignored.
    dimensions : int
        Eigenvectors of the smallest eigenvalues of the normalised Laplacian to use, at most n.
    """
    from scipy.linalg import eigh

    joined = weight - np.diag(weight.diagonal())
    degree = joined.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros(len(degree)), where=degree > 0)
    laplacian = np.eye(len(joined)) - scale[:, None] * joined * scale
    vectors: Floats = eigh(laplacian, subset_by_index=[0, dimensions - 1])[1]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-12)
    return unit


def kept_weight(weight: Floats, cluster: Ints) -> float:
    """Return the weight of the pairs inside clusters, each counted twice."""
    inside = (cluster[:, None] == cluster) & ~np.eye(len(cluster), dtype=bool)
    return float(weight[inside].sum())


def group(
    weight: Floats, low: npt.ArrayLike, high: npt.ArrayLike, rng: np.random.Generator, *, restarts: int = 4
) -> Ints:
    """Split vertices into clusters that keep much of the weight inside.

    Parameters
    ----------
    weight : (n, n) float64
        Symmetric, not negative.
    low, high : (P,) integers
        Fewest and most vertices of each cluster; ``sum(low) <= n <= sum(high)``.
    rng : numpy.random.Generator
        Draws the first centre of each restart; the others are drawn with k-means++.
    restarts : int
        Runs of k-means. The grouping that keeps the most weight wins, the first of equals.

    Returns
    -------
    (n,) int64
        Cluster of each vertex.
    """
    fewest, most = np.asarray(low, np.int64), np.asarray(high, np.int64)
    if len(most) == 1:
        return np.zeros(len(weight), np.int64)
    points = embed(weight, min(len(most), len(weight)))
    best, kept = np.zeros(len(weight), np.int64), -1.0
    for _ in range(restarts):
        cluster = _cluster(points, _centres(points, len(most), rng), fewest, most)
        value = kept_weight(weight, cluster)
        if value > kept + SAME * abs(kept):
            best, kept = cluster, value
    return best


def _centres(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Draw centres with k-means++: a point is the likelier, the farther it is from those drawn before."""
    chosen = [int(rng.integers(len(points)))]
    for _ in range(1, count):
        distance = _squared_distance(points, points[chosen]).min(axis=1)
        total = distance.sum()
        likely = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(points), p=likely)))
    return points[chosen]


def _cluster(points: Floats, centres: Floats, low: Ints, high: Ints) -> Ints:
    """Assign and average in turns until nothing moves."""
    cluster = np.full(len(points), -1)
    for _ in range(ROUNDS):
        following = _assign(_squared_distance(points, centres), low, high)
        if np.array_equal(following, cluster):
            break
        cluster = following
        held = np.eye(len(centres))[cluster]
        size = held.sum(axis=0)[:, None]
        centres = np.where(size > 0, held.T @ points / np.maximum(size, 1), centres)
    return cluster


def _squared_distance(points: Floats, centres: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    distance: Floats = cdist(points, centres, "sqeuclidean")
    return distance


def _assign(distance: Floats, low: Ints, high: Ints) -> Ints:
    """Return the assignment (n,) of least total distance with sizes between `low` and `high`."""
    from scipy.optimize import linear_sum_assignment

    vertices, clusters = distance.shape
    place = np.repeat(np.arange(clusters), high)
    needed = np.concatenate([np.arange(most) < least for least, most in zip(low, high, strict=True)])
    # Nobody's places: they must not be needed ones.
    empty = np.tile(np.where(needed, FORBIDDEN, 0.0), (len(place) - vertices, 1))
    _, column = linear_sum_assignment(np.vstack([distance[:, place], empty]))
    cluster: Ints = place[column[:vertices]]
    return cluster
