"""A pickle read as data: what it would build, as a tree, without building it.

A pickle is a program for a machine with a stack, which may call any function that Python can import.
:func:`read_pickle` runs the same program on a machine that cannot import: where a function would be looked up it notes
the name, and where it would be called it notes the call. What then is made of the names is up to the reader of the
tree (:mod:`sb3_pg_ext.checkpoints.safety.decoding`).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pickletools import opcodes
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
    start, content = (0, pickled) if isinstance(pickled, bytes) else (pickled.tell(), pickled.read())
    with Refusing("a damaged pickle"):
        end = machine.run(content, budget)
        (tree,) = machine.stack
    if not isinstance(pickled, bytes):
        pickled.seek(start + end)
    return Pickle(tree, frozenset(machine.names), frozenset(machine.called))


BINPUT, BINGET, MEMOIZE, BININT1, STOP = b"qh\x94K."


class Machine:
    """The stack, the marks and the memory of a pickle, without the means to import or to call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.names: set[Name] = set()
        self.called: set[Name] = set()
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._n_long_integers = 0

    def run(self, content: bytes, budget: Budget) -> int:
        """Carry out the instructions of a pickle; those that are most frequent without further calls.

        :param content: the pickle, and what follows it
        :param budget: what its file may still ask for
        :return: where it ends
        """
        stack, memo, at, n_done = self.stack, self._memo, 0, 0
        n_allowed = budget.instructions
        try:
            while n_done < n_allowed:
                n_done += 1
                code = content[at]
                if code == BINPUT:
                    memo[content[at + 1]] = stack[-1]
                    at += 2
                elif code == BINGET:
                    stack.append(memo[content[at + 1]])
                    at += 2
                elif code == MEMOIZE:
                    memo[len(memo)] = stack[-1]
                    at += 1
                elif code == BININT1:
                    stack.append(content[at + 1])
                    at += 2
                elif code == STOP:
                    return at + 1
                else:
                    read, carry_out = INSTRUCTIONS.get(code, (None, None))
                    if carry_out is None:
                        name = NAMES.get(chr(code), f"{code:#x}")
                        raise UnsafeFileError(f"a pickle with the instruction {name} at byte {at}")
                    argument, at = (None, at + 1) if read is None else read(content, at + 1)
                    carry_out(self, argument)
                    stack = self.stack
        finally:
            budget.instructions -= n_done
        raise UnsafeFileError("a pickle of too many instructions")

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def _push_long(self, number: int) -> None:
        self._n_long_integers += number.bit_length() > 62
        if self._n_long_integers > MAX_LONG_INTEGERS:
            raise UnsafeFileError(f"a pickle with more than {MAX_LONG_INTEGERS} long integers")
        self.stack.append(number)

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

    def _import_lines(self, lines: list[str]) -> None:
        self._import(*lines)

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


Read = Callable[[bytes, int], tuple[Any, int]]
"""From the place behind an instruction to its argument, and to where that ends."""


def _of_length(width: int) -> Read:
    """Bytes that stand behind their number, which takes so many bytes."""

    def read(content: bytes, at: int) -> tuple[bytes, int]:
        begin = at + width
        end = begin + int.from_bytes(content[at:begin], "little")
        if end > len(content):
            raise UnsafeFileError("a damaged pickle: it ends too early")
        return content[begin:end], end

    return read


def _text(width: int) -> Read:
    read = _of_length(width)

    def read_text(content: bytes, at: int) -> tuple[str, int]:
        encoded, end = read(content, at)
        return encoded.decode("utf-8", "surrogatepass"), end

    return read_text


def _number(code: str) -> Read:
    layout = struct.Struct(code)
    return lambda content, at: (layout.unpack_from(content, at)[0], at + layout.size)


def _long(content: bytes, at: int) -> tuple[int, int]:
    encoded, end = _of_length(1)(content, at)
    return int.from_bytes(encoded, "little", signed=True), end


def _bytearray(content: bytes, at: int) -> tuple[bytearray, int]:
    encoded, end = _of_length(8)(content, at)
    return bytearray(encoded), end


def _lines(content: bytes, at: int) -> tuple[list[str], int]:
    middle = content.index(b"\n", at)
    end = content.index(b"\n", middle + 1)
    return [content[at:middle].decode(), content[middle + 1 : end].decode()], end + 1


def _pushing(make: Any) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _tuple_of_last(n: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine._pop(n)))


_BY_NAME: dict[str, tuple[Read | None, Callable[[Machine, Any], None]]] = {
    **{
        name.removeprefix("_run_").upper(): (None, method)
        for name, method in vars(Machine).items()
        if name.startswith("_run_")
    },
    "GLOBAL": (_lines, Machine._import_lines),
    **{
        name: (read, Machine._push)
        for name, read in {
            "BININT": _number("<i"),
            "BININT2": _number("<H"),
            "BINFLOAT": _number(">d"),
            "SHORT_BINUNICODE": _text(1),
            "BINUNICODE": _text(4),
            "BINUNICODE8": _text(8),
            "SHORT_BINBYTES": _of_length(1),
            "BINBYTES": _of_length(4),
            "BINBYTES8": _of_length(8),
            "BYTEARRAY8": _bytearray,
        }.items()
    },
    "LONG1": (_long, Machine._push_long),
    "LONG_BINPUT": (_number("<I"), Machine._put),
    "LONG_BINGET": (_number("<I"), Machine._get),
    "PROTO": (_number("B"), lambda machine, _: None),
    "FRAME": (_number("<Q"), lambda machine, _: None),
    **{
        name: (None, _pushing(make))
        for name, make in {
            "NONE": lambda: None,
            "NEWTRUE": lambda: True,
            "NEWFALSE": lambda: False,
            "EMPTY_TUPLE": tuple,
            "EMPTY_LIST": list,
            "EMPTY_DICT": dict,
            "EMPTY_SET": set,
        }.items()
    },
    **{f"TUPLE{n}": (None, _tuple_of_last(n)) for n in (1, 2, 3)},
}
NAMES = {instruction.code: instruction.name for instruction in opcodes}
INSTRUCTIONS = {ord(code): _BY_NAME[name] for code, name in NAMES.items() if name in _BY_NAME}


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
