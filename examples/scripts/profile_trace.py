"""What does a trace say, and is there anything to gain?"""

import traces

profile = traces.Profile.of(traces.load("examples/tiny_moe/tiny_moe.npz"))
print(profile)
for name, value in traces.statistics.summary(profile).items():
    print(name, value)
