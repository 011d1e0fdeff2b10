"""TorchScript files from any source, inspected so that neither opening nor calling a network touches other files.

Nor does a call go on without end: loops have a number of turns that the graph itself fixes.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import MetricError
from .limits import in_bytes
from .regular import read_regular

_FLATBUFFER = b"PTMF"  # at bytes 4..8; torch would then not read the file as the zip that was inspected
# torch runs __setstate__ while it loads a file, and a torch.classes object unpacks itself with code of its own.
_RUNS_ON_LOADING = re.compile(rb"__setstate__|torch\.classes")
_FILE_ARGUMENT = re.compile(r"\bstr\??(\[\])? \w*(file|path|dir|url)\w*", re.IGNORECASE)
# Calls whose body is not in the graph, so that it cannot be inspected.
_OPAQUE = {"prim::CallMethod", "prim::CallFunction", "prim::PythonOp"}
_RATIO, _ANY_RATIO = 20, 64 << 20  # how much it may unpack to: code is compressed, weights are not
_MOST_TURNS = 1_000_000  # of a loop, times those of the loops around it
_MOST_DIMENSIONS = 64  # of a tensor
_ENDLESS = (1 << 63) - 1  # the number of turns of a loop that ends on a condition: while
_HINT = "Export the network again with torch.jit.trace; tracing keeps tensor operators only."


def open_torchscript(path: Path, *, device: str = "cpu") -> Any:
    """The network of a TorchScript file, in eval mode, after every operation in it was inspected.

    TorchScript runs in torch's own interpreter, not in Python. But a few of its operators read or write files or print,
    some code runs while a file is loaded, and a loop may have no end.

    Raises:
        MetricError: the file has such operators, code or loops, or is not a TorchScript file.
    """
    path = Path(path)
    try:
        data = read_regular(path)
        _refuse_bombs(path)
        _refuse_code_that_runs_on_loading(path, data)
        with warnings.catch_warnings():
            # a DeprecationWarning or a FutureWarning, depending on torch's version
            warnings.filterwarnings("ignore", message=".*torch.jit")
            network = torch.jit.load(io.BytesIO(data), map_location=device).eval()
        # Hooks of inner modules are part of the graph; hooks of the outermost module run around it.
        hooked = bool(network._forward_hooks or network._forward_pre_hooks)
        graph = network.inlined_graph
    except MetricError:
        raise
    except Exception as error:  # torch raises a different type for every way in which a file can be broken
        raise MetricError(f"{path}: not a TorchScript file with a forward method ({_first_line(error)})") from error
    unsafe = {reason for node in _nodes(graph) if (reason := _reason_to_refuse(node))}
    unsafe |= set(_loops_to_refuse(graph))
    if hooked:
        unsafe.add("has a hook around its forward method")
    if unsafe:
        raise MetricError(f"{path}: refused, because its network {'; '.join(sorted(unsafe))}", hint=_HINT)
    return network


def _refuse_bombs(path: Path) -> None:
    """Raise MetricError for a file whose records unpack to much more than its size."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _RATIO * size + _ANY_RATIO:
        raise MetricError(f"{path}: refused, because it unpacks to {in_bytes(unpacked)} from {in_bytes(size)}")


def _refuse_code_that_runs_on_loading(path: Path, data: bytes) -> None:
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))  # the same zip reader that loading uses
    records = reader.get_all_records()
    if "model.json" in records or data[4:8] == _FLATBUFFER:
        raise MetricError(f"{path}: refused, because its format cannot be inspected before it is loaded", hint=_HINT)
    for record in records:
        if record.endswith((".py", ".pkl")) and (found := _RUNS_ON_LOADING.search(reader.get_record(record))):
            raise MetricError(
                f"{path}: refused, because it has code that runs while it loads ({found[0].decode()})", hint=_HINT
            )


def _nodes(block: Any) -> Iterator[Any]:
    """Every node of a graph, including the nodes inside branches, loops and forked subgraphs."""
    for node in block.nodes():
        yield node
        for inner in _inner_blocks(node):
            yield from _nodes(inner)


def _inner_blocks(node: Any) -> Iterator[Any]:
    """The blocks of a branch or loop, and the graphs that a node holds."""
    yield from node.blocks()
    for attribute in node.attributeNames():
        if node.kindOf(attribute) == "g":
            yield node.g(attribute)
        elif node.kindOf(attribute) == "gs":
            yield from node.gs(attribute)


def _reason_to_refuse(node: Any) -> str | None:
    kind = node.kind()
    if kind in _OPAQUE or kind.startswith("prim::rpc_"):
        return f"calls what cannot be inspected ({kind})"
    if not kind.startswith(("aten::", "prim::")):
        return f"uses an operator that is not torch's own ({kind})"
    if kind == "prim::Print":
        return f"prints ({kind})"
    if _FILE_ARGUMENT.search(node.schema()):
        return f"reads or writes files ({kind})"
    return None


def _loops_to_refuse(block: Any, *, around: int = 1) -> Iterator[str]:
    """Why loops are refused; ``around``: how often the block itself runs, by the loops that it is in."""
    for node in block.nodes():
        times = around
        if node.kind() == "prim::Loop":
            turns = _most(next(iter(node.inputs())).node())
            if turns is None or turns == _ENDLESS:
                yield "has a loop whose number of turns the graph does not fix (while, break, or for over a value)"
                continue
            times *= max(turns, 1)
            if times > _MOST_TURNS:
                yield f"has a loop of up to {times:,} turns, and {_MOST_TURNS:,} are the most that are run"
                continue
        for inner in _inner_blocks(node):
            yield from _loops_to_refuse(inner, around=times)


def _most(node: Any) -> int | None:
    """The largest number that a node of the graph can give: a constant, or dimensions of a tensor less a constant."""
    if node.kind() == "prim::Constant" and "value" in node.attributeNames() and node.kindOf("value") == "i":
        return int(node.i("value"))
    if node.kind() == "aten::dim":
        return _MOST_DIMENSIONS
    if node.kind() == "aten::sub":  # as torch.nn.functional.interpolate counts
        whole, less = (_most(value.node()) for value in list(node.inputs())[:2])
        return whole if less is not None and less >= 0 and whole is not None else None
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
