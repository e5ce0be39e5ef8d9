"""Imported by the fork server once, instead of by every worker: what PyTorch imports with the first optimiser.

That takes longer than everything else at a worker's start together, 1.7 of 1.8 s.
"""

import torch as th

th.optim.SGD([th.nn.Parameter(th.zeros(1))])
