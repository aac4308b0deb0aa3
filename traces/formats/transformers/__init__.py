"""Router logits of models in transformers, saved layer by layer: the format, and the experts they choose."""
