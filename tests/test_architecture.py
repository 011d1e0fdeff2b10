"""The wings and their doors, read from the source: imports point down and go through faces; libraries have one home."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import dmp_cli

ROOT = Path(dmp_cli.__file__).parent
spec = spec_from_file_location("wings", ROOT.parent / "docs" / "wings.py")
wings = module_from_spec(spec)
spec.loader.exec_module(wings)

MODULES = wings.find_modules(ROOT)
IMPORTS = [item for module, path in MODULES.items() for item in wings.own_imports(module, path, MODULES)]
ACROSS = [i for i in IMPORTS if i.module and i.target and wings.wing_of(i.module) != wings.wing_of(i.target)]
FOREIGN = {module: wings.foreign_imports(path) for module, path in MODULES.items()}
FACES = sorted(wing for wing in wings.WINGS if (ROOT / wing).is_dir())

# Library -> the wings or modules that may import it, anywhere in their text.
HOMES = {
    "typer": {"cli", "commands"},
    "rich": {"commands"},
    "cleanfid": {"evaluation.inception"},
    "matplotlib": {"report", "analysis"},
    "jinja2": {"report.html"},
    "diffusers": {"backbones", "latents.loading", "sampling", "diffusion"},
    "huggingface_hub": {"hub", "data.table_loading", "backbones.sources", "latents.loading"},
    "torch.distributed": {"runtime.distributed"},
    "torch.utils.tensorboard": {"commands.train.tracker_kinds"},
    "fsspec": {"data.addresses"},
    "datasets": {"data.tables", "data.table_loading"},
    "wandb": {"commands.train.tracker_kinds"},
    "trackio": {"commands.train.tracker_kinds"},
    "mlflow": {"commands.train.tracker_kinds"},
    "sklearn": {"demo.make_data"},
    "pickle": {"storage.pickles"},
    "peft": {"patching.lora"},
    "optuna": {"tuning.journal"},
    "threadpoolctl": {"runtime.threads"},
    "submitit": {"jobs.cluster"},
    "transformers": {"storage.hf_transformers"},
    "torch_fidelity": {"evaluation.metrics"},
    "lazy_loader": {"", *FACES},
    "accelerate": set(),  # torchrun and torch.distributed do its part
    "click": set(),  # typer brings its own
    "torchvision": set(),  # a broken one must not break this tool
}
SLOW = {
    *("cleanfid", "diffusers", "jinja2", "matplotlib", "scipy", "sklearn", "torchvision", "huggingface_hub"),
    *("peft", "transformers", "optuna", "datasets", "fsspec", "wandb", "trackio", "mlflow", "submitit"),
}
HEAVY = SLOW | {"torch", "numpy", "PIL", "safetensors"}
QUICK = {"", "cli", "version", "errors", "config", "commands", "pipeline", "storage.atomic", "runtime.signals"}


def lives_in(module: str, homes: set[str]) -> bool:
    return any(module == home or (home and module.startswith(f"{home}.")) for home in homes)


def uses(others: set[str], library: str) -> bool:
    return any(f"{other}.".startswith(f"{library}.") for other in others)


def offered(wing: str) -> dict[str, str]:
    """Name -> the module of the wing that it comes from, as its face says; '' for a whole module."""
    tree = ast.parse((ROOT / wing / "__init__.pyi").read_text())
    return {alias.name: node.module or "" for node in tree.body for alias in node.names}


def test_the_reader_sees_what_is_known_to_be_there(tmp_path: Path) -> None:
    source = [
        "from __future__ import annotations",
        "import torch.nn as nn",
        "from typing import TYPE_CHECKING",
        "from . import names, __version__",
        "from ..patching import Patch",
        "if TYPE_CHECKING:",
        "    from .base import Backbone",
        "class A:",
        "    import numpy",
        "    def f(self):",
        "        from diffusers.models import DiT",
    ]
    path = tmp_path / "dit.py"
    path.write_text("\n".join(source))
    known = dict.fromkeys(["patching", "backbones", "backbones.base", "backbones.names", "backbones.dit"], path)
    targets = {(item.target, item.name) for item in wings.own_imports("backbones.dit", path, known)}
    assert targets == {
        ("backbones.names", "names"),
        ("backbones", "__version__"),
        ("patching", "Patch"),
        ("backbones.base", "Backbone"),
    }
    assert {"torch.nn", "numpy", "diffusers.models.DiT"} <= wings.foreign_imports(path)
    at_top = wings.foreign_imports(path, top_only=True)
    assert "numpy" in at_top
    assert not uses(at_top, "diffusers")
    assert ("training", "patching") in wings.arrows(ROOT)
    assert ("patching", "backbones") in wings.arrows(ROOT)


def test_every_wing_has_its_place() -> None:
    assert {wings.wing_of(module) for module in MODULES} - {""} == set(wings.WINGS)
    assert len(wings.WINGS) == len(set(wings.WINGS))
    beside = [path.name for path in ROOT.iterdir() if path.suffix in (".py", ".pyi")]
    assert len(beside) <= 7, beside


def test_arrows_point_down() -> None:
    height = {wing: place for place, wing in enumerate(wings.WINGS)}
    assert not [i for i in ACROSS if height[wings.wing_of(i.target)] > height[wings.wing_of(i.module)]]


def test_other_wings_come_in_by_the_face() -> None:
    deep = [i for i in ACROSS if "." in i.target and (i.module, i.target) != ("__main__", "cli")]
    whole = {(i.target, i.name) for i in deep if offered(wings.wing_of(i.target)).get(i.name) == ""}
    assert not [i for i in deep if (i.target, i.name) not in whole]
    unknown = [i for i in ACROSS if i.target in FACES and i.name not in offered(i.target)]
    assert not unknown


@pytest.mark.parametrize("wing", FACES)
def test_a_face_says_what_the_wing_is_for_and_keeps_its_word(wing: str) -> None:
    face = importlib.import_module(f"dmp_cli.{wing}")
    lines = (face.__doc__ or "").strip().splitlines()
    assert len(lines) <= 6, "a face is short"
    assert all(word in (face.__doc__ or "") for word in ("In: ", "Out: ", "Start reading at "))
    names = offered(wing)
    assert sorted(face.__all__) == sorted(names)
    for name in names:
        assert getattr(face, name) is not None
    # a lazy face would hand out the module instead of the verb
    inside = {path.stem for path in (ROOT / wing).glob("*.py")}
    assert not [name for name, home in names.items() if name in inside and home]


def test_method_and_backbones_do_not_know_each_other() -> None:
    method = {"patching.prompts", "patching.gates", "patching.balance"}
    assert not [i for i in ACROSS if i.module in method and wings.wing_of(i.target) == "backbones"]
    assert not [i for i in ACROSS if wings.wing_of(i.module) == "backbones" and i.target.startswith("patching")]
    # what attaches a patch knows the seam, and no family
    seen = {i.name for i in ACROSS if i.module == "patching.attachment" and i.target == "backbones"}
    assert seen == {"Backbone", "as_backbone"}


def test_the_package_itself_imports_nothing_until_asked() -> None:
    assert [i for i in IMPORTS if i.module == ""] == []
    assert sorted(dmp_cli.__all__) == dir(dmp_cli)
    for name in dmp_cli.__all__:
        assert getattr(dmp_cli, name) is not None
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = dmp_cli.unheard_of


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_its_home(library: str) -> None:
    strangers = [m for m, others in FOREIGN.items() if uses(others, library) and not lives_in(m, HOMES[library])]
    assert not strangers
    assert not HOMES[library] or [m for m, others in FOREIGN.items() if uses(others, library)], "nobody uses it"


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module, path in MODULES.items():
        if module == "demo.make_data":  # a script, run by hand
            continue
        unwanted = HEAVY if lives_in(module, QUICK) else SLOW
        at_top = wings.foreign_imports(path, top_only=True)
        assert not [library for library in unwanted if uses(at_top, library)], module


def test_starting_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, dmp_cli.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = set(result.stdout.split())
    assert {"dmp_cli", "typer"} <= loaded
    assert not loaded & (HEAVY | {"platformdirs"})


def test_nothing_is_loaded_by_executing_it() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "numpy.load"}, f"{module}: {called}"
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", module
            if called == "np.load":
                assert options.get("allow_pickle") == "False", module


def test_no_room_is_too_full() -> None:
    for module, path in MODULES.items():
        text = path.read_text()
        assert len(text.splitlines()) <= 250, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{module}: {node.name}"


def test_tests_mirror_the_wings() -> None:
    here = Path(__file__).parent
    for path in here.glob("*/test_*.py"):
        assert path.parent.name in {*FACES, "compatibility", "chaos", "families"}, path
    assert {path.name for path in here.glob("test_*.py")} == {
        *(
            "test_architecture.py",
            "test_cli.py",
            "test_docs.py",
            "test_errors.py",
            "test_gpu_script.py",
            "test_pipeline.py",
            "test_readme.py",
            "test_scale.py",
            "test_studies.py",
        ),
    }
