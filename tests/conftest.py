"""What holds in all tests. This file's place also puts the folder on the path, with the environments in it."""

import torch as th
from hypothesis import settings

# On tiny tensors a second thread costs far more than it gives, above all where tests run side by side.
th.set_num_threads(1)

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
