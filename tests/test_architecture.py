"""The rooms and their doors, read from the source: imports point down only, and each library has its home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dmp_cli

ROOT = Path(dmp_cli.__file__).parent

# Lowest first. A module imports from layers below its own and never from its own.
LAYERS = (
    "errors grids packed",
    "captions config files parallel randomness signals torchscript canvas mosaic pretrained report",
    "prefetch",
    "checkpoints curves devices distances gates decoding objective presets promptfile prompts runstate demo.classifier",
    "balance draws gatecompare guards imagesource order pace figures patchfile statistics text demo",
    "depthmaps samplerecord sampletars vision",
    "loading shards",
    "images",
    "data features demo.make_data backbones.base",
    "metrics",
    "scores backbones.dit backbones.wrapped backbones.schedules backbones.ownfile",
    "backbones.dit_weights backbones.dit_export backbones.unet backbones.pixart",
    "backbones.names",
    "backbones.sources",
    "backbones",
    "hooks lora fit",
    "adapterfile codec engine latentstore",
    "added authors encoding measurement methods table",
    "plan reference",
    "sampling",
    "footprint loop runfolder samplefolder",
    "training evaluation",
    "demo.floor demo.story recipe ablation",
    "scorepage",
    "demo.page ablation.arms",
    "ablation.plan",
    "ablation.table ablation.folder",
    "ablation.page",
    "commands commands._console commands._inner commands._options",
    "commands._together",
    "commands._models commands._stores commands._watchers",
    "commands._training commands._sampling",
    "commands.patch commands.convert commands.train commands.sample commands.evaluate commands.inspect_gates",
    "commands.demo commands.ablate",
    "cli",
    "__main__",
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names.split()}

# Library -> the modules (or packages, with a dot at the end) that may import it, anywhere in their text.
HOMES = {
    "typer": {"cli", "commands."},
    "rich": {"cli", "commands."},
    "cleanfid": {"features"},
    "matplotlib": {"canvas", "curves", "figures"},
    "jinja2": {"report"},
    "diffusers": {"backbones.", "codec", "sampling", "objective", "commands._sampling"},
    "huggingface_hub": {"backbones.", "codec"},
    "torch.distributed": {"parallel"},
    "torch.utils.tensorboard": {"commands._watchers"},
    "sklearn": {"demo.make_data"},
    "pickle": {"checkpoints"},
    "peft": {"lora"},
    "transformers": {"pretrained"},
    "torch_fidelity": {"metrics"},
    "accelerate": set(),  # torchrun and torch.distributed do its part
    "click": set(),  # typer brings its own
    "torchvision": set(),  # a broken one must not break this tool
}
SLOW = {
    "cleanfid",
    "diffusers",
    "jinja2",
    "matplotlib",
    "scipy",
    "sklearn",
    "torchvision",
    "huggingface_hub",
    "peft",
    "transformers",
}
QUICK = {"__init__", "cli", "config", "errors", "files", "patchfile", "signals", "commands."}  # no torch at their top
HEAVY = SLOW | {"torch", "numpy", "PIL", "safetensors"}


def find_modules():
    """Every module of the package by dotted name; the package itself is ``__init__``."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree, *, top_only):
    """Import statements; ``top_only`` leaves out those inside functions and those for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if top_only and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(node)):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from statements(node, top_only=top_only)


def imported(name, path, modules, *, top_only=False):
    """(modules of this package, dotted names of others) that a module imports."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [] if name == "__init__" else package
    own, others = set(), set()
    for node in statements(ast.parse(path.read_text()), top_only=top_only):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif not node.level:
            others |= {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            base = package[: len(package) - node.level + 1] + ([node.module] if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                own.add(full if full in modules else ".".join(base) or "__init__")
    return own - {name}, others


MODULES = find_modules()
IMPORTS = {name: imported(name, path, MODULES) for name, path in MODULES.items()}
ARROWS = {(name, target) for name, (own, _) in IMPORTS.items() for target in own if "__init__" not in (name, target)}


def lives_in(name, homes):
    return any(name == home or (home.endswith(".") and f"{name}.".startswith(home)) for home in homes)


def uses(others, library):
    return any(f"{other}.".startswith(f"{library}.") for other in others)


def test_the_reader_sees_what_is_known_to_be_there(tmp_path):
    assert {("engine", "prompts"), ("backbones", "backbones.dit_weights"), ("commands._training", "training")} <= ARROWS
    source = "\n".join(
        [
            "from __future__ import annotations",
            "import torch.nn as nn",
            "from typing import TYPE_CHECKING",
            "from . import engine, __version__",
            "from ..prompts import Patch",
            "if TYPE_CHECKING:",
            "    from .base import Backbone",
            "class A:",
            "    import numpy",
            "    def f(self):",
            "        from diffusers.models import DiT",
        ]
    )
    path = tmp_path / "dit.py"
    path.write_text(source)
    modules = {"prompts", "backbones", "backbones.base", "backbones.engine", "backbones.dit"}
    own, others = imported("backbones.dit", path, modules)
    assert own == {"backbones.engine", "backbones", "prompts", "backbones.base"}
    assert {"torch.nn", "numpy", "diffusers.models.DiT"} <= others
    own, others = imported("backbones.dit", path, modules, top_only=True)
    assert "backbones.base" not in own
    assert "numpy" in others
    assert not uses(others, "diffusers")


def test_every_module_has_a_layer():
    assert sorted(LAYER) == sorted(MODULES.keys() - {"__init__"}), "say in LAYERS where a new module belongs"
    assert sum(len(names.split()) for names in LAYERS) == len(LAYER)


def test_arrows_point_down():
    placed = {(name, target) for name, target in ARROWS if {name, target} <= LAYER.keys()}
    assert not {(name, target) for name, target in placed if LAYER[target] >= LAYER[name]}


def test_method_and_backbones_do_not_know_each_other():
    backbones, method = {name for name in MODULES if lives_in(name, {"backbones."})}, {"prompts", "balance"}
    assert len(backbones) >= 4
    assert not {(name, target) for name, target in ARROWS if name in method and target in backbones}
    assert not {(name, target) for name, target in ARROWS if name in backbones and target in method | {"engine"}}
    # the engine knows the seam and the registry, and no family
    assert {target for name, target in ARROWS if name == "engine"} & backbones == {"backbones", "backbones.base"}


def test_the_package_itself_imports_nothing_until_asked():
    assert imported("__init__", MODULES["__init__"], MODULES, top_only=True)[0] == set()
    for name in dmp_cli.__all__:
        assert getattr(dmp_cli, name) is not None
    assert dir(dmp_cli) == dmp_cli.__all__
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        _ = dmp_cli.unheard_of


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_its_home(library):
    strangers = {n for n, (_, others) in IMPORTS.items() if uses(others, library) and not lives_in(n, HOMES[library])}
    assert not strangers


def test_cleanfid_has_one_door():
    assert [name for name, (_, others) in IMPORTS.items() if uses(others, "cleanfid")] == ["features"]


def test_commands_ask_diffusers_for_its_version_alone():
    tree = ast.parse(MODULES["commands._sampling"].read_text())
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "diffusers"
    }
    assert attributes <= {"__version__"}
    assert not [other for other in IMPORTS["commands._sampling"][1] if other.startswith("diffusers.")]


def test_heavy_libraries_are_imported_where_they_are_used():
    for name, path in MODULES.items():
        if name == "demo.make_data":  # a script, run by hand
            continue
        _, others = imported(name, path, MODULES, top_only=True)
        unwanted = HEAVY if lives_in(name, QUICK) else SLOW
        assert not [library for library in unwanted if uses(others, library)], name


def test_starting_the_command_line_loads_nothing_heavy():
    code = "import sys, dmp_cli.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = set(result.stdout.split())
    assert {"dmp_cli", "typer", "pydantic"} <= loaded
    assert not loaded & (HEAVY | {"jinja2", "platformdirs"})


def test_nothing_is_loaded_by_executing_it():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "numpy.load"}, f"{name}: {called}"
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", name
            if called == "np.load":
                assert options.get("allow_pickle") == "False", name
