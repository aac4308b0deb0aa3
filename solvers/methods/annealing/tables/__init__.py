"""Annealing where tables over pairs of slots price a swap: context-coherent, or dispatch without deduplication."""
