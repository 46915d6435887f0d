"""The calling convention: flattening, checking, and its text form."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

from torch_tvm.dialect.signature import Signature
from torch_tvm.support.errors import InvalidInput


class Point(NamedTuple):
    x: Any
    y: Any


def spec_of(tree: Any) -> pytree.TreeSpec:
    return pytree.tree_flatten(tree)[1]


TREES = [
    (((0,), {}), 0),
    (((), {"a": 0, "b": [0, (0, {"c": 0})]}), ()),
    ((({"tuple": 0, "dict": [0]},), {"pytree": 0}), {"out": [0]}),
    (((OrderedDict(a=0, b=(0,)),), {}), [0, 0]),
    ((([], {}, ()), {}), []),
]


@pytest.mark.parametrize("trees", TREES, ids=str)
def test_text_of_nestings_reads_back(trees: tuple[Any, Any]) -> None:
    signature = Signature(in_spec=spec_of(trees[0]), out_spec=spec_of(trees[1]))
    again = Signature.from_json(signature.to_json())
    assert again.in_spec == signature.in_spec and again.out_spec == signature.out_spec


CONSTANTS = [
    None,
    True,
    3,
    -1.5,
    math.inf,
    "text",
    torch.float16,
    torch.device("cpu"),
    torch.channels_last,
    torch.strided,
    1 + 2j,
]


def test_text_of_constants_reads_back_with_their_types() -> None:
    signature = Signature(constants=dict(enumerate(CONSTANTS)), outputs=[(value,) for value in CONSTANTS] + [None])
    again = Signature.from_json(signature.to_json())
    assert list(again.constants.values()) == CONSTANTS
    assert [type(value) for value in again.constants.values()] == [type(value) for value in CONSTANTS]
    assert again.outputs == signature.outputs


def test_a_nesting_without_a_text_form_says_what_was_lost() -> None:
    text = Signature(in_spec=spec_of(((Point(0, 0),), {})), names=["x", "y"]).to_json()
    assert "Point" in text and "lost" in text
    assert Signature.from_json(text) == Signature(names=["x", "y"])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"constants":{"a":1}}', '{"outputs":[[{"dtype":"Tensor"}]]}', '{"in":{"tuple":3}}'],
)
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"torch_tvm.signature: the text of the calling convention is damaged"):
        Signature.from_json(text)


def test_keywords_may_come_in_any_order() -> None:
    signature = Signature(in_spec=spec_of(((0,), {"a": 0, "b": 0})))
    assert signature.flatten((1,), {"b": 3, "a": 2}) == [1, 2, 3]


def test_flat_signature_takes_no_keywords() -> None:
    assert Signature().flatten((1, 2), {}) == [1, 2]
    with pytest.raises(InvalidInput, match="unexpected keyword arguments: a"):
        Signature().flatten((), {"a": 1})


def test_constants_are_compared_with_their_type() -> None:
    signature = Signature(constants={0: 1, 1: math.nan})
    assert signature.flatten((1, math.nan, 5), {}) == [5]
    for wrong in (True, 1.0, 2):
        with pytest.raises(InvalidInput, match=rf"argument 0 was fixed to 1 at import, got {wrong!r}"):
            signature.flatten((wrong, math.nan, 5), {})


def test_results_are_nested_with_constants_in_place() -> None:
    signature = Signature(out_spec=spec_of({"a": 0, "b": [0, 0]}), outputs=[None, (None,), None])
    assert signature.unflatten([1, 2]) == {"a": 1, "b": [None, 2]}
    assert Signature().unflatten([1]) == 1
    assert Signature().unflatten([1, 2]) == (1, 2)
    assert Signature().unflatten([]) == ()
