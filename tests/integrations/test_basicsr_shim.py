"""What has to be mended so that BasicSR imports and resumes, and that nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import bsr
import pytest
import torch

from perceptloss.integrations.basicsr import shim


def python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": str(bsr.ROOT), "OMP_NUM_THREADS": "1", "PATH": "", **env},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_basicsr_imports_after_us():
    done = python("""
        import sys
        import perceptloss.integrations.basicsr
        import basicsr
        import torchvision.transforms.functional_tensor as alias
        import torchvision.transforms.functional as genuine
        assert alias.rgb_to_grayscale is genuine.rgb_to_grayscale
        assert [n for n in vars(alias) if not n.startswith("__")] == ["rgb_to_grayscale"]
        from basicsr.data.degradations import random_add_gaussian_noise
        assert sys.modules["basicsr.train"].load_resume_state.__module__ == "perceptloss.integrations.basicsr.shim"
    """)
    assert done.returncode == 0, done.stderr


def test_a_genuine_module_wins():
    """The shim's file is run by itself, because its package imports the torchvision that is installed."""
    file = bsr.ROOT / "perceptloss" / "integrations" / "basicsr" / "shim.py"
    done = python(f"""
        import runpy, sys
        install = runpy.run_path({str(file)!r})["install"]
        install()
        install()
        assert type(sys.meta_path[-1]).__name__ == "_FunctionalTensor"
        assert sum(type(f).__name__ == "_FunctionalTensor" for f in sys.meta_path) == 1

        import importlib.machinery, types
        class Genuine:
            def find_spec(self, name, path, target=None):
                if name == "torchvision.transforms.functional_tensor":
                    return importlib.machinery.ModuleSpec(name, self)
            def create_module(self, spec): return None
            def exec_module(self, module): module.is_genuine = True
        sys.meta_path.insert(3, Genuine())
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["torchvision.transforms"] = package = types.ModuleType("torchvision.transforms")
        package.__path__ = []
        import torchvision.transforms.functional_tensor as found
        assert found.is_genuine
        assert sys.meta_path[-1].find_spec("torchvision.transforms.other", None) is None
    """)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def opt(tmp_path):
    states = tmp_path / "elsewhere" / "training_states"
    states.mkdir(parents=True)
    path = {"training_states": str(states), "models": str(tmp_path), "resume_state": None}
    return {"auto_resume": True, "name": "run", "path": path, "network_g": {}}


def test_automatic_resuming_finds_the_newest_state_of_the_experiment(opt, tmp_path):
    for iteration in (900, 1000, 50):
        torch.save({"iter": iteration, "epoch": 1}, f"{opt['path']['training_states']}/{iteration}.state")
    state = shim.load_resume_state(opt)
    assert state == {"iter": 1000, "epoch": 1}
    assert opt["path"]["pretrain_network_g"] == str(tmp_path / "net_g_1000.pth")


def test_resuming_from_a_named_state_or_not_at_all(opt):
    assert shim.load_resume_state(opt) is None
    opt["auto_resume"] = False
    assert shim.load_resume_state(opt) is None
    file = f"{opt['path']['training_states']}/7.state"
    torch.save({"iter": 7, "optimizers": [{"state": {0: {"step": torch.ones(())}}}]}, file)
    opt["path"]["resume_state"] = file
    assert shim.load_resume_state(opt)["iter"] == 7


def test_a_state_that_would_run_code_is_refused(opt):
    import functools
    import pickle

    torch.save({"iter": functools.partial(exec, "raise SystemExit")}, f"{opt['path']['training_states']}/1.state")
    with pytest.raises(pickle.UnpicklingError):
        shim.load_resume_state(opt)


def test_a_missing_basicsr_says_how_to_install_it():
    done = python("""
        import sys
        sys.modules["basicsr"] = None
        import perceptloss.integrations.basicsr
    """)
    assert done.returncode != 0
    assert "pip install --no-build-isolation basicsr==1.4.2" in done.stderr
