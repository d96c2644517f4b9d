"""Training OMGSR: a sharded state, one compiled step, and a loop that can be resumed exactly."""
