"""TorchScript files from any source, inspected so that neither opening nor calling a network touches other files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import MetricError

_FLATBUFFER = b"PTMF"  # at bytes 4..8; torch would then not read the file as the zip that was inspected
# torch runs __setstate__ while it loads a file, and a torch.classes object unpacks itself with code of its own.
_RUNS_ON_LOADING = re.compile(rb"__setstate__|torch\.classes")
_FILE_ARGUMENT = re.compile(r"\bstr\??(\[\])? \w*(file|path|dir|url)\w*", re.IGNORECASE)
# Calls whose body is not in the graph, so that it cannot be inspected.
_OPAQUE = {"prim::CallMethod", "prim::CallFunction", "prim::PythonOp"}
_HINT = "Export the network again with torch.jit.trace; tracing keeps tensor operators only."


def open_torchscript(path: Path, *, device: str = "cpu") -> Any:
    """The network of a TorchScript file, in eval mode, after every operation in it was inspected.

    TorchScript runs in torch's own interpreter, not in Python. But a few of its operators read or write files, and some
    code runs while a file is loaded.

    Raises:
        MetricError: the file has such operators or code, or is not a TorchScript file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        _refuse_code_that_runs_on_loading(path, data)
        with warnings.catch_warnings():
            # a DeprecationWarning or a FutureWarning, depending on torch's version
            warnings.filterwarnings("ignore", message=".*torch.jit")
            network = torch.jit.load(io.BytesIO(data), map_location=device).eval()
        # Hooks of inner modules are part of the graph; hooks of the outermost module run around it.
        hooked = bool(network._forward_hooks or network._forward_pre_hooks)
        graph = network.inlined_graph
    except (OSError, RuntimeError, AttributeError) as error:
        raise MetricError(f"{path}: not a TorchScript file with a forward method ({_first_line(error)})") from error
    unsafe = {reason for node in _nodes(graph) if (reason := _reason_to_refuse(node))}
    if hooked:
        unsafe.add("has a hook around its forward method")
    if unsafe:
        raise MetricError(f"{path}: refused, because its network {'; '.join(sorted(unsafe))}", hint=_HINT)
    return network


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
        for inner in node.blocks():
            yield from _nodes(inner)
        for attribute in node.attributeNames():
            if node.kindOf(attribute) == "g":
                yield from _nodes(node.g(attribute))
            elif node.kindOf(attribute) == "gs":
                for inner in node.gs(attribute):
                    yield from _nodes(inner)


def _reason_to_refuse(node: Any) -> str | None:
    kind = node.kind()
    if kind in _OPAQUE or kind.startswith("prim::rpc_"):
        return f"calls what cannot be inspected ({kind})"
    if not kind.startswith(("aten::", "prim::")):
        return f"uses an operator that is not torch's own ({kind})"
    if _FILE_ARGUMENT.search(node.schema()):
        return f"reads or writes files ({kind})"
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
