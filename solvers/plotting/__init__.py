"""Charts: SVG without a library, matplotlib where it is there."""
