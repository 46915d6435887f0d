"""Reading modules: errors at the place, damaged resources, and no crash on damaged text or bytecode."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.dialect import view
from torch_tvm.dialect.parse import parse
from torch_tvm.support.errors import ImportFailed, InvalidInput

WEIGHT = """func.func @main() -> !torch.vtensor<[2],f32> {
  %0 = torch.vtensor.literal(dense_resource<w> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  return %0 : !torch.vtensor<[2],f32>
}
"""
RESOURCES = '{-#\n  dialect_resources: {\n    builtin: {\n      w: "0x04000000000080BF0000003F"\n    }\n  }\n#-}\n'


def test_weights_come_from_the_resource_section() -> None:
    assert parse(WEIGHT + RESOURCES)().tolist() == [-1.0, 0.5]


def test_path_and_text_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(WEIGHT + RESOURCES)
    for given in (path, str(path), (WEIGHT + RESOURCES).encode()):
        assert parse(given)().tolist() == [-1.0, 0.5]


def test_operations_of_a_file_carry_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(WEIGHT + RESOURCES)
    literal = next(op for op in view.walk(parse(path).mlir) if op.name == "torch.vtensor.literal")
    place = view.location(literal)
    assert (place.file, place.line) == (str(path), 2)


def test_malformed_text_points_at_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text("func.func @main() {\n  %x = torch.aten.foo\n}\n")
    with pytest.raises(ImportFailed) as caught:
        parse(path)
    assert str(caught.value) == (
        f"{path}:2:8: custom op 'torch.aten.foo' is unknown\n    %x = torch.aten.foo\n         ^"
    )


def test_a_wrong_type_is_reported_by_the_verifier() -> None:
    text = """func.func @main(%a: !torch.int) -> !torch.float {
      %x = torch.aten.add.int %a, %a : !torch.int, !torch.int -> !torch.float
      return %x : !torch.float
    }"""
    with pytest.raises(ImportFailed, match=r"^-:2:12: .*must be Torch IntType, but got '!torch.float'\n .*\n +\^$"):
        parse(text)


def test_missing_file() -> None:
    with pytest.raises(InvalidInput, match=r"cannot read 'no/such.mlir': No such file.*\n  pass the text"):
        parse("no/such.mlir")


@pytest.mark.parametrize("given", [None, 3, ["module {}"]])
def test_what_is_neither_text_nor_path(given: object) -> None:
    with pytest.raises(InvalidInput, match=r"expected the text or the path of a module, got (NoneT|int|list)"):
        parse(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["\0", b"\xff\xfe", b"ML\xefR", b"ML\xefR\x0dgarbage", "{", "}\n", "#!\n"])
def test_garbage_is_refused(given: str | bytes) -> None:
    with pytest.raises((ImportFailed, InvalidInput)):
        parse(given)


def test_text_nested_beyond_the_stack_is_refused() -> None:
    deep = "module attributes {a = " + "[" * 200_000 + "]" * 200_000 + "} {\n}\n"
    with pytest.raises(ImportFailed, match=r"-: the module is damaged: MLIR cannot read it \(SIG"):
        parse(deep)


@pytest.mark.parametrize("handle", ["w", "__elided__"])
def test_a_missing_blob_is_refused(handle: str) -> None:
    with pytest.raises(InvalidInput, match=r"-:2: torch.vtensor.literal: the .*text.*\n  print the module with its w"):
        parse(WEIGHT.replace("<w>", f"<{handle}>"))


def test_a_blob_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"resource 'w' has 8 bytes, its type needs 12"):
        parse(WEIGHT.replace("2xf32", "3xf32").replace("[2]", "[3]") + RESOURCES)


def test_state_without_values_is_refused() -> None:
    text = """func.func @main(%s: !torch.vtensor<[2],f32>) attributes {torch_tvm.state = ["s"]} {
      return
    }"""
    with pytest.raises(InvalidInput, match=r"torch_tvm.state: the module names 1 state tensors and has values for 0"):
        parse(text)


def test_a_string_that_looks_like_a_blob_is_no_weight() -> None:
    text = (WEIGHT + RESOURCES).replace("return", '%s = torch.constant.str "\\n w: \\"0x0400000000000000\\""\n  return')
    assert parse(text)().tolist() == [-1.0, 0.5]


def test_damaged_modules_never_crash(tmp_path: Path) -> None:
    """Random edits of text and bytecode, in a process of their own: it must end by itself."""
    module = parse(WEIGHT + RESOURCES)
    rng = random.Random(torch.seed())
    for kind, data in (("text", str(module).encode()), ("code", module.bytecode())):
        for index in range(40):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(damaged))
                if rng.random() < 0.5:
                    damaged[at] = rng.randrange(256)
                else:
                    del damaged[at : at + rng.randint(1, 9)]
            (tmp_path / f"{kind}{index}").write_bytes(damaged)
    script = (
        "import sys, pathlib\n"
        "from torch_tvm.dialect.parse import parse\n"
        "from torch_tvm.support.errors import TorchTvmError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    print(path, flush=True)\n"
        "    try: parse(path)\n"
        "    except TorchTvmError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"


def test_several_blobs_of_odd_sizes_come_out_of_bytecode() -> None:
    blobs = {f"w{size}": bytes(range(size)) for size in (1, 3, 7, 64, 130)}
    literals, entries = [], []
    for alignment, (name, blob) in zip((1, 2, 4, 8, 16), blobs.items(), strict=True):
        kind = f"{len(blob)}xui8"
        literals.append(
            f"%{name} = torch.vtensor.literal(dense_resource<{name}> : tensor<{kind}>) "
            f": !torch.vtensor<[{len(blob)}],ui8>"
        )
        entries.append(f'{name}: "0x{(alignment.to_bytes(4, "little") + blob).hex()}"')
    text = "func.func @main() {\n" + "\n".join(literals) + "\nreturn\n}\n"
    text += "{-#\n dialect_resources: { builtin: {\n" + ",\n".join(entries) + "\n} }\n#-}\n"
    for module in (parse(text), parse(parse(text).bytecode())):
        assert {name: bytes(weight.tolist()) for name, weight in module.weights.items()} == blobs


@pytest.mark.parametrize("names", ["my_ns::scale", 3, [3]], ids=str)
@pytest.mark.parametrize("path", ["", "nothing.ts"])
def test_allowed_ops_are_a_list_of_names(names: object, path: str) -> None:
    with pytest.raises(InvalidInput, match="allow_ops: expected a list of names of ops, got"):
        torch_tvm.parse(path, allow_ops=names)  # type: ignore[arg-type]
