"""`make walk`: random deployments, outcomes of scripts, writes and crashes through the pure core, with invariants."""
