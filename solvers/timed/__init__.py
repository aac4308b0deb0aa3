"""Time as what is minimised: milliseconds per forward pass where machine and model are known.

The order of the data is the order of the modules: `request` (what is asked), `judge` (a plan's time on passes),
`weights` (what a message and a load are worth there), `bound` (what no plan goes below), `searching` (candidates,
chosen by their time).
"""
