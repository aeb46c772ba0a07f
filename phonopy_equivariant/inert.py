"""What a pickle says, without doing what it asks for.

A pickle is a program that builds objects by calling whatever it names. Here the program is only
followed: a global becomes its name, a call becomes a :class:`Node` with its arguments, and
nothing is imported, called or looked up. Containers, numbers, text and bytes are what they are.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError


class Node:
    """A call that was not made: the name of what would be called, its arguments, its state."""

    __slots__ = ("arguments", "items", "memo", "name", "state")

    def __init__(self, name: Any, arguments: Any):
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.items: list[Any] = []
        self.memo: int | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.arguments!r}>"


class Name(str):
    """The name of a global, "module.name"."""

    __slots__ = ()


_MARK = object()

# opcodes whose argument is the value
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}


def pickled_items(
    file: Any,
    finish: Callable[[Node], Any] = lambda node: node,
    allow: Callable[[Name], None] = lambda name: None,
    persistent: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Yield the items of a pickled dictionary, with nodes in place of objects.

    They come as soon as the program has put them there, so that not all need fit into memory.

    Parameters
    ----------
    file
        Opened for reading bytes: a file, or a member of an archive.
    finish
        Sees every node once its state is known and returns what shall stand in its place, to
        save memory.
    allow
        Sees the name of every global; raises PhonopyEquivariantError to refuse it.
    persistent
        Whether references to storage outside the pickle are allowed, as in files of torch. Each
        becomes a node without a name whose arguments are the reference.

    Raises
    ------
    PhonopyEquivariantError
        Damaged, not of a dictionary, or with opcodes that plain data do not need.

    """
    machine = _Machine(finish, allow, persistent)
    for opcode in _steps(file, machine):
        bottom = machine.stack[0] if machine.stack else {}
        finished = opcode == "STOP"
        if finished and isinstance(bottom, Node) and bottom.name == "collections.OrderedDict":
            yield from bottom.items
            return
        if finished and not isinstance(bottom, dict):
            raise PhonopyEquivariantError("the pickle holds no dictionary.")
        plain = len(machine.stack) == 1 and isinstance(bottom, dict)
        if finished or (plain and opcode.startswith("SETITEM")):
            yield from bottom.items()
            bottom.clear()


def pickled_object(
    file: Any, allow: Callable[[Name], None] = lambda name: None, persistent: bool = False
) -> Any:
    """Return what a pickle holds, with nodes in place of objects.

    Parameters and errors are those of :func:`pickled_items`, except that the pickle may hold
    anything.
    """
    machine = _Machine(lambda node: node, allow, persistent)
    for _ in _steps(file, machine):
        pass
    if len(machine.stack) != 1:
        raise PhonopyEquivariantError("the pickle is damaged; download it again.")
    return machine.stack[0]


def _steps(file: Any, machine: _Machine) -> Iterator[str]:
    """Follow a pickle and yield the name of each opcode after its step, "STOP" at the end."""
    program = pickletools.genops(file)
    name = ""
    while name != "STOP":
        try:
            opcode, argument, position = next(program)
            name = opcode.name
            machine.step(name, argument, position)
        except PhonopyEquivariantError:
            raise
        except Exception as error:  # a damaged program fails anywhere
            raise PhonopyEquivariantError(
                f"the pickle is damaged ({type(error).__name__}: {str(error)!r:.80}); download it "
                "again."
            ) from error
        yield name


class _Machine:
    """Stack and memo of the pickle program."""

    def __init__(
        self, finish: Callable[[Node], Any], allow: Callable[[Name], None], persistent: bool
    ):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.finish = finish
        self.allow = allow
        self.persistent = persistent

    def step(self, name: str, argument: Any, position: int | None) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        else:
            operation = getattr(self, f"op_{name.lower()}", None)
            if operation is None or (name == "BINPERSID" and not self.persistent):
                raise PhonopyEquivariantError(
                    f"the pickle has the opcode {name} at byte {position}, which plain data do "
                    "not need; it is not read."
                )
            operation(argument)

    def _since_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def op_proto(self, _: Any) -> None: ...

    def op_frame(self, _: Any) -> None: ...

    def op_stop(self, _: Any) -> None: ...

    def op_pop(self, _: Any) -> None:
        self.stack.pop()

    def op_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_memoize(self, _: Any) -> None:
        self.op_put(len(self.memo))

    def op_put(self, argument: int) -> None:
        value = self.stack[-1]
        self.memo[argument] = value
        if isinstance(value, Node):
            value.memo = argument

    op_binput = op_long_binput = op_put

    def op_get(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    op_binget = op_long_binget = op_get

    def op_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def op_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def op_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def op_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def op_list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def op_dict(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def op_append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def op_appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def op_additems(self, _: Any) -> None:
        self.stack[-1].update(self._since_mark())

    def op_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def op_setitems(self, _: Any) -> None:
        self._update(self._since_mark())

    def op_global(self, argument: str) -> None:
        self._push_name(Name(argument.replace(" ", ".", 1)))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._push_name(Name(f"{module}.{name}"))

    def _push_name(self, name: Name) -> None:
        self.allow(name)
        self.stack.append(name)

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(Node(Name(), self.stack.pop()))

    def op_reduce(self, _: Any) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.stack.append(Node(name, arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        keywords, arguments, name = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Node(name, (*arguments, keywords)))

    def op_build(self, _: Any) -> None:
        state = self.stack.pop()
        node = self.stack[-1]
        if not isinstance(node, Node):
            raise PhonopyEquivariantError("the pickle gives a state to plain data; it is not read.")
        node.state = state
        finished = self.finish(node)
        self.stack[-1] = finished
        if node.memo is not None:
            self.memo[node.memo] = finished

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Node) else target).extend(values)

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Node):
            target.items.extend(pairs)
        else:
            target.update(pairs)
