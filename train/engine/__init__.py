"""The pretraining engine: ranks, data ahead of the step, the step loop, exact resume."""
