"""The machine: nodes, GPUs, links, from shorthand, files and what machines say of themselves."""
