"""What no module may do, shown by its syntax tree (ADVERSITY 8: C1, M4, M5, L1)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from overnight.store.scripts import SCRIPTS
from tests.unit.test_house_rules import OPENS_PICKLES, modules

_PICKLES = {
    f"{module}.{name}"
    for module in ("pickle", "cloudpickle", "_pickle", "dill", "joblib")
    for name in ("load", "loads")
} | {"pickle.Unpickler", "cloudpickle.Unpickler"}
_OTHER = {
    "eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.load", "marshal.loads", "shelve.open",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "os.tmpnam",
}  # fmt: skip
_SEALING = ("keyring.py", "wire.py", "flags.py")


def named(node: ast.expr) -> str:
    """The dotted name of an expression, as far as it has one."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def has_shell(call: ast.Call) -> bool:
    return any(word.arg == "shell" and not _is_false(word.value) for word in call.keywords)


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def faults(text: str) -> set[str]:
    """Name what a module may not do."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            found |= {named(node.func), "shell=True" if has_shell(node) else ""}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found & (_PICKLES | _OTHER | {"shell=True"})


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(x)", "cloudpickle.load(f)", "from pickle import loads", "pickle.Unpickler(f)", "eval(x)",
        "exec(x)", "yaml.load(f)", "os.system(x)", "run(x, shell=True)", "Popen(x, shell=flag)", "tempfile.mktemp()",
        "marshal.loads(b)",
    ],
)  # fmt: skip
def test_the_lint_finds_what_it_looks_for(line: str) -> None:
    """C1, L1."""
    assert faults(line)
    assert not faults("subprocess.Popen(x, shell=False); json.loads(x); pickle.dumps(x); yaml.safe_load(x)")


def test_pickles_are_opened_in_one_module_and_no_text_is_executed() -> None:
    """C1, L1: no eval, no shell, no os.system, no other serialisation that runs code."""
    found = {path: bad for path, text in modules() if (bad := faults(text))}
    assert found == {OPENS_PICKLES: {"pickle.loads"}}


def test_no_script_for_the_server_is_built_from_strings() -> None:
    """L1: the texts of scripts are files; nothing sends EVAL or a text of its own."""
    sent = re.compile(r"""["']EVAL["' ]|\.eval\(|register_script|script_load\(""")
    assert [path for path, text in modules() if sent.search(text)] == []
    loads = [path for path, text in modules() if "SCRIPT LOAD" in text]
    assert loads == ["scheduler/overnight/store/redis_server.py"]
    for script in SCRIPTS:
        assert not re.search(r"\bload(?:string)?\s*\(|dofile|redis\.call\(\s*[^'\s]", script.text), script.name


def test_seals_are_compared_in_constant_time() -> None:
    """M5: no == between a computed and a given tag, and every key is tried."""
    for path, text in modules():
        if Path(path).name in _SEALING:
            for node in ast.walk(ast.parse(text)):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                assert not {"tag", "expected"} & {named(side) for side in sides}, (path, ast.unparse(node))
                assert not any("hmac" in ast.unparse(side) for side in sides), path
    assert sum(text.count("hmac.compare_digest") for _, text in modules()) >= 2


def test_files_that_are_made_beside_others_have_names_that_nobody_can_foresee() -> None:
    """M4: every temporary name holds random bits."""
    drafts = re.compile(r"""f["'][^"']*\{[^"']*\.tmp["']""")
    for path, text in modules():
        for match in drafts.finditer(text):
            assert "token_hex" in match.group(), (path, match.group())


def test_the_readme_says_what_a_submitter_may_and_whom_to_tell() -> None:
    """L1."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "Whoever may submit runs code on the workers" in readme
    assert "Report security problems" in readme
