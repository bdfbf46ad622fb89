"""What a sync would send, what it leaves out, and what it may do at most."""
