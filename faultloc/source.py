"""What the text of a Python file says about its lines."""

import ast


def scopes(text: str) -> dict[int, str]:
    """Qualified name of the innermost function or class around each line of a Python file; nothing at its top level.

    Returns:
        Name by line number; empty where the file does not parse.
    """
    try:
        root = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    names: dict[int, str] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}{child.name}"
                names.update(dict.fromkeys(range(child.lineno, (child.end_lineno or child.lineno) + 1), inner))
                inner += "."
            visit(child, inner)

    visit(root, "")
    return names


def executable(text: str, path: str) -> list[int]:
    """Numbers of the lines of a Python file that hold an instruction.

    Raises:
        SyntaxError: it does not parse.
        ValueError: likewise, for null bytes.
    """
    lines: set[int] = set()
    stack = [compile(text, path, "exec", dont_inherit=True)]
    while stack:
        code = stack.pop()
        lines.update(line for _, _, line in code.co_lines() if line)
        stack.extend(constant for constant in code.co_consts if isinstance(constant, type(code)))
    return sorted(lines)
