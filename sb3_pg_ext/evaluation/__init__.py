"""From training runs to statements: sweeps over seeds, and what a run leaves behind."""
