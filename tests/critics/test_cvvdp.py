"""ColorVideoVDP as a judge, through its package."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch
from images import pair

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.cli.main import main
from perceptloss.errors import ConfigError, PerceptlossError


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    assert get_card("package:cvvdp").better == "higher"
    with pytest.raises(PerceptlossError, match=r'pip install "perceptloss\[cvvdp\]"'):
        create_critic("package:cvvdp")


class TestWithThePackage:
    @pytest.fixture(scope="class", autouse=True)
    def package(self):
        return pytest.importorskip("pycvvdp")

    def test_is_that_of_the_package_and_has_a_slope(self, package):
        x, y = pair(2, 64)
        critic = create_critic("package:cvvdp")
        theirs = package.cvvdp(display_name="standard_4k", device=torch.device("cpu"), quiet=True)
        wanted, _ = theirs.predict(x, y, dim_order="BCHW")
        torch.testing.assert_close(critic(x, y), wanted, rtol=0, atol=1e-5)
        loss = CriticLoss({"package:cvvdp": 1.0})(x.requires_grad_(), y)
        torch.testing.assert_close(loss, (10 - wanted).mean(), rtol=1e-5, atol=1e-5)
        assert (torch.autograd.grad(loss, x)[0].flatten(1).norm(dim=1) > 0).all()

    def test_equal_images_are_10_and_have_no_slope(self):
        critic = create_critic("package:cvvdp")
        for image in (pair(1, 32)[1], torch.zeros(1, 3, 32, 32)):
            x = image.clone().requires_grad_()
            score = critic(x, image)
            assert score.item() == 10
            assert not torch.autograd.grad(score.sum(), x)[0].any()

    def test_a_nearer_display_shows_less_of_fine_errors(self):
        x, y = pair(1, 64)
        near = create_critic("package:cvvdp", options={"pixels_per_degree": 20.0})
        assert near(x, y).item() != pytest.approx(create_critic("package:cvvdp")(x, y).item(), abs=1e-3)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"display": "standard_5k"}, r"knows no display 'standard_5k'; did you mean 'standard_4k'"),
            ({"pixels_per_degree": 0.0}, r"pixels_per_degree must be a number above 0, got 0\.0"),
            ({"pixels_per_degree": -3}, r"pixels_per_degree must be a number above 0, got -3"),
        ],
    )
    def test_refuses_other_displays_before_anything_is_scored(self, options, sentence):
        with pytest.raises(ConfigError, match=sentence):
            create_critic("package:cvvdp", options=options)

    def test_copies_and_pickles(self):
        x, y = pair(1, 32)
        critic = create_critic("package:cvvdp")
        for twin in (copy.deepcopy(critic), pickle.loads(pickle.dumps(critic))):
            assert torch.equal(twin(x, y), critic(x, y))
        assert "cvvdp:" in critic.signature

    def test_compares_on_the_command_line(self, tmp_path, capsys):
        from PIL import Image

        for name, images in zip(("out", "gt"), pair(2, 32), strict=True):
            (tmp_path / name).mkdir()
            for n, image in enumerate(images):
                levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
                Image.fromarray(levels).save(tmp_path / name / f"{n}.png")
        arguments = [str(tmp_path / "out"), "--ref", str(tmp_path / "gt"), "-c", "package:cvvdp", "--quiet"]
        assert main(["score", *arguments]) == 0
        assert "package:cvvdp ↑" in capsys.readouterr().out
