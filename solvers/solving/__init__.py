"""The front door of the solvers: loops compiled, the clock started, a method run."""
