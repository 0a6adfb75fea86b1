"""Imports point down, light modules stay light, and one function alone writes upstream's parameter
dict."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "ptycho_torch").rglob("*.py"), *(ROOT / "fly64lib").rglob("*.py")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules and names imported anywhere in a file, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            yield (
                ast.literal_eval(node.args[0])
                if isinstance(node.args[0], ast.Constant)
                else "unknown"
            )


def top_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}


def parameters_written(tree: ast.AST, function: str = "<module>") -> Iterator[str]:
    """Functions in which `params.cfg` is named, in whatever way it was imported."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(node, ast.Attribute) and node.attr == "cfg":
            yield inside
        if isinstance(node, ast.ImportFrom) and node.module == "ptycho_torch.params":
            yield inside
        yield from parameters_written(node, inside)


def notebook_code(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


# From the ground up: a room may import from those before it, and from itself without a circle.
ENGINE = (
    *("errors", "fields", "files", "params", "versions", "registry", "commands", "config"),
    *("physics", "data"),
    *("memmap_bridge", "iteration", "network", "training", "inference", "workflows"),
)
STUDY = (
    *("design", "simulation", "evaluation", "methods", "plots"),
    *("generation", "overlap", "training", "reconstruction", "comparison"),
    *("formats", "check", "report", "notebook", "sweep", "cli"),
)
RANK = {f"ptycho_torch.{room}": rank for rank, room in enumerate(ENGINE)} | {
    f"fly64lib.{room}": 100 + rank for rank, room in enumerate(STUDY)
}
# import what a name says: lazily, on request
BY_NAME = {"registry.py", "__init__.py", "main.py", "fork_server.py"}


def room(name: str) -> str:
    """`fly64lib.methods` of `fly64lib.methods.classical.fit`."""
    return ".".join(name.split(".")[:2])


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_imports(path: Path) -> set[str]:
    """Modules of the project that a file imports, names in them cut off."""
    modules = set(map(module, SOURCES))
    names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    names |= {name.rpartition(".")[0] for name in names}
    return {name for name in names & modules if "." in name}


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_point_down_from_room_to_room(path):
    own = room(module(path))
    assert not top_packages(path) & {"notebooks", "tests", "conftest", "oracle", "small_scan"}
    assert path.name in BY_NAME or "unknown" not in top_packages(path)
    if path.parent.name not in ("fly64lib", "ptycho_torch") or path.name != "__init__.py":
        higher = {name for name in project_imports(path) if RANK[room(name)] > RANK[own]}
        assert not higher, f"{own} imports from rooms above it"


def test_no_module_imports_itself_by_way_of_others():
    reach = {module(path): project_imports(path) - {module(path)} for path in SOURCES}
    order: list[str] = []
    while free := [name for name, needs in reach.items() if not needs & reach.keys()]:
        order += free
        for name in free:
            del reach[name]
    assert not reach, f"a circle among {sorted(reach)}"


@pytest.mark.parametrize("package", ["ptycho_torch", "fly64lib"])
def test_a_package_shows_its_layers_in_one_look(package):
    entries = {path.name for path in (ROOT / package).iterdir()} - {"__pycache__"}
    assert len(entries) <= 18, sorted(entries)
    known = {"ptycho_torch": ENGINE, "fly64lib": STUDY}[package]
    assert {entry.removesuffix(".py") for entry in entries} == {"__init__", "py.typed", *known}


def test_the_import_finder_sees_imports_inside_functions_and_by_name():
    code = (
        "def f():\n    import fly64lib.design.study\n    from fly64lib import scan\n   "
        " import_module('torch')\n"
    )
    assert list(imported(ast.parse(code))) == ["fly64lib.design.study", "fly64lib.scan", "torch"]


def test_only_run_training_job_names_the_upstream_parameters():
    found = {
        (path.relative_to(ROOT).as_posix(), function)
        for path in SOURCES
        for function in parameters_written(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {("fly64lib/training.py", "run_training_job")}
    for path in NOTEBOOKS:
        assert not list(parameters_written(ast.parse(notebook_code(path).replace("%", "#"))))


def test_every_way_to_reach_the_upstream_parameters_is_seen():
    for line in (
        "params.cfg['N'] = 3",
        "ptycho_torch.params.cfg.update(x)",
        "from ptycho_torch.params import cfg",
        "getit = params.cfg",
    ):
        assert list(parameters_written(ast.parse(f"def f():\n    {line}"))) == ["f"]


def test_no_file_is_unpickled_and_torch_load_takes_weights_only():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not top_packages(path) & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False") == "False", path
                if ast.unparse(node.func) == "torch.load":
                    assert given.get("weights_only") == "True", path


@pytest.fixture(scope="module")
def light_modules() -> dict[str, list[str]]:
    """Heavy packages loaded after each light module was imported, one after another in a fresh
    interpreter."""
    names = [
        "ptycho_torch",
        "ptycho_torch.errors",
        "ptycho_torch.params",
        "ptycho_torch.fields",
        "ptycho_torch.files",
        "ptycho_torch.config",
        "fly64lib",
        "fly64lib.notebook.parameters",
        "fly64lib.design.study",
        "fly64lib.training",
    ]
    code = (
        "import sys, json, importlib\nloaded = {}\nfor name in "
        + repr(names)
        + ":\n    importlib.import_module(name)\n    loaded[name] = [heavy for heavy in ('torch',"
        " 'lightning', 'matplotlib', 'skimage') if heavy in"
        " sys.modules]\nprint(json.dumps(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_package_its_configuration_and_its_errors_import_neither_torch_nor_lightning(
    light_modules,
):
    assert len(light_modules) == 10
    assert {name: heavy for name, heavy in light_modules.items() if heavy} == {}


def test_a_study_is_planned_from_what_its_methods_say_without_torch():
    """A rerun with nothing to do is over in seconds, and torch alone takes some."""
    code = (
        "import sys, fly64lib.sweep.profile as profile; profile.load_profile('quick').notebooks();"
        " print({'torch', 'lightning', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_only_training_waits_for_lightning():
    """Notebooks that train nothing start in half of the time."""
    names = ["reconstruction", "comparison", "report.report", "notebook.explore", "notebook.infer"]
    code = (
        "import sys\n"
        + "\n".join(f"import fly64lib.{name}" for name in names)
        + "\nprint('lightning' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
