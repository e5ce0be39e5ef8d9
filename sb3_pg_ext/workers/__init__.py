"""A pool of worker processes: starting, watching, replacing and stopping them, and what they share."""
