"""What a trace says, and whether there is anything to gain."""

import traces

profile = traces.Profile.of(traces.load("examples/tiny_moe/tiny_moe.npz"))
print(profile)
for name, value in traces.statistics.summary(profile).items():
    print(name, value)
