"""What holds in all tests. This file's place also puts the folder on the path, with the environments in it."""

import multiprocessing
import signal

import torch as th
from hypothesis import settings

# On tiny tensors a second thread costs far more than it gives, above all where tests run side by side.
th.set_num_threads(1)

# The fork server imports what workers need if their pool starts it, but some tests start it with a SubprocVecEnv: then
# every worker would take seconds to start.
multiprocessing.set_forkserver_preload(
    ["sb3_pg_ext.algorithms.a3c.worker", "sb3_pg_ext.algorithms.impala.actor", "sb3_pg_ext.workers.preload"]
)

# Some tests send themselves, or processes that they start, the signal of Ctrl-C, which a job in the background ignores.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
