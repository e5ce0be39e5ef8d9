"""What holds in all tests. This file's place also puts the folder on the path, with the environments in it."""

import signal

import torch as th
from hypothesis import settings

# On tiny tensors a second thread costs far more than it gives, above all where tests run side by side.
th.set_num_threads(1)

# Some tests send themselves, or processes that they start, the signal of Ctrl-C, which a job in the background ignores.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
