"""Files from strangers: looking into them, and loading them, without running anything that they bring along."""
