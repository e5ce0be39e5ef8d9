"""Arrays in shared memory."""

import torch as th


class SharedArray:
    """A NumPy array of zeros in shared memory: what a process is started with is the same memory.

    Nothing is locked, so every element should have one writer. The memory has no name once it is passed on, and is
    freed with the last process that uses it.

    :param shape: its shape
    :param dtype: the type of its numbers
    """

    def __init__(self, *shape: int, dtype: th.dtype = th.int64) -> None:
        self.__setstate__(th.zeros(shape, dtype=dtype).share_memory_())

    def __getstate__(self) -> th.Tensor:
        return self._tensor

    def __setstate__(self, tensor: th.Tensor) -> None:
        self._tensor = tensor
        self.array = tensor.numpy()  # several times faster for single numbers
