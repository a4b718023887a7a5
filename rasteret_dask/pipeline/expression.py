"""A small safe language over bands: ``where(SCL == 4, (B08 - B04) / (B08 + B04), 0)``.

Python's parser reads the text, a walk over a white list of node types turns it into a tree of our
own, and NumPy evaluates that tree. Nothing else can be written: no attributes, subscripts, strings
or names that are not bands, and no calls but the functions below.

Nodata is NaN and spreads: a pixel that lacks one of its inputs is NaN. Comparisons give 1, 0 or
NaN ("not known") and `and`, `or`, `not` follow Kleene's three-valued logic, so a missing input
never passes for "false". Division by zero, roots of negative numbers and logarithms of what is not
positive are NaN too.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ConfigError

Array = npt.NDArray[Any]
_MAX_LENGTH = 4000
_MAX_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Band:
    """A band, or a variable made by an earlier expression."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """A function or operator of `FUNCTIONS`, applied to its arguments."""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Band | Apply


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; picklable, and equal when the trees are equal.

    Parameters
    ----------
    tree : Number, Band or Apply
        What to evaluate.
    bands : tuple of str
        The names it uses, in order of appearance, each once.
    """

    tree: Node
    bands: tuple[str, ...]

    def __call__(self, *arrays: Array) -> Array:
        """Evaluate over arrays given in the order of `bands`; see `evaluate`."""
        return evaluate(self, dict(zip(self.bands, arrays, strict=True)))


def renamed(expression: Expression, names: Mapping[str, str]) -> Expression:
    """The same expression over bands of other names."""

    def walk(node: Node) -> Node:
        if isinstance(node, Band):
            return Band(names.get(node.name, node.name))
        if isinstance(node, Apply):
            return Apply(node.function, tuple(walk(argument) for argument in node.arguments))
        return node

    bands = dict.fromkeys(names.get(name, name) for name in expression.bands)
    return Expression(walk(expression.tree), tuple(bands))


# --- evaluation ----------------------------------------------------------------------------------
def _truth(value: Array, *operands: Array) -> Array:
    """1 and 0 from a boolean, NaN where an operand was NaN."""
    unknown = np.zeros(np.shape(value), dtype=bool)
    for operand in operands:
        unknown = unknown | np.isnan(operand)
    return np.where(unknown, np.float32(np.nan), np.asarray(value, dtype=np.float32))


def _both(*values: Array) -> Array:
    known_false = np.logical_or.reduce([value == 0 for value in np.broadcast_arrays(*values)])
    unknown = np.logical_or.reduce([np.isnan(value) for value in np.broadcast_arrays(*values)])
    return np.where(
        known_false, np.float32(0), np.where(unknown, np.float32(np.nan), np.float32(1))
    )


def _not(value: Array) -> Array:
    return _truth(value == 0, value)


def _either(*values: Array) -> Array:
    return _not(_both(*(_not(value) for value in values)))


def _where(condition: Array, yes: Array, no: Array) -> Array:
    dtype = np.result_type(np.float32, yes, no)
    chosen = np.where(condition != 0, yes, no).astype(dtype, copy=False)
    return np.where(np.isnan(condition), dtype.type(np.nan), chosen)


def _divide(a: Array, b: Array) -> Array:
    return np.where(np.equal(b, 0), np.float32(np.nan), np.divide(a, b))


def _finite(function: Callable[..., Array]) -> Callable[..., Array]:
    """Turn infinities that `function` makes of finite input into NaN."""

    def wrapped(*values: Array) -> Array:
        result = function(*values)
        return np.where(np.isinf(result), np.float32(np.nan), result)

    return wrapped


def _power(a: Array, b: Array) -> Array:
    # NumPy's power of NaN by 0, and of 1 by NaN, is 1.
    lost = np.isnan(a) | np.isnan(b)
    return np.where(lost, np.float32(np.nan), _finite(np.power)(a, b))


def _compare(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda a, b: _truth(function(a, b), a, b)


def _fold(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def folded(first: Array, *others: Array) -> Array:
        for other in others:
            first = function(first, other)
        return first

    return folded


@dataclass(frozen=True, slots=True)
class Function:
    """What a name or an operator means, and how many arguments it takes (`most` None: any
    number)."""

    call: Callable[..., Array]
    least: int
    most: int | None


FUNCTIONS: Mapping[str, Function] = {
    "where": Function(_where, 3, 3),
    "min": Function(_fold(np.minimum), 2, None),
    "max": Function(_fold(np.maximum), 2, None),
    "clip": Function(lambda value, low, high: np.minimum(np.maximum(value, low), high), 3, 3),
    "abs": Function(np.abs, 1, 1),
    "sqrt": Function(np.sqrt, 1, 1),
    "log": Function(_finite(np.log), 1, 1),
    "exp": Function(_finite(np.exp), 1, 1),
}
_OPERATORS: Mapping[str, Callable[..., Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "**": _power,
    "neg": np.negative,
    "<": _compare(np.less),
    "<=": _compare(np.less_equal),
    ">": _compare(np.greater),
    ">=": _compare(np.greater_equal),
    "==": _compare(np.equal),
    "!=": _compare(np.not_equal),
    "and": _both,
    "or": _either,
    "not": _not,
}
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def evaluate(expression: Expression, arrays: Mapping[str, Array]) -> Array:
    """Evaluate over NumPy arrays that broadcast against each other.

    Parameters
    ----------
    expression : Expression
        What to compute.
    arrays : mapping of str to ndarray
        One array for each of ``expression.bands``; NaN is nodata. Integers are widened to float
        first, so that ``B08 - B04`` cannot wrap around.

    Returns
    -------
    ndarray
        float32 when every input fits it (float32 and integers up to 16 bits), else float64.
    """
    wide = {name: as_float(array) for name, array in arrays.items()}
    dtype = np.result_type(np.float32, *wide.values())
    with np.errstate(all="ignore"):
        result = np.asarray(_value(expression.tree, wide))
    shape = np.broadcast_shapes(*(array.shape for array in wide.values()))
    # A constant expression has no shape of its own; a full array keeps chunks of equal shape.
    return np.broadcast_to(result, shape).astype(dtype, copy=True)


def as_float(array: Array) -> Array:
    """Integers and booleans as the smallest float that holds them exactly (float64 for 32 bits and
    more)."""
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _value(node: Node, arrays: Mapping[str, Array]) -> Any:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Band):
        return arrays[node.name]
    values = [_value(argument, arrays) for argument in node.arguments]
    call = FUNCTIONS[node.function].call if node.function in FUNCTIONS else None
    return (call or _OPERATORS[node.function])(*values)


# --- parsing -------------------------------------------------------------------------------------
def parse(text: str, *, path: str | None = None) -> Expression:
    """Parse one expression.

    Parameters
    ----------
    text : str
        At most 4000 characters, nested at most 60 deep.
    path : str, optional
        The key that the text came from, for the error.

    Raises
    ------
    ConfigError
        The text is not an expression of this language; the message says what was met and what is
        possible.
    """
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"the expression is longer than {_MAX_LENGTH} characters", path=path)
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{text!r} is no expression: {error.msg}", path=path) from None
    except (ValueError, RecursionError, MemoryError):  # a null byte; parentheses without end
        raise ConfigError("the expression cannot be parsed", path=path) from None
    names: dict[str, None] = {}
    tree = _Walk(text, path, names).node(body, 0)
    if not names:
        raise ConfigError(f"{text!r} names no band", path=path)
    return Expression(tree, tuple(names))


@dataclass(frozen=True, slots=True)
class _Walk:
    """The white list: from Python's syntax tree to ours."""

    text: str
    path: str | None
    names: dict[str, None]

    def refuse(self, node: ast.AST, what: str) -> ConfigError:
        source = ast.get_source_segment(self.text.strip(), node) or type(node).__name__
        return ConfigError(
            f"{source!r}: {what}",
            path=self.path,
            hint="expressions know bands, numbers, + - * / **, comparisons, and/or/not, and "
            + ", ".join(FUNCTIONS),
        )

    def node(self, node: ast.expr, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise ConfigError(f"the expression nests deeper than {_MAX_DEPTH}", path=self.path)
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.Name):
            if node.id in FUNCTIONS:
                raise self.refuse(node, "is a function and needs its arguments")
            self.names[node.id] = None
            return Band(node.id)
        if isinstance(node, ast.Call):
            return self.call(node, depth + 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            both = (self.node(node.left, depth + 1), self.node(node.right, depth + 1))
            return self.fold(node, _BINARY[type(node.op)], both)
        if isinstance(node, ast.UnaryOp):
            return self.unary(node, depth + 1)
        if isinstance(node, ast.BoolOp):
            name = "and" if isinstance(node.op, ast.And) else "or"
            return Apply(name, tuple(self.node(value, depth + 1) for value in node.values))
        if isinstance(node, ast.Compare):
            return self.compare(node, depth + 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            raise self.refuse(node, "write 'and' / 'or' instead of & / |")
        raise self.refuse(node, "cannot be used in an expression")

    def number(self, node: ast.Constant) -> Number:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self.refuse(node, "only numbers can be constants")
        try:
            value = float(node.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.refuse(node, "the number is too large")
        return Number(value)

    def fold(self, node: ast.expr, name: str, operands: tuple[Node, Node]) -> Node:
        """Numbers among themselves are computed now: ``1 / 10000`` then stays a weakly typed
        constant."""
        left, right = operands
        if not (isinstance(left, Number) and isinstance(right, Number)):
            return Apply(name, operands)
        with np.errstate(all="ignore"):
            value = float(_OPERATORS[name](np.float64(left.value), np.float64(right.value)))
        if not math.isfinite(value):
            raise self.refuse(node, "is not a finite number")
        return Number(value)

    def call(self, node: ast.Call, depth: int) -> Node:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self.refuse(node, "arguments are given by position alone")
        if not isinstance(node.func, ast.Name):
            raise self.refuse(node, "cannot be called")
        if node.func.id == "band":
            return self.quoted(node)
        function = FUNCTIONS.get(node.func.id)
        if function is None:
            raise self.refuse(node, f"no function {node.func.id!r}")
        count = len(node.args)
        if count < function.least or (function.most is not None and count > function.most):
            more = " or more" if function.most is None else ""
            raise self.refuse(node, f"takes {function.least}{more} arguments, not {count}")
        return Apply(node.func.id, tuple(self.node(argument, depth) for argument in node.args))

    def quoted(self, node: ast.Call) -> Band:
        """``band("rtc-gamma0")``: a band whose name is no plain word."""
        if len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
            name = node.args[0].value
            if isinstance(name, str) and name:
                self.names[name] = None
                return Band(name)
        raise self.refuse(node, 'write band("name")')

    def unary(self, node: ast.UnaryOp, depth: int) -> Node:
        operand = self.node(node.operand, depth)
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, ast.USub):
            return (
                Number(-operand.value) if isinstance(operand, Number) else Apply("neg", (operand,))
            )
        if isinstance(node.op, ast.Not):
            return Apply("not", (operand,))
        raise self.refuse(node, "write 'not' instead of ~")

    def compare(self, node: ast.Compare, depth: int) -> Node:
        operands = [self.node(value, depth) for value in (node.left, *node.comparators)]
        parts: list[Node] = []
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            if type(operator) not in _COMPARE:
                raise self.refuse(node, "cannot be used in an expression")
            parts.append(Apply(_COMPARE[type(operator)], (left, right)))
        return parts[0] if len(parts) == 1 else Apply("and", tuple(parts))
