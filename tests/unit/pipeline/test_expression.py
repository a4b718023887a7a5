"""The expression language: what it computes, and everything that it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.expression import evaluate, parse

A = np.array([1.0, 4.0, np.nan, 0.25], dtype=np.float32)
B = np.array([3.0, 0.0, 5.0, np.nan], dtype=np.float32)
NAN = np.nan


def value(text, **arrays):
    return evaluate(parse(text), arrays or {n: {"A": A, "B": B}[n] for n in parse(text).bands})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A + B", [4, 4, NAN, NAN]),
        ("A - B * 2", [-5, 4, NAN, NAN]),
        ("-A ** 2", [-1, -16, NAN, -0.0625]),
        ("A ** 0", [1, 1, NAN, 1]),
        ("1 ** B", [1, 1, 1, NAN]),
        ("A ** B", [1, 1, NAN, NAN]),
        ("(B - A) / (B + A)", [0.5, -1, NAN, NAN]),
        ("A / B", [1 / 3, NAN, NAN, NAN]),  # 4 / 0 is nothing, not infinity
        ("sqrt(A)", [1, 2, NAN, 0.5]),
        ("sqrt(-A)", [NAN, NAN, NAN, NAN]),
        ("log(B)", [np.log(3), NAN, np.log(5), NAN]),
        ("exp(B * 1000)", [NAN, 1, NAN, NAN]),
        ("abs(A - 2)", [1, 2, NAN, 1.75]),
        ("min(A, B, 2)", [1, 0, NAN, NAN]),
        ("max(A, 2)", [2, 4, NAN, 2]),
        ("clip(A, 0.5, 2)", [1, 2, NAN, 0.5]),
        ("A > 0.5", [1, 1, NAN, 0]),
        ("0.5 < A < 2", [1, 0, NAN, 0]),
        ("A > 2 and B > 2", [0, 0, NAN, 0]),  # unknown and true: unknown; unknown and false: false
        ("A > 2 or B > 2", [1, 1, 1, NAN]),
        ("not A > 2", [1, 0, NAN, 1]),
        ("where(A > 2, 10, B)", [3, 10, NAN, NAN]),
        ("where(B == 0, A, B)", [3, 4, 5, NAN]),
        ("where(A != 4, 1, 0)", [1, 0, NAN, 1]),
        ("0 * A + 1 / 10000", [1e-4, 1e-4, NAN, 1e-4]),
    ],
)
def test_values_and_nodata(text, expected):
    result = value(text)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.array(expected, np.float32), rtol=1e-6)


def test_integers_do_not_wrap_around():
    small, large = np.array([10], np.uint16), np.array([60000], np.uint16)
    assert value("x - y", x=small, y=large).tolist() == [-59990.0]
    assert value("x * y * y", x=large, y=large)[0] == pytest.approx(60000.0**3)


def test_dtype_is_float32_unless_an_input_needs_more():
    assert value("x + 0.1", x=np.zeros(2, np.int16)).dtype == np.float32
    assert value("x + 0.1", x=np.zeros(2, np.int32)).dtype == np.float64
    assert value("where(x > 0, 1, 0)", x=np.zeros(2, np.float64)).dtype == np.float64


def test_broadcasts_and_keeps_the_shape_of_constants():
    x, y = np.ones((2, 1, 3), np.float32), np.ones((4, 1), np.float32)
    assert value("x + y", x=x, y=y).shape == (2, 4, 3)
    assert value("x * 0 + 1", x=x).shape == x.shape


def test_bands_are_listed_once_in_order_and_pickle():
    parsed = parse('B - A + B * band("rtc-gamma0")')
    assert parsed.bands == ("B", "A", "rtc-gamma0")
    assert pickle.loads(pickle.dumps(parsed)) == parsed
    arrays = {name: np.ones(1, np.float32) for name in parsed.bands}
    assert evaluate(parsed, arrays).tolist() == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "A.__class__",
        "A[0]",
        "(lambda: A)()",
        "[A for A in B]",
        "eval('A')",
        "print(A)",
        "'text'",
        "A if B else A",
        "A @ B",
        "A // B",
        "A % B",
        "A << 2",
        "A & B",
        "~A",
        "A is B",
        "A in B",
        "f'{A}'",
        "(A := B)",
        "where(A, B)",
        "min(A)",
        "clip(A, low=0, high=1)",
        "max(*A)",
        "sqrt",
        "sqrt + A",
        "A + True",
        "A + None",
        "A + 1j",
        "9 ** 9 ** 9 + A",
        "A / (1 / 0)",
        "1 + 1",
        "",
        "A +",
        "A; B",
        "A = B",
        "A\x00",
        "band(A)",
        "(" * 500 + "A" + ")" * 500,
        "-" * 300 + "A",
        "A" + " + A" * 2000,
        "1" * 400 + " + A",
    ],
)
def test_refused_with_the_path_of_the_key(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, path="steps[0].expression.x")
    assert caught.value.path == "steps[0].expression.x"


@given(st.text(alphabet="AB ()+-*/<>=.,0123456789andorwheimx_'[]", max_size=60))
def test_any_text_is_an_expression_or_a_config_error(text):
    try:
        parsed = parse(text)
    except ConfigError:
        return
    arrays = {name: np.ones(3, np.float32) for name in parsed.bands}
    assert evaluate(parsed, arrays).shape == (3,)
