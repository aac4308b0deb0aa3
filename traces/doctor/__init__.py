"""A capture doctor: what is wrong with a recording, what that does to a plan, and what to do about it.

`check` reads a trace or counts in one pass, leniently: what other readers refuse is a finding here. Each rule is a
function of its module, from what the pass has observed to findings.
"""
