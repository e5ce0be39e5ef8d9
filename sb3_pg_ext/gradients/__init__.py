"""Differentiating policies: the backends, objectives and minibatches."""
