"""The report in a real browser: it loads, sorts, filters, moves, and fits a phone."""

import browser
import fake_results
import pytest
from PIL import Image

from bench.report import report
from bench.results import load

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.find() is None, reason=f"no browser here: none of {', '.join(browser.NAMES)}"),
]
WRITTEN = "<img src=x onerror=alert(1)>"
ARMS = {
    **{
        name: fake_results.ARMS[name]
        for name in ("baseline", "label_smoothing", "pooling.kind=max", "placebo")
    },
    WRITTEN: fake_results.ARMS["noise_length"],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with frames of training, and a name that is markup."""
    home = tmp_path_factory.mktemp("browser")
    results = fake_results.write(home / "results" / "digits", arms=ARMS, seeds=8)
    for run in load(results).runs.query("seed == 0")["run"]:
        frames = results / "samples" / run
        frames.mkdir()
        for i, images in enumerate((10000, 20000)):
            Image.new("L", (128, 64), 90 * i).save(frames / f"{images}.png")
    return report(results, home / "reports") / "index.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    started = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


ROWS = "[...document.querySelectorAll('table.filterable tbody tr:not([hidden])')]"
NAMES = f"{ROWS}.map(row => row.cells[0].innerText.split(' ')[0])"
HEAD = "document.querySelectorAll('table.filterable thead button')"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_without_a_complaint_and_every_image_appears(chromium, page, width, scheme):
    chromium.open(page, width, prefers_color_scheme=scheme)
    sizes = chromium.ask("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(sizes) == 1 + 2 * len(ARMS)
    assert min(sizes) > 0
    assert (
        min(chromium.ask("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width)"))
        > 200
    )
    assert chromium.errors == []


def test_a_phone_does_not_scroll_sideways(chromium, page):
    chromium.open(page, 390)
    assert chromium.ask("document.documentElement.scrollWidth") <= 390
    chromium.ask("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    assert chromium.ask("document.documentElement.scrollWidth") <= 390


def test_light_and_dark_differ_and_text_stands_out_in_both(chromium, page):
    colours = {}
    for scheme in ("light", "dark"):
        chromium.open(page, 1280, prefers_color_scheme=scheme)
        colours[scheme] = [
            sum(map(int, chromium.ask(f"getComputedStyle(document.body).{what}.match(/\\d+/g)")))
            for what in ("color", "backgroundColor")
        ]
    assert colours["light"][1] - colours["light"][0] > 400
    assert colours["dark"][0] - colours["dark"][1] > 400


def test_the_table_sorts_by_numbers_both_ways_and_says_so(chromium, page):
    chromium.open(page, 1280)
    chromium.ask(f"{HEAD}[2].click()")
    rising = chromium.ask(
        "[...document.querySelectorAll('table.filterable tbody td:nth-child(3)')].map(e => +e.dataset.key)"
    )
    assert rising == sorted(rising)
    assert chromium.ask(f"{HEAD}[2].parentNode.getAttribute('aria-sort')") == "ascending"
    first = chromium.ask(NAMES)
    chromium.ask(f"{HEAD}[2].click()")
    assert chromium.ask(NAMES) == first[::-1]
    assert chromium.ask(f"{HEAD}[2].parentNode.getAttribute('aria-sort')") == "descending"
    chromium.ask(f"{HEAD}[0].click()")
    assert chromium.ask("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_table_sorts_from_the_keyboard(chromium, page):
    chromium.open(page, 1280)
    chromium.ask(f"{HEAD}[0].focus()")
    chromium.press("Enter")
    assert chromium.ask(f"{HEAD}[0].parentNode.getAttribute('aria-sort')") == "ascending"


def test_rows_are_filtered_by_words_and_by_verdict(chromium, page):
    chromium.open(page, 1280)
    whole = chromium.ask(NAMES)
    chromium.ask("box = document.querySelector('.filter input')")

    def write(text):
        chromium.ask(f"box.value = '{text}'; box.dispatchEvent(new Event('input'))")

    write("pooling max")
    assert chromium.ask(NAMES) == ["pooling.kind=max"]
    assert chromium.ask("document.querySelector('output').textContent") == f"1 of {len(whole)} rows"
    write("")
    assert chromium.ask(NAMES) == whole
    chromium.ask("document.querySelector('.filter button.helps').click()")
    assert chromium.ask(NAMES) == ["label_smoothing"]
    assert (
        chromium.ask("document.querySelector('.filter button.helps').getAttribute('aria-pressed')") == "true"
    )
    chromium.ask("document.querySelector('.filter button.helps').click()")
    assert chromium.ask(NAMES) == whole


def test_who_asks_for_less_motion_sees_a_still_picture(chromium, page):
    shown = "document.querySelector('picture.moving img').currentSrc.length"
    chromium.open(page, 1280, prefers_reduced_motion="reduce")
    still = chromium.ask(shown)
    assert chromium.ask("document.querySelector('button.stop')") is None
    chromium.open(page, 1280, prefers_reduced_motion="no-preference")
    assert chromium.ask(shown) > still
    chromium.ask("document.querySelector('button.stop').click()")
    assert chromium.ask("document.querySelector('picture.moving img').src.length") == still


def test_a_link_to_a_card_opens_it(chromium, page):
    chromium.open(page, 1280)
    chromium.ask("location.hash = '#card-pooling'")
    chromium.ask("new Promise(done => setTimeout(done, 100))")
    assert chromium.ask("document.getElementById('card-pooling').closest('details').open")


def test_a_name_that_is_markup_is_a_name(chromium, page):
    chromium.open(page, 1280)
    assert chromium.ask("[...document.images].every(i => i.src.startsWith('data:'))")
    assert WRITTEN in chromium.ask("document.body.innerText")
