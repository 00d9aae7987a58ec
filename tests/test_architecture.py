"""The shape of the code: sizes, mirrors, and what must not stand anywhere. The arrows are import-linter's."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("client_hook", "server", "static", "benchmarks")
LINES = 320
FUNCTION_LINES = 60
# Modules that another test drives through their only use.
DRIVEN_ELSEWHERE = {
    "client_hook": {
        "console", "recording", "journal", "ledger", "segment", "spool_reader", "registry", "uncaught", "cli",
        "probe/activity", "probe/laboratory", "probe/probing", "probe/reading", "probe/surface", "probe/trial",
        "probe/unclipped", "measure/learning_rate", "measure/loss_scale",
        "demo/corpus", "demo/model", "demo/train", "demo/command",
    },
}  # fmt: skip


def tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*")]
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def test_files_hold_one_idea() -> None:
    files = [path for path in tracked(".py", ".js", ".css") if path.relative_to(ROOT).parts[0] in SOURCES]
    long = {str(path.relative_to(ROOT)): n for path in files if (n := path.read_text().count("\n")) > LINES}
    assert files and not long


def test_functions_are_short() -> None:
    long = []
    for path in tracked(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.name} ({length})")
    assert not long


def test_no_drawer_for_everything() -> None:
    assert not [path for path in tracked(".py", ".js") if re.search(r"util|helper|manager|common|misc", path.stem)]


def test_the_hooks_tests_mirror_its_modules() -> None:
    package = ROOT / "client_hook" / "gradwatch"
    modules = {str(path.relative_to(package))[:-3] for path in package.rglob("*.py") if path.stem != "__init__"}
    tests = ROOT / "tests" / "client_hook"
    mirrored = {
        str(path.relative_to(tests).with_name(path.stem.removeprefix("test_"))) for path in tests.rglob("test_*.py")
    }
    assert modules - mirrored - DRIVEN_ELSEWHERE["client_hook"] == set()
    assert mirrored <= modules


def test_the_page_builds_text_as_text_and_loads_nothing_from_elsewhere() -> None:
    for path in tracked(".js", ".html", ".css"):
        if path.relative_to(ROOT).parts[0] == "static":
            text = path.read_text()
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), path
            assert not re.search(r"(?:src|href|import|url\()\s*[=(]?\s*[\"']?(?:https?:)?//", text), path


def test_only_one_file_knows_the_chart_library() -> None:
    knowing = [path.name for path in tracked(".js") if re.search(r"\bPlotly\b", path.read_text())]
    assert [name for name in knowing if not name.endswith(".test.js")] == ["chart.js"]


def test_nothing_received_is_unpickled_or_evaluated() -> None:
    for path in tracked(".py"):
        if path.relative_to(ROOT).parts[0] in ("client_hook", "server"):
            assert not re.search(r"\bpickle\.|torch\.load|\beval\(|\bexec\(|yaml\.load\(", path.read_text()), path
