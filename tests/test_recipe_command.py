"""`perceptloss recipe`: what it lists and copies, and that a recipe gets its words and gives its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perceptloss.cli import recipe
from perceptloss.cli.main import main

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
needs_accelerate = pytest.mark.skipif(recipe.find_spec("accelerate") is None, reason="needs accelerate")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Recipes `minimal` and `basicsr` that write their words to a file and end as the first of them says."""
    text = (
        "import os, signal, sys\n"
        "open('words', 'w').write(repr(sys.argv[1:]))\n"
        "os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == 'kill' else sys.exit(int(sys.argv[1]))\n"
    )
    home = tmp_path / "recipes"
    (home / "basicsr").mkdir(parents=True)
    (home / "minimal.py").write_text(text)
    (home / "basicsr" / "train.py").write_text(text)
    (home / "basicsr" / "mine.yml").write_text("# one")
    monkeypatch.setattr(recipe, "_PACKAGE", tmp_path / "perceptloss")
    monkeypatch.setattr(recipe, "find_spec", lambda name: name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_recipe_and_configuration_is_listed_and_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines if line.startswith("  ")}
    files = [*RECIPES.glob("*.py"), *RECIPES.glob("configs/*"), *RECIPES.glob("basicsr/*.yml")]
    assert names == {"basicsr", *(path.stem for path in files)}
    assert len(names) == len(files) + 1
    assert max(map(len, lines)) <= 80


def test_listing_loads_no_torch():
    code = (
        "import sys; from perceptloss.cli.main import main; main(['recipe', 'list']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_show_prints_the_file(capsys):
    for name, path in (("minimal", "minimal.py"), ("sr_serious", "configs/sr_serious.yaml")):
        assert main(["recipe", "show", name]) == 0
        assert capsys.readouterr().out == (RECIPES / path).read_text(encoding="utf-8")


def test_every_configuration_has_its_script():
    for name, path in recipe._files().items():
        if path.suffix != ".py" and not name.startswith("accelerate_"):
            script, options = recipe._configured(path)
            assert script.is_file()
            assert options == ["-opt" if path.suffix == ".yml" else "--config", str(path)]
            assert (script.stem == "critic") == (name.startswith(("critic", "mini", "milo")))


@needs_accelerate
def test_a_copy_runs_by_itself(tmp_path, capsys):
    assert main(["recipe", "copy", "sr", str(tmp_path / "mine")]) == 0
    assert "accelerate launch" in capsys.readouterr().err
    run = subprocess.run([sys.executable, "mine/sr.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--train.steps" in run.stdout


def test_a_copy_replaces_nothing_that_differs(tmp_path, capsys):
    assert main(["recipe", "copy", "sr", str(tmp_path)]) == 0
    assert main(["recipe", "copy", "sr", str(tmp_path)]) == 0
    capsys.readouterr()
    (tmp_path / "sr.py").write_text("mine")
    (tmp_path / "_lib" / "networks.py").unlink()
    assert main(["recipe", "copy", "sr", str(tmp_path)]) == 2
    assert f"nothing was copied: {tmp_path / 'sr.py'} exists already" in capsys.readouterr().err
    assert (tmp_path / "sr.py").read_text() == "mine"
    assert not (tmp_path / "_lib" / "networks.py").exists()
    assert main(["recipe", "copy", "minimal", str(tmp_path / "sr.py")]) == 2
    assert "cannot copy minimal" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["basicsr", pytest.param("minimal", marks=needs_accelerate)])
@pytest.mark.parametrize(("first", "code"), [("0", 0), ("7", 7), ("kill", 137)])
def test_words_go_in_and_the_exit_code_comes_out(toy, name, first, code, capfd):
    assert main(["recipe", "run", name, "--", first, "--flag", "two words"]) == code
    assert (toy / "words").read_text() == repr([first, "--flag", "two words"])
    assert "Traceback" not in capfd.readouterr().err


def test_a_configuration_of_basicsr_goes_to_its_script(toy):
    (toy / "recipes" / "basicsr" / "train.py").write_text("import sys; sys.exit(sys.argv[1:] != ['-opt', sys.argv[2]])")
    assert main(["recipe", "run", "mine"]) == 0


@needs_accelerate
@pytest.mark.parametrize("words", [["--launch", "--cpu --mixed_precision bf16"], ["--launch=--mixed_precision=bf16"]])
def test_options_of_the_launcher_reach_it(toy, words, capfd):
    script = "import os, sys; print('is', os.environ['ACCELERATE_MIXED_PRECISION'], sys.argv[1:])"
    (toy / "recipes" / "minimal.py").write_text(script)
    for given in ([], ["--a", "--", "b"]):
        assert main(["recipe", "run", "minimal", *words, *(["--", *given] if given else [])]) == 0
        assert f"is bf16 {given}" in capfd.readouterr().out


@needs_accelerate
@pytest.mark.parametrize("name", ["basicsr", "minimal"])
def test_ctrl_c_is_for_the_recipe_to_handle(toy, name):
    script = recipe._files()[name]
    script.write_text(
        "import sys, time\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1); print('saved'); sys.exit(3)\n"
    )
    code = (
        "import sys; from pathlib import Path; from perceptloss.cli import main, recipe\n"
        f"recipe._PACKAGE = Path({str(toy / 'perceptloss')!r}); recipe.find_spec = str\n"
        f"sys.exit(main(['recipe', 'run', {name!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "saved\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["show", "minimul"], "no recipe is called 'minimul'; did you mean 'minimal'"),
        (["run", "sr", "stray"], "unexpected 'stray'; options of the recipe itself come after --"),
        (["run", "sr", "--train.steps", "3"], "unknown flag --train.steps; options of the recipe itself come after --"),
        (["run", "accelerate_fsdp"], "recipe run sr --launch='--config_file accelerate_fsdp'"),
        (["run", "minimal", "--launch", "'"], "cannot be taken apart: No closing quotation"),
        (["run", "basicsr", "--launch", "x"], "BasicSR's script is started by Python alone"),
        (["rum", "sr"], "invalid choice: 'rum'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(words, part, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "find_spec", lambda name: name)
    assert main(["recipe", *words]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(("name", "part"), [("sr", "accelerate"), ("basicsr", "basicsr"), ("sr_serious", "accelerate")])
def test_what_is_missing_is_named(name, part, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "find_spec", lambda name: None)
    assert main(["recipe", "run", name]) == 2
    told = f"recipe {name!r} needs the package {part}, which is missing: pip install 'perceptloss[recipes]'"
    assert told in capsys.readouterr().err


@needs_accelerate
@pytest.mark.skipif(recipe.find_spec("skimage") is None, reason="needs scikit-image")
def test_the_minimal_recipe_improves_what_it_was_not_trained_on(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import minimal

    monkeypatch.setattr(minimal, "STEPS", 12)
    minimal.main()
    before, after = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (before[0], after[0], before[1::2]) == ("before", "after", list(minimal.JUDGES))
    assert float(after[2]) > float(before[2]) + 1  # decibels
