"""What `init` writes: a first activation, and an object for the emulator."""
