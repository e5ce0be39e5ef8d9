"""A pickle read as data: what it would build, as a tree, without building it.

A pickle is a program for a machine with a stack, which may call any function that Python can import.
:func:`read_pickle` runs the same program on a machine that cannot import: where a function would be looked up it notes
the name, and where it would be called it notes the call. What then is made of the names is up to the reader of the
tree (:mod:`sb3_pg_ext.checkpoints.safety.decoding`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pickletools import genops
from typing import Any, BinaryIO, NamedTuple

MAX_LONG_INTEGERS = 10_000
"""So many integers of more than 8 bytes may stand in a pickle. States of random generators have a few; with very many,
all of the same hash, a dictionary takes quadratic time."""


MAX_NAME = 200
"""So many characters the name of a module, or of what is in it, may have."""
LONGEST_MESSAGE = 2000


def printable(text: object) -> str:
    """A text as it may be printed: in one line, without what would command a terminal or turn its letters around.

    :param text: what a file says
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class UnsafeFileError(ValueError):
    """A file that is refused: what it wants is not allowed, it is damaged, or it is larger than it may be.

    :param lines: what to say. What a file says may stand in it: it is made printable
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(printable(line[:LONGEST_MESSAGE]) for line in lines))


class Refusing:
    """Within the scope, whatever fails is a refusal: what is damaged may fail in any way, each a plain message.

    :param what: what fails
    """

    def __init__(self, what: object) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, problem: BaseException | None, __: Any) -> None:
        if isinstance(problem, Exception) and not isinstance(problem, UnsafeFileError):
            raise UnsafeFileError(f"{self._what}: {problem or type(problem).__name__}") from None


@dataclass(slots=True)
class Budget:
    """What is left of what a file may ask for. A few bytes of a pickle may stand for very much.

    :param instructions: so many instructions its pickles may have
    :param items: so many numbers, texts and containers they may build, counted wherever they stand
    :param n_bytes: so many bytes texts, bytes and arrays may have, counted likewise
    """

    instructions: int
    items: int
    n_bytes: int

    @classmethod
    def of_file(cls, size: int, unpacked: int = 0) -> "Budget":
        """What a file may ask for.

        :param size: its size in bytes
        :param unpacked: that of what is packed in it
        """
        return cls(1_000_000 + size // 16, 1_000_000 + size // 16, 64 * 1024**2 + 4 * max(size, unpacked))

    def spend(self, items: int, n_bytes: int = 0) -> None:
        """Take from what is left.

        :raises UnsafeFileError: if it is not enough
        """
        self.items -= items
        self.n_bytes -= n_bytes
        if self.items < 0 or self.n_bytes < 0:
            raise UnsafeFileError("it stands for far more than it is large")


@dataclass(frozen=True)
class Name:
    """Something that the pickle would import.

    :param module: from where
    :param name: which
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Call:
    """An object that the pickle would make by calling something.

    :param function: what is called
    :param args: with what
    :param kwargs: and with what by name
    :param new: whether it is the class's ``__new__`` that is called
    :param state: what the object's state is set to, if it is
    :param setter: what sets it, if it is not the object itself
    :param items: what is appended or added to it
    :param pairs: what is set under keys of it
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    new: bool = False
    state: Any = None
    setter: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Storage:
    """The memory of a tensor, which lies beside the pickle in a file of PyTorch's.

    :param kind: ``"storage"``
    :param type: the class of storage, which says the type of its numbers
    :param key: the name of the file that it lies in
    :param location: the device
    :param size: how many numbers it holds
    """

    kind: Any
    type: Any
    key: Any
    location: Any
    size: Any


CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {
    *("BININT", "BININT1", "BININT2", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Pickle(NamedTuple):
    """What a pickle would do.

    :param tree: what it would build
    :param names: what it would import, whether or not it ends up in what it builds
    :param called: and what of that it would call
    """

    tree: Any
    names: frozenset[Name]
    called: frozenset[Name]


def read_pickle(pickled: bytes | BinaryIO, budget: Budget) -> Pickle:
    """Read what a pickle would build.

    :param pickled: the pickle, of protocol 2 to 5; of an open file, the one that begins where it stands
    :param budget: what its file may still ask for
    :return: as a tree: numbers, strings, bytes, tuples, lists, sets and dictionaries as they are; :class:`Name`,
        :class:`Call` and :class:`Storage` for everything else
    :raises UnsafeFileError: for a pickle that is damaged, or does what no file of SB3 has to do (extension codes,
        instructions of protocol 0)
    """
    machine = Machine()
    with Refusing("a damaged pickle"):
        for opcode, argument, position in genops(pickled):
            budget.instructions -= 1
            if budget.instructions < 0:
                raise UnsafeFileError("a pickle of too many instructions")
            if opcode.name == "STOP":
                (tree,) = machine.stack
                return Pickle(tree, frozenset(machine.names), frozenset(machine.called))
            machine.run(opcode.name, argument, position)
    raise UnsafeFileError("a damaged pickle: it does not stop")


class Machine:
    """The stack, the marks and the memory of a pickle, without the means to import or to call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.names: set[Name] = set()
        self.called: set[Name] = set()
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._n_long_integers = 0

    def run(self, name: str, argument: Any, position: int | None) -> None:
        """Carry out an instruction.

        :param name: its name in :mod:`pickletools`
        :param argument: what stands behind it
        :param position: where it stands
        """
        if name in LITERALS:
            self.stack.append(argument)
        elif name in {"MEMOIZE", "BINPUT", "LONG_BINPUT"}:
            self._memo[len(self._memo) if argument is None else argument] = self.stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            self.stack.append(self._memo[argument])
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in CONTAINERS:
            self.stack.append(CONTAINERS[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self._pop(TUPLES[name])))
        elif name == "LONG1":
            self._n_long_integers += len(bin(argument)) > 64
            if self._n_long_integers > MAX_LONG_INTEGERS:
                raise UnsafeFileError(f"a pickle with more than {MAX_LONG_INTEGERS} long integers")
            self.stack.append(argument)
        elif name not in {"PROTO", "FRAME"}:
            instruction = INSTRUCTIONS.get(name)
            if instruction is None:
                raise UnsafeFileError(f"a pickle with the instruction {name} at byte {position}")
            instruction(self, argument)

    def _pop(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise UnsafeFileError("a damaged pickle: it takes more from its stack than there is")
        taken = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return taken

    def _since_mark(self) -> list[Any]:
        taken = self.stack
        self.stack = self._below.pop()
        return taken

    def _run_mark(self, _: None) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _run_pop(self, _: None) -> None:
        if not self.stack:
            self._since_mark()
            return
        match self.stack.pop():  # a function that was called for its effect on an object, as objects of classes ask for
            case Call(args=(Call(state=None) as made, state)) as setter:
                made.state, made.setter = state, setter.function

    def _run_pop_mark(self, _: None) -> None:
        self._since_mark()

    def _run_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _run_tuple(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _run_list(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(list(items))

    def _run_dict(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(dict(_pairs(items)))

    def _run_frozenset(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(frozenset(_hashable(items)))

    def _run_append(self, _: None) -> None:
        self._extend(self._pop(1))

    def _run_appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _run_additems(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        match self.stack[-1]:
            case Call(items=collected) | list(collected):
                collected.extend(items)
            case set() as members:
                members.update(_hashable(items))
            case other:
                raise UnsafeFileError(f"a pickle that adds to an object of type {type(other).__name__}")

    def _run_setitem(self, _: None) -> None:
        self._update(self._pop(2))

    def _run_setitems(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        match self.stack[-1]:
            case dict() as mapping:
                mapping.update(_pairs(items))
            case Call(pairs=pairs):
                pairs.extend(_pairs(items))
            case other:
                raise UnsafeFileError(f"a pickle that sets items of an object of type {type(other).__name__}")

    def _run_binpersid(self, _: None) -> None:
        kind, of_type, key, location, size, *_views = _tuple_of(*self._pop(1))
        self.stack.append(Storage(kind, of_type, key, location, size))

    def _run_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._import(module, name)

    def _run_stack_global(self, _: None) -> None:
        self._import(*self._pop(2))

    def _import(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise UnsafeFileError("a damaged pickle: a name that is no string")
        if max(len(module), len(name)) > MAX_NAME:
            raise UnsafeFileError(f"a name of more than {MAX_NAME} characters: {module[:50]}.{name[:50]}…")
        found = Name(module, name)
        self.names.add(found)
        self.stack.append(found)

    def _run_reduce(self, _: None) -> None:
        function, args = self._pop(2)
        self._call(Call(function, _tuple_of(args)))

    def _run_newobj(self, _: None) -> None:
        cls, args = self._pop(2)
        self._call(Call(cls, _tuple_of(args), new=True))

    def _run_newobj_ex(self, _: None) -> None:
        cls, args, kwargs = self._pop(3)
        if not isinstance(kwargs, dict):
            raise UnsafeFileError("a damaged pickle: arguments by name that are no dictionary")
        self._call(Call(cls, _tuple_of(args), kwargs, new=True))

    def _call(self, call: Call) -> None:
        if isinstance(call.function, Name):
            self.called.add(call.function)
        self.stack.append(call)

    def _run_build(self, _: None) -> None:
        (state,) = self._pop(1)
        made = self.stack[-1]
        if not isinstance(made, Call) or made.state is not None:
            raise UnsafeFileError("a pickle that sets the state of what it has not just made")
        made.state = state


INSTRUCTIONS = {
    name.removeprefix("_run_").upper(): method for name, method in vars(Machine).items() if name.startswith("_run_")
}


def _tuple_of(args: Any) -> tuple[Any, ...]:
    if not isinstance(args, tuple):
        raise UnsafeFileError("a damaged pickle: arguments that are no tuple")
    return args


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(_hashable(items[::2]), items[1::2], strict=True)


KEYS = (str, int, float, bytes, type(None), Name, Call)


def _hashable(items: list[Any]) -> list[Any]:
    """Refuse keys whose hashes take long, or can be made equal: tuples and sets of other things."""
    for item in items:
        if not isinstance(item, KEYS):
            raise UnsafeFileError(f"a pickle with a {type(item).__name__} as a key")
    return items
