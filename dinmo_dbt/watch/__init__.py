"""When activations run, and what people are told of their runs. Pure."""
