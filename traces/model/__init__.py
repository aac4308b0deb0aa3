"""Which layers of a model are MoE layers, from its config or by hand."""
