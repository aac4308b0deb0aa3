"""Exact optimum of small context-coherent problems."""
