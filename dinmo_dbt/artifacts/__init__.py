"""What dbt left: its manifest, its run results, and what they say of the activations."""
