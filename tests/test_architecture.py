"""Imports run one way, and the light parts stay light."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
OPTUNA = {
    "analysis/explore/optuna_study.py",
    "analysis/explore/importance.py",
}  # use Optuna's importances and studies, and load it when asked to
FORBIDDEN = {
    "trials": {"ray", "optuna", "orchestrator", "analysis"},
    "analysis": {"ray", "optuna", "torch", "transformers", "orchestrator"},
}


PACKAGES = ("trials", "orchestrator", "analysis", "slimsweep")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path)}
        forbidden = FORBIDDEN[package] - ({"optuna"} if path.relative_to(ROOT).as_posix() in OPTUNA else set())
        assert not roots & forbidden, f"{path} imports {roots & forbidden}"


def test_analysis_imports_of_its_neighbours_the_record_alone():
    for path in (ROOT / "analysis").rglob("*.py"):
        of_trials = {name for name in imports(path) if name.partition(".")[0] == "trials"}
        assert of_trials <= {
            "trials.ledger.record",
            "trials.ledger.outcomes",
            "trials.ledger.storage",
            "trials.errors",
            "trials.printable",
        }, f"{path} imports {of_trials}"


@pytest.mark.parametrize("folder", ["stats", "metrics"])
def test_statistics_import_neither_results_nor_pictures(folder):
    for path in (ROOT / "analysis" / folder).rglob("*.py"):
        inside = {name.split(".")[1] for name in imports(path) if name.startswith("analysis.")}
        assert inside <= {"stats", "metrics"}, path
        assert not any(name.partition(".")[0] == "matplotlib" for name in imports(path)), path


def test_only_the_orchestrator_imports_ray():
    for path in ROOT.glob("*/**/*.py"):
        if path.relative_to(ROOT).parts[0] in ("trials", "analysis"):
            assert not any(name.partition(".")[0] == "ray" for name in imports(path)), path


LIBRARIES = {
    "optuna": ("orchestrator/search/",),
    "sqlalchemy": ("orchestrator/search/",),
    "ray": ("orchestrator/cluster/", "orchestrator/submit.py"),
    "rich": ("orchestrator/console/", "orchestrator/cli.py"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_these_places_of_the_orchestrator_import_the_library(library):
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "orchestrator").rglob("*.py")
        if any(name.partition(".")[0] == library for name in imports(path))
    }
    assert not {path for path in importing if not path.startswith(LIBRARIES[library])}


def test_config_imports_only_the_gpu_catalog_of_the_orchestrator():
    for path in (ROOT / "orchestrator" / "config").rglob("*.py"):
        others = {name for name in imports(path) if name.startswith("orchestrator") and "config" not in name}
        # `from orchestrator import gpu_catalog` names the package alone
        assert others <= {"orchestrator", "orchestrator.gpu_catalog"}, f"{path} imports {others}"


def test_reading_records_and_configs_loads_no_torch():
    code = "import sys, analysis.results.sweep, orchestrator.config.model; sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_checking_a_sweeps_inputs_waits_for_no_import_that_only_a_trial_needs():
    code = "import sys, trials.preflight; sys.exit(bool({'peft', 'bitsandbytes', 'accelerate'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_analysis_loads_optuna_and_scikit_learn_when_they_are_asked_for():
    code = (
        "import sys, analysis.figures.sweep, analysis.export.files, analysis.explore.selection; "
        "sys.exit(bool({'optuna', 'sklearn'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_micro_is_named_nowhere_outside_its_folder():
    for package in ("orchestrator", "trials", "analysis"):
        for path in (ROOT / package).rglob("*.py"):
            if "micro" not in path.relative_to(ROOT).parts:
                text = path.read_text().replace("micro_batch", "").replace("micro-batch", "").replace("micro = min", "")
                names = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
                assert not any(isinstance(name, str) and name.startswith("micro") and " " not in name for name in names), path


PRIVATE = {"bitsandbytes", "datasets", "huggingface-hub", "jinja2", "lm-eval", "optuna", "peft", "transformers"}
"""Packages of which more is used than they promise to keep."""


def test_what_promises_nothing_has_an_upper_bound_that_the_lock_satisfies():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {one.name: one.specifier for one in map(Requirement, declared)}
    locked = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for name in PRIVATE:
        assert any(bound.operator == "<" for bound in wanted[name]), name
    assert not {name for name, bounds in wanted.items() if name in locked and not bounds.contains(locked[name])}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _runs(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _runs(child)


def _imported(path: Path) -> set[str]:
    """Modules of the project that a module imports, inside functions as well; not those for types alone."""
    tree = ast.parse((ROOT / path).read_text())
    names = {_name(module) for module in MODULES}
    found = set()
    for node in _runs(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found.add(submodule if (submodule := f"{node.module}.{alias.name}") in names else node.module)
    return found & names


def test_no_circle_of_imports():
    graph = {_name(path): _imported(path) - {_name(path)} for path in MODULES}
    while leaves := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - leaves for name, imported in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.parametrize("folder", ["analysis/stats", "analysis/metrics"])
def test_statistics_know_neither_results_nor_figures(folder):
    for path in (ROOT / folder).glob("*.py"):
        assert not {name for name in imports(path) if name.startswith(("analysis.results", "matplotlib"))}, path


def test_specs_errors_and_the_ledger_load_no_torch():
    modules = ["trials.spec", "trials.errors", *(_name(path) for path in MODULES if path.parts[:2] == ("trials", "ledger"))]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_module_has_its_test_file():
    code = [path for path in MODULES if path.name not in ("__init__.py", "__main__.py")]
    assert not [str(path) for path in code if not (ROOT / "tests" / path.parent / f"test_{path.name}").exists()]


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {name for name in imports(path) if name.rpartition(".")[2].startswith("test_")}, path


def _definitions(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> list[tuple[str, ast.AST]]:
    return [
        (f"{path}:{node.name}", node)
        for path in MODULES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, kind)
    ]


def test_functions_classes_and_files_stay_small():
    functions = _definitions((ast.FunctionDef, ast.AsyncFunctionDef))
    assert not [name for name, node in functions if node.end_lineno - node.lineno >= 60]
    assert not [name for name, node in _definitions(ast.ClassDef) if node.end_lineno - node.lineno >= 250]
    assert not [str(path) for path in MODULES if len((ROOT / path).read_text().splitlines()) > 400]


def test_few_functions_take_six_parameters():
    def parameters(node: ast.FunctionDef) -> int:
        taken = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        return len([one for one in taken if one.arg not in ("self", "cls")])

    assert len([name for name, node in _definitions(ast.FunctionDef) if parameters(node) >= 6]) < 10
