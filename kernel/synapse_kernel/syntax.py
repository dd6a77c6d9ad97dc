"""Reading Python source without running it."""

from __future__ import annotations

import ast
import threading

# CPython counts how deep it is in a tree for the whole interpreter, not for each thread: two that parse at
# once can end in "SystemError: AST constructor recursion depth mismatch" (seen with 3.11).
_parsing = threading.Lock()


def parse_source(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    """Return the syntax tree of Python source; raises what `ast.parse` does."""
    with _parsing:
        return ast.parse(source, filename=filename)
