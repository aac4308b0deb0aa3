"""What a change of placement is worth in time, and whether the data can tell.

The order of the data is the order of the modules: `sample` (tokens as passes), `timing` (a plan on them), `judging`
(before and after, with an interval), `without_ep` (what else could be done with the same machine), `stalling` (what it
takes to get there).
"""
