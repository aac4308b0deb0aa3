"""The methods, one module or folder each, kernels beside them."""
