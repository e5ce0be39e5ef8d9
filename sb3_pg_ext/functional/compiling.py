"""Compiling the gradient of a minibatch, and a step of learning from a stream, with numba, where that is installed."""

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sb3_pg_ext.functional import action_heads, arrays, minibatch, shared_trace, streaming, surrogates

Differentiate = Callable[..., tuple[float, float, float, float, float, float]]

OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
"""Division by zero gives infinity or NaN, as in NumPy; a·b + c may be rounded once."""

STREAMING_OPTIONS: dict[str, Any] = {**OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}
"""Sums may be taken in another order, too: those of absolute values are vectorised then."""

CALLED_FROM_NUMBA: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of functions that only compiled ones call: without what Python and C would call them by."""


@functools.cache
def is_available() -> bool:
    """Whether numba is installed, and SciPy, whose matrix products it calls."""
    return find_spec("numba") is not None and find_spec("scipy") is not None


@functools.cache
def compiled() -> Differentiate:
    """:func:`~sb3_pg_ext.functional.minibatch.differentiate`, compiled.

    That takes some 10 seconds, and is kept for later processes beside the module or, where nothing can be written
    there, in the user's own cache; ``NUMBA_CACHE_DIR`` names another place. Where there is none, every process compiles
    it anew.
    """
    return _compile(minibatch, ["differentiate"], OPTIONS, _signature())[0]


@functools.cache
def compiled_streaming() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """:func:`~sb3_pg_ext.functional.streaming.learn` and ``predict``, compiled at the first call, and kept likewise."""
    learn, predict = _compile(streaming, ["learn", "predict"], STREAMING_OPTIONS)
    return learn, predict


@functools.cache
def compiled_shared_trace() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """:func:`~sb3_pg_ext.functional.shared_trace.learn` and ``predict``, likewise."""
    learn, predict = _compile(shared_trace, ["learn", "predict"], STREAMING_OPTIONS)
    return learn, predict


def _compile(module: types.ModuleType, entries: list[str], options: dict[str, Any], signature: Any = None) -> list[Any]:
    """Functions of a module, compiled with all functions that it has, imported ones included.

    :param module: the module
    :param entries: names of those that are called from outside
    :param options: numba's
    :param signature: types of the entries; ``None`` for those of the first call
    """
    from numba import njit

    import_module("scipy.linalg.cython_blas")  # numba would load it at the first product, in the midst of a training
    names: dict[str, Any] = {"array_at": _make_array_at()}
    functions = [f for name, f in vars(module).items() if isinstance(f, types.FunctionType) and name not in names]
    copies = {function.__name__: _with_names(function, names) for function in functions}
    names |= {name: njit(**options, **CALLED_FROM_NUMBA)(copy) for name, copy in copies.items() if name not in entries}
    for copy in copies.values():  # compiled when first called: by then each knows all others
        copy.__globals__.update(names)
    compiled_entries = []
    for entry in entries:
        function = copies[entry]
        function.__qualname__ += f"_{_digest()}"  # by the name numba finds it in its cache
        make = njit if signature is None else functools.partial(njit, signature)
        try:
            compiled_entries.append(make(cache=True, **options)(function))
        except (RuntimeError, OSError):
            compiled_entries.append(make(**options)(function))
    return compiled_entries


def _make_array_at() -> Any:
    import numba
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        signature = numba.types.CPointer(numba.float32)(address)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    @numba.njit(**CALLED_FROM_NUMBA)
    def array_at(address: Any, shape: Any) -> Any:
        return numba.carray(pointer(address), shape)  # type: ignore[call-arg]

    return array_at


def _signature() -> Any:
    """The types of what :func:`~sb3_pg_ext.functional.minibatch.differentiate` takes and gives."""
    from numba import types as t

    vector, matrix, sizes = t.float32[::1], t.float32[:, ::1], t.int64[::1]
    network = t.int64[:, ::1], vector
    head = t.int64, sizes, vector, vector
    steps = matrix, t.boolean[:, ::1], matrix, vector, vector, vector, vector, t.UniTuple(matrix, 2)
    coefficients, flag, number = (t.float64,) * 3, t.boolean, t.float64
    objective = *coefficients, flag, flag, number, number
    return t.UniTuple(number, 6)(*network, *network, *head, *steps, *objective)


def _with_names(function: Callable[..., Any], names: dict[str, Any]) -> types.FunctionType:
    """The same function, for which some names mean something else."""
    assert isinstance(function, types.FunctionType)
    scope = {**function.__globals__, **names}
    return types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)


def _digest() -> str:
    """Of what is compiled beside the module itself, which alone numba compares with its cache."""
    sources = map(inspect.getsource, (action_heads, arrays, minibatch, streaming, surrogates, sys.modules[__name__]))
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:16]
