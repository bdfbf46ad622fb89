"""When activations run, and which notices people get of their runs. Pure."""
