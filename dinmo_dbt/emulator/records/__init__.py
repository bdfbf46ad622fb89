"""Records: the rules of fields, the engine that writes them, the calls that carry one or two hundred."""
