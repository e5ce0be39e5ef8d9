"""Non-finite numbers: counted, undone, and kept out of running statistics."""
