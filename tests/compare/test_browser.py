"""The pages in a real browser: nothing complains, everything moves, and no name runs as script."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from judges import CARDS, Brightness, MeanError
from made import LIGHT, made
from PIL import Image

from perceptloss import registry
from perceptloss.compare import Pairing, Settings, compare
from perceptloss.compare.plan import make_plan
from perceptloss.compare.report import quality_maps, write_report
from perceptloss.compare.votes.asking import vote_html
from perceptloss.compare.votes.ballots import read_votes
from perceptloss.compare.votes.trials import Options
from perceptloss.critic import Entry

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(find_browser() is None, reason="no chromium or chrome is installed"),
]
HOSTILE = "<img src=x onerror=document.title='owned'>'\"&{{7*7}}"
SYSTEMS = ("plain", HOSTILE, "third")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    driven = Browser(str(find_browser()), folder)
    driven.folder = folder
    yield driven
    driven.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of three systems and references; a name is markup, and so is a system's."""
    home = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for n in range(6):
        clean = generator.integers(60, 180, (280, 300, 3))
        name = "<svg onload=document.title=1>" if n == 0 else f"picture {n}"
        for folder, strength in (("gt", 0), ("s0", 6), ("s1", 20), ("s2", 40)):
            (home / folder).mkdir(exist_ok=True)
            dirty = clean + generator.integers(-strength, strength + 1, clean.shape)
            Image.fromarray(dirty.clip(0, 255).astype(np.uint8)).save(home / folder / f"{name}.png")
    return home


@pytest.fixture(scope="module")
def report(pictures):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._registered, "toy-error", Entry(CARDS["toy-error"], MeanError))
        patch.setitem(registry._registered, "toy-light", Entry(CARDS["toy-light"], Brightness))
        systems = {name: pictures / f"s{n}" for n, name in enumerate(SYSTEMS)}
        results = compare(systems, pictures / "gt", ["toy-error", "toy-light"])
        plan = make_plan(
            systems, pictures / "gt", ["toy-error"], rules=Pairing(), settings=Settings(device="cpu"), baseline="plain"
        )
        maps = quality_maps(plan, results, "toy-error")
    write_report(results.with_roles(["toy-light"]), pictures / "report.html", maps=maps)
    return pictures / "report.html"


@pytest.fixture
def page(browser, report):
    browser.emulate()
    browser.open(report)
    browser.wait("state.panes.length === 4")
    yield browser
    assert browser.complaints == []


def pixels(browser) -> list[str]:
    """What each canvas of the viewer shows."""
    return browser.run("all('canvas', stage).map(canvas => canvas.toDataURL())")


class TestReport:
    def test_no_name_is_markup_or_script(self, page):
        assert page.run("document.title").startswith("plain, <img src=x onerror")
        assert (
            page.run(
                "document.querySelectorAll('img:not([data-pane]):not([data-quality]), svg[onload], body script').length"
            )
            == 2
        )
        assert page.run("all('#standings tbody th')[1].textContent") == HOSTILE
        page.run("document.body.insertAdjacentHTML('beforeend', '<i onclick=\"document.title=2\" id=evil>x</i>')")
        page.click("#evil")
        assert page.run("document.title").startswith("plain")
        page.events.clear()  # the browser says that the policy forbade it

    def test_sorts_and_filters_systems(self, page):
        names = "all('#standings tbody tr:not([hidden]) th').map(e => e.textContent)"
        before = page.run(names)
        page.click("#standings thead tr:last-child th:nth-child(2) button")
        rising = page.run(names)
        page.click("#standings thead tr:last-child th:nth-child(2) button")
        assert page.run(names) == rising[::-1] and sorted(rising) == sorted(before)
        values = page.run("all('#standings tbody tr').map(r => Number(r.cells[1].dataset.value))")
        assert values == sorted(values, reverse=True)
        page.run(
            "(f => { f.value = 'THIRD'; f.dispatchEvent(new Event('input')) })(document.querySelector('[data-filter]'))"
        )
        assert page.run(names) == ["third"]

    def test_shows_and_filters_every_image(self, page):
        rows = "document.querySelectorAll('#image-table tbody tr').length"
        assert page.run(rows) == 6
        page.click("#as-difference")
        assert all(t[0] in "+−0" for t in page.run("all('#image-table tbody tr').map(r => r.cells[1].textContent)"))
        page.run("document.getElementById('image-filter').value = 'onload'")
        page.run("document.getElementById('image-filter').dispatchEvent(new Event('input'))")
        assert page.run(rows) == 1

    def test_keys_change_what_is_seen(self, page):
        page.run("viewer.focus()")
        assert page.run("document.activeElement.id") == "viewer"
        four = pixels(page)
        assert len(four) == 4 and len(set(four)) == 4
        page.key("s")
        slider = pixels(page)
        assert len(slider) == 1 and slider[0] not in four
        page.run("control.wipe.value = 100, control.wipe.dispatchEvent(new Event('input'))")
        assert pixels(page) != slider
        page.key("f")
        a = pixels(page)
        page.key("f")
        b = pixels(page)
        page.key("f")
        assert a != b and pixels(page) == a
        page.key("+")
        zoomed = pixels(page)
        page.key("d")
        assert zoomed != a and pixels(page) != zoomed
        page.key("d")
        page.key("q")
        assert page.run("control.quality.checked") and pixels(page) != zoomed
        page.key("q")
        assert pixels(page) == zoomed
        page.key("]")
        page.wait("control.shot.value === '1'")
        assert page.run("control.zoom.value") == "2"

    def test_begins_with_a_pixel_as_large_as_one_of_the_page(self, page, report):
        page.open(report, dots=3)
        page.wait("state.panes.length === 4")
        assert page.run("[control.zoom.value, state.view.zoom]") == ["3", 3]

    def test_the_slider_moves_by_the_keyboard(self, page):
        page.run("setMode('slider'), control.wipe.focus()")
        before = pixels(page)
        page.key("ArrowLeft")
        assert page.run("control.wipe.value") == "499"
        for _ in range(60):
            page.key("ArrowLeft")
        assert pixels(page) != before

    def test_a_pixel_is_as_many_pixels_as_the_zoom_says(self, page, pictures):
        browser = page
        browser.open(pictures / "report.html", dots=2)
        browser.wait("state.panes.length === 4")
        browser.run("setMode('flicker'), zoomTo(4), state.view.x = state.view.y = 0, draw()")
        key = browser.run("shots[0].querySelector('h3').textContent")
        left, top = map(
            int,
            browser.run("shots[0].querySelector('p').textContent").partition(" at ")[2].split(" open")[0].split(", "),
        )
        seen = browser.run("[...stage.querySelector('canvas').getContext('2d').getImageData(0, 0, 16, 8).data]")
        crop = np.asarray(Image.open(pictures / "s0" / f"{key}.png"))[top : top + 2, left : left + 4]
        assert np.array_equal(np.array(seen).reshape(8, 16, 4)[..., :3], crop.repeat(4, 0).repeat(4, 1))

    def test_panes_move_together_and_the_magnifier_follows(self, page):
        page.run("zoomTo(8), viewer.focus()")
        before = pixels(page)
        page.key("ArrowRight")
        moved = pixels(page)
        assert all(one != other for one, other in zip(before, moved, strict=True))
        page.key("m")
        page.run("viewer.scrollIntoView()")
        box = page.run("(b => [b.x, b.y])(stage.querySelector('canvas').getBoundingClientRect())")
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 80, y=box[1] + 80)
        assert all(one != other for one, other in zip(moved, pixels(page), strict=True))

    def test_bars_open_images(self, page):
        page.run("viewer.scrollIntoView = () => { document.title += ' seen' }")
        number = page.run(
            "document.querySelector('#waterfalls figure:not([hidden]) svg a:nth-of-type(3)').dataset.open"
        )
        page.click("#waterfalls figure:not([hidden]) svg a:nth-of-type(3) rect")
        page.wait("document.title.endsWith(' seen')")
        assert page.run("shots[Number(control.shot.value)].dataset.shot") == number

    def test_menus_choose_drawings(self, page):
        seen = "all('#wins figure').filter(f => !f.hidden).map(f => f.dataset.label)"
        assert page.run(seen) == ["toy-light ↑†"]
        page.run(
            "(m => { m.value = '1'; m.dispatchEvent(new Event('change')) })(document.querySelector('#wins select'))"
        )
        assert page.run(seen) == ["toy-error ↓"]

    def test_saves_what_is_seen(self, page):
        page.run("setMode('side by side')")
        page.click("[data-do=export]")
        assert waited(page.folder / "comparison.png").size[0] > 4 * 200
        (page.folder / "comparison.png").unlink()

    def test_everything_that_acts_can_be_reached_by_tab(self, page):
        page.run("document.body.focus()")
        reached = set()
        for _ in range(60):
            page.key("Tab")
            reached.add(page.run("(e => e.id || Object.values(e.dataset)[0] || e.tagName)(document.activeElement)"))
        assert {"CSV", "of-system", "image-filter", "viewer", "shot", "zoom", "slider", "export"} <= reached

    def test_works_without_script(self, browser, report):
        browser.open(report, script=False)
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        shown = browser.run("document.body.innerText")
        assert "By mean rank over" in shown and "Differences" in shown and "magnifier" not in shown
        assert browser.run("[...document.querySelectorAll('figure')].filter(f => f.offsetHeight > 0).length") > 20

    def test_is_dark_where_one_wants_that_and_prints(self, page):
        page.emulate(dark=True)
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        page.emulate(media="print")
        assert page.run("getComputedStyle(viewer).display") == "none"
        assert len(page.call("Page.printToPDF", printBackground=True)["data"]) > 10_000

    def test_fits_a_telephone(self, page, report):
        page.open(report, width=390, height=800, dots=3)
        page.wait("state.panes.length === 4")
        assert page.run("document.documentElement.scrollWidth <= 390")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A thousand images of four systems by five critics, without pictures."""
    columns = [replace(LIGHT, label=f"critic {n}", signature=f"c{n}|x:1") for n in range(5)]
    values = np.random.default_rng(0).normal(size=(4, 5, 1000))
    path = tmp_path_factory.mktemp("large") / "report.html"
    write_report(made(values, columns, ("a", "b", "c", "d")), path)
    return path, values


def test_a_thousand_images_are_sorted_found_and_opened(browser, large):
    path, values = large
    browser.emulate()
    browser.open(path)
    rows = "all('#image-table tbody tr')"
    assert browser.run(f"{rows}.length") == 50
    browser.click("#image-table thead th:nth-child(3) button")
    first = browser.run(f"{rows}.map(row => row.cells[0].textContent)")
    assert first == [f"image {n:03d}" for n in np.argsort(values[1, 1])[:50]]
    browser.click("#more-images")
    assert browser.run(f"{rows}.length") == 250
    figure = "#waterfalls figure:not([hidden])"
    order = browser.run(f"document.querySelector('{figure}').dataset.order.split(' ').map(Number)")
    assert order == np.argsort(values[1, 0] - values[0, 0]).tolist()
    shown = set(browser.run("Object.keys(data.shots).map(Number)"))
    place = next(n for n in range(500, 1000) if order[n] not in shown)
    left, right, width = 60, 712, 720
    browser.click(f"{figure} svg", right=(left + (place + 0.5) * (right - left) / 1000) / width, down=0.2)
    assert browser.run(f"{rows}.map(row => row.cells[0].textContent)") == [f"image {order[place]:03d}"]
    assert browser.complaints == []


def waited(path: Path) -> Image.Image:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.05)
    return Image.open(path)


@pytest.fixture(scope="module")
def plan(pictures):
    systems = {name: pictures / f"s{n}" for n, name in enumerate(SYSTEMS)}
    settings = Settings(device="cpu")
    return make_plan(systems, pictures / "gt", (), rules=Pairing(), settings=settings, is_scored=False)


class TestVotes:
    VOTER = '=1+1 <b onclick=x>Ann</b>, "Zoë"'

    def test_from_the_page_to_the_analysis(self, browser, plan, pictures):
        options = Options(trials=6, repeats=2, catches=2, has_ties=True)
        (pictures / "vote.html").write_text(vote_html(plan, options), "utf-8")
        browser.emulate()
        browser.open(pictures / "vote.html")
        browser.run(f"part.voter.value = {self.VOTER!r}")
        browser.click("#begin")
        answers = ["ArrowLeft", "ArrowRight", "ArrowDown"]
        for n in range(10):
            browser.wait(f"place === {n} && panes.length === 3")
            if n == 4:
                browser.key("+")
                assert browser.run("part.zoom.value") == "2"
            if n == 5:
                browser.click("[data-answer=right]")
            else:
                browser.key(answers[n % 3])
        browser.wait("!part.end.hidden")
        browser.click("#save")
        until = time.monotonic() + 30
        while not (found := list(browser.folder.glob("votes-*.csv"))):
            assert time.monotonic() < until, "the votes never came"
            time.sleep(0.05)
        records = [(image.key, image.outputs, image.reference) for image in plan.images]
        votes = read_votes(found, SYSTEMS, records)
        assert [vote.answer for vote in votes] == [
            "left",
            "right",
            "tie",
            "left",
            "right",
            "right",
            "left",
            "right",
            "tie",
            "left",
        ]
        assert {vote.voter for vote in votes} == {self.VOTER} and sum(vote.catch is not None for vote in votes) == 2
        with found[0].open(encoding="utf-8", newline="") as file:
            assert next(csv.DictReader(file))["voter"].startswith("'=")
        assert browser.complaints == []

        results = compare({name: pictures / f"s{n}" for n, name in enumerate(SYSTEMS)}, pictures / "gt", ["psnr"])
        judged = replace(results, analysis=replace(results.analysis, votes=tuple(votes)))
        write_report(judged, pictures / "judged.html", embed="none")
        browser.open(pictures / "judged.html")
        assert browser.run(f"document.body.textContent.includes({self.VOTER!r})")
        assert browser.run("document.querySelectorAll('b[onclick]').length") == 0 and browser.complaints == []

    def test_goes_on_after_a_reload_and_back_by_a_question(self, browser, plan, pictures):
        (pictures / "again.html").write_text(vote_html(plan, Options(trials=5, repeats=0, catches=0, seed=3)), "utf-8")
        browser.open(pictures / "again.html")
        browser.click("#begin")
        for n in range(3):
            browser.wait(f"place === {n} && panes.length === 3")
            browser.key("ArrowLeft")
        browser.wait("place === 3 && panes.length === 3")
        browser.open(pictures / "again.html")
        browser.wait("place === 3 && panes.length === 3")
        browser.key("ArrowDown")  # no answer where ties are not asked for
        assert browser.run("place") == 3
        browser.run("back()")
        browser.wait("place === 2 && panes.length === 3")
        assert browser.run("answers.length") == 2 and browser.complaints == []

    def test_left_and_right_are_the_pictures_that_the_codes_say(self, browser, plan, pictures):
        (pictures / "sides.html").write_text(vote_html(plan, Options(trials=4, repeats=0, catches=0, seed=5)), "utf-8")
        browser.open(pictures / "sides.html")
        browser.click("#begin")
        browser.wait("place === 0 && panes.length === 3")
        from perceptloss.compare.votes.trials import draw_trials

        trial = draw_trials(6, 3, Options(trials=4, repeats=0, catches=0, seed=5))[0]
        key = plan.images[trial.image].key
        for canvas, folder in (("left", f"s{trial.left}"), ("reference", "gt"), ("right", f"s{trial.right}")):
            seen = np.array(browser.run(f"[...part.{canvas}.getContext('2d').getImageData(0, 0, 9, 1).data]")).reshape(
                9, 4
            )
            whole = np.asarray(Image.open(pictures / folder / f"{key}.png"))
            rows = np.lib.stride_tricks.sliding_window_view(whole, (9, 3), axis=(1, 2))
            assert (rows[:, :, 0] == seen[:, :3]).all(axis=(2, 3)).sum() == 1, canvas
