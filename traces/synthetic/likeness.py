"""How much more alike the tokens of one sequence are than tokens of different ones."""

from __future__ import annotations

import numpy as np

from traces.profile.sample import TokenSample

__all__ = ["likeness"]


def likeness(sample: TokenSample, num_experts: int) -> float | None:
    """Return by how many shared experts two tokens of one sequence exceed two of different ones.

    Parameters
    ----------
    sample : TokenSample
    num_experts : int

    Returns
    -------
    float or None
        Experts per token and layer, mean over layers; None without sequences, or if no two sampled tokens share one.
    """
    if len(sample) == 0 or sample.seq_id.min() < 0:
        return None
    _, sequence, size = np.unique(sample.seq_id, return_inverse=True, return_counts=True)
    sequence = sequence.ravel()
    same_pairs = int((size * (size - 1)).sum())
    other_pairs = len(sample) ** 2 - int((size**2).sum())
    if not same_pairs or not other_pairs:
        return None
    excess = []
    for ids in np.moveaxis(sample.topk_ids.astype(np.int64), 1, 0):
        present = ids >= 0
        cells = np.broadcast_to(sequence[:, None], ids.shape)[present] * num_experts + ids[present]
        squares = float((np.unique(cells, return_counts=True)[1] ** 2).sum())
        total = float((np.bincount(ids[present]) ** 2).sum())
        # A token shares all its experts with itself.
        excess.append((squares - float(present.sum())) / same_pairs - (total - squares) / other_pairs)
    return float(np.mean(excess))
