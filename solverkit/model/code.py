"""What the code of a function reads and writes: its globals, the attributes that it names, and what it stores."""

from __future__ import annotations

import dis
import functools
from dataclasses import dataclass
from types import CodeType


@dataclass(frozen=True)
class Names:
    """Names in the code of a function and of the functions inside it.

    Attributes:
        globals: Read as globals, in the order of the code.
        attributes: Read as attributes of anything.
        stored: Written as globals, as variables of an enclosing function, or as attributes.
    """

    globals: tuple[str, ...]
    attributes: frozenset[str]
    stored: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_of(code: CodeType) -> Names:
    """The names in a code object; the same for equal code."""
    read: dict[str, None] = {}
    attributes, stored = set(), set()
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read[name] = None
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(name)
        elif instruction.opname in ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR"):
            stored.add(name)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names = names_of(inner)
            read.update(dict.fromkeys(names.globals))
            attributes |= names.attributes
            stored |= names.stored
    return Names(tuple(read), frozenset(attributes), frozenset(stored))
