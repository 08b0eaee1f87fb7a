"""The page in a real browser: sorting, filtering, keyboard, details, themes, phone, accessibility, load time."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_examples import HOSTILE, WEIGHTS, boards_of, empty_row, png, rows_of, runs_of

from leaderboards.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: needs chromium, chromium-browser or google-chrome"
)

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DESKTOP, TABLET, PHONE = ({"width": w, "height": h} for w, h in ((1440, 900), (1000, 700), (360, 740)))
SETTLE = 450  # milliseconds: longer than the page waits before it shows or hides details

OOD = "#table-ood + .scroll table"
LABELS = f"{OOD} tbody:not([hidden]) tr:not([hidden]) .label"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        made = api.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three systems with names of all kinds and two plots."""
    folder = tmp_path_factory.mktemp("site")
    for name, width in (("ood_roc", 900), ("generation_samples", 300)):
        (folder / f"{name}.png").write_bytes(png(width, 500))
    runs = runs_of([*rows_of(["vaebm", "nvae", "mine", *HOSTILE]), empty_row()], folder)
    return write_page(boards_of(runs), folder, runs=runs)


@pytest.fixture(scope="module")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with one of everything."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "ood_roc.png").write_bytes(png(900, 500))
    runs = runs_of([*rows_of(["vaebm", HOSTILE[0]]), empty_row()], folder)
    return write_page(boards_of(runs), folder, runs=runs)


class Visit:
    """A page, and what it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, viewport: dict[str, int] = DESKTOP, **options: Any) -> None:
        self.context = browser.new_context(viewport=viewport, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def texts(self, selector: str) -> list[str]:
        return self.page.eval_on_selector_all(selector, "nodes => nodes.map(node => node.textContent)")

    def values(self, column: int) -> list[float | None]:
        """The column of the OOD table as shown, in full precision."""
        found = self.page.eval_on_selector_all(
            f"{OOD} tbody:not([hidden]) tr[data-origin]:not([hidden])",
            "(rows, i) => rows.map(row => row.cells[i].dataset.v)",
            column,
        )
        return [float(value) if value else None for value in found]

    def status(self) -> str:
        return self.page.inner_text("#status")

    def focused(self) -> str:
        """Text of the cell that has the focus."""
        return self.page.evaluate("document.activeElement.closest('td, th')?.innerText ?? document.activeElement.id")

    def place(self) -> list[int]:
        """Row and column of the focus in its table, as shown."""
        return self.page.evaluate(
            """() => {
              const cell = document.activeElement.closest('td, th');
              const rows = [...cell.closest('table').rows].filter(row => !row.hidden && !row.parentElement.hidden);
              return [rows.indexOf(cell.parentElement), cell.cellIndex];
            }"""
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def until(self, check: Callable[[], bool]) -> None:
        """Wait for what animations and observers bring about; the page's policy forbids playwright's own way."""
        for _ in range(50):
            if check():
                return
            self.page.wait_for_timeout(100)
        assert check()

    def close(self) -> None:
        """Leave, and fail if anything was complained of or asked for."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")][1:] == []


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Visit]:
    made = Visit(browser, site)
    yield made
    made.close()


# --------------------------------------------------------------------------------------------------------------------
# Sorting and filtering


def test_a_column_sorts_upwards_then_downwards_then_as_the_paper_does(visit: Visit) -> None:
    before, labels = visit.values(2), visit.texts(LABELS)
    numbers = sorted(value for value in before if value is not None)
    nothing = [None] * before.count(None)
    assert nothing  # a published row without this number
    head, button = (visit.page.locator(f"{OOD} thead {tag}").nth(2) for tag in ("th", "button"))
    button.click()
    assert visit.values(2) == numbers + nothing
    assert head.get_attribute("aria-sort") == "ascending"
    assert visit.status() == "Sorted by Interp., ascending"
    assert not visit.page.locator(f"{OOD} tr.block").first.is_visible()
    assert visit.page.locator(f"{OOD} tr:has(.label:text-is('JEM')) small.of").inner_text() == "Supervised training"
    button.click()
    assert visit.values(2) == numbers[::-1] + nothing
    assert head.get_attribute("aria-sort") == "descending"
    button.click()
    assert (visit.values(2), visit.texts(LABELS)) == (before, labels)
    assert head.get_attribute("aria-sort") is None
    assert visit.page.locator(f"{OOD} tr.block").first.is_visible()
    assert visit.page.locator("small.of").count() == 0


def test_sorting_uses_full_precision_and_names_sort_as_people_do(browser: Any, tmp_path: Path) -> None:
    runs = runs_of(rows_of(["s10", "s9", "S2", *(f"t{i}" for i in range(30))]), tmp_path)
    visit = Visit(browser, write_page(boards_of(runs), tmp_path))
    visit.page.locator(f"{OOD} thead button").nth(1).click()
    found = [value for value in visit.values(1) if value is not None]
    assert found == sorted(found)
    assert len({round(value, 2) for value in found}) < len(found)  # what is printed alike is still in order
    visit.page.locator(f"{OOD} thead button").nth(0).click()
    own = [label for label in visit.texts(LABELS) if label.lower().startswith("s")]
    assert own == ["S2 (mini)", "s9 (mini)", "s10 (mini)"]
    assert visit.page.locator(f"{OOD} th[aria-sort]").count() == 1
    visit.close()


def test_rows_are_found_by_name_origin_and_size_and_counted(visit: Visit) -> None:
    every = visit.page.locator("tr[data-origin]").count()
    shown = lambda: visit.page.locator("tr[data-origin]:visible").count()
    assert (shown(), visit.status()) == (every, f"{every} rows")
    visit.page.fill("#find", "vaebm MEAS")
    assert visit.texts(LABELS) == ["VAEBM (measured, mini)"]
    assert visit.status() == f"{shown()} of {every} rows"
    assert visit.page.locator(f"{OOD} tr.block:visible").count() == 1  # titles go with the last of their rows
    visit.page.fill("#find", "nothing is called so")
    assert shown() == 0
    assert visit.status() == f"0 of {every} rows"
    assert visit.page.locator("table:visible").count() == 0
    assert visit.page.locator(".none:visible").count() == visit.page.locator("table").count()
    visit.page.fill("#find", "")
    visit.page.uncheck("#published")
    assert shown() == visit.page.locator("tr[data-origin=measured]").count()
    visit.page.check("#published")
    visit.page.uncheck("#measured")
    assert shown() == visit.page.locator("tr[data-origin=published]").count()
    visit.page.check("#measured")
    visit.page.select_option("#size", label="mini")
    assert shown() == visit.page.locator("tr[data-size=mini]").count() < every
    visit.page.select_option("#size", label="any")
    assert (shown(), visit.status()) == (every, f"{every} rows")
    assert visit.page.get_attribute("#status", "role") == "status"


def test_filter_and_order_go_together(visit: Visit) -> None:
    visit.page.uncheck("#measured")
    visit.page.locator(f"{OOD} thead button").nth(1).click()
    found = visit.values(1)
    assert found == sorted(found)  # type: ignore[type-var]
    visit.page.check("#measured")
    assert len(visit.values(1)) > len(found)
    assert visit.values(1) == sorted(visit.values(1))  # type: ignore[type-var]


# --------------------------------------------------------------------------------------------------------------------
# Keyboard and details


def test_a_table_is_one_stop_for_tab_and_arrow_keys_move_in_it(visit: Visit) -> None:
    stops = "nodes => nodes.map(node => [...node.querySelectorAll('[tabindex=\"0\"], a:not([tabindex]), button:not([tabindex])')].length)"
    assert set(visit.page.eval_on_selector_all("table", stops)) == {1}
    visit.page.focus("#size")
    visit.press("Tab")
    assert visit.focused() == "System"
    visit.press("ArrowRight")
    assert visit.focused().startswith("SVHN")
    visit.press("ArrowDown")
    assert visit.place() == [1, 0]  # the title of a block, one cell wide
    visit.press("ArrowDown")
    assert visit.place() == [2, 1]  # ... keeps the column
    assert visit.page.evaluate("document.activeElement.dataset.v") == "0.42"
    visit.press("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown")
    assert visit.place() == [3, 2]
    visit.press("Home")
    assert visit.place() == [3, 0]
    visit.press("End")
    assert visit.place() == [3, 5]
    visit.press("Control+End")
    last = visit.place()
    visit.press("ArrowDown", "ArrowRight")
    assert visit.place() == last  # nothing is beyond the last cell
    visit.press("PageUp")
    assert visit.place()[0] == last[0] - 10
    visit.press("Control+Home")
    assert visit.place() == [0, 0]
    visit.press("Tab")
    assert visit.page.evaluate("document.activeElement.closest('section')?.querySelector('h3').id") != "table-ood"
    visit.press("Shift+Tab")
    assert visit.place() == [0, 0]
    visit.press("ArrowDown", "ArrowDown")
    assert visit.page.evaluate("document.activeElement.className") == "cite"  # a row's link is what its cell focuses
    visit.press("Enter")
    # The browser follows a link in its own time.
    followed = "location.hash === document.querySelector('tbody .cite').getAttribute('href')"
    visit.page.wait_for_function(followed, timeout=5000)


def test_heads_sort_by_keyboard(visit: Visit) -> None:
    visit.page.focus(f"{OOD} thead [tabindex='0']")
    visit.press("ArrowRight", "Enter")
    assert visit.page.locator(f"{OOD} thead th").nth(1).get_attribute("aria-sort") == "ascending"
    assert visit.place() == [0, 1]
    visit.press(" ")
    assert visit.page.locator(f"{OOD} thead th").nth(1).get_attribute("aria-sort") == "descending"


def test_focus_that_a_filter_hides_starts_over(visit: Visit) -> None:
    visit.page.focus(f"{OOD} thead [tabindex='0']")
    visit.press("ArrowDown", "ArrowDown", "ArrowDown")
    visit.page.uncheck("#measured")
    visit.page.focus("#size")
    visit.press("Tab")
    assert visit.place() == [0, 0]


def measured(visit: Visit) -> Any:
    return visit.page.locator(f"{OOD} tr.nested td").first


def facts(visit: Visit) -> dict[str, str]:
    terms, told = (visit.page.locator(f"#panel-body {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(terms, told, strict=True))


def test_focus_shows_and_describes_enter_keeps_escape_closes(visit: Visit) -> None:
    visit.page.focus(f"{OOD} thead [tabindex='0']")
    visit.press("ArrowDown", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight")
    assert "(measured, mini)" in visit.page.inner_text("#panel-title")
    cell = visit.page.locator("td:focus")
    assert facts(visit)["value"] == cell.get_attribute("data-v")
    assert facts(visit)["n"] == "4,000"
    assert facts(visit)["estimator"] == "ELBO"
    assert facts(visit)["fingerprint weights"] == WEIGHTS[:12]
    assert visit.page.locator("#panel-body .short").first.is_visible()
    described = visit.page.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    assert described.startswith(f"value {cell.get_attribute('data-v')}; 95 % interval ")
    visit.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "panel"
    assert facts(visit)["fingerprint weights"] == WEIGHTS  # at full length
    title = visit.page.inner_text("#panel-title")
    visit.page.locator(f"{OOD} td").nth(3).hover()
    visit.page.wait_for_timeout(SETTLE)
    assert visit.page.inner_text("#panel-title") == title  # it stays
    place = visit.page.evaluate("document.querySelector('td.shown').dataset.v")
    visit.press("Escape")
    assert visit.page.evaluate("document.activeElement.dataset.v") == place  # the focus is back
    assert facts(visit) == {}
    assert visit.page.locator("[aria-describedby]").count() == 0
    visit.press("ArrowRight")
    assert facts(visit)
    visit.press("Escape")
    assert facts(visit) == {}


def test_hover_shows_details_and_a_click_keeps_them(visit: Visit) -> None:
    measured(visit).hover()
    playwright.expect(measured(visit)).to_have_class("shown")
    assert facts(visit)["value"] == measured(visit).get_attribute("data-v")
    published = visit.page.locator(f"{OOD} td").first
    published.hover()
    playwright.expect(visit.page.locator("#panel-title")).to_have_text("NVAE · SVHN")
    told = facts(visit)
    assert told["origin"] == "published"
    assert told["citation"] == "vahdat2020NVAE"
    assert {"table", "source", "confidence"} <= told.keys()
    published.click()
    assert visit.page.is_visible("#close")
    visit.page.click("#close")
    assert not visit.page.is_visible("#close")
    assert facts(visit) == {}


def test_an_empty_cell_says_why(visit: Visit) -> None:
    visit.page.locator(f"{OOD} td[data-v='']").first.hover()
    visit.page.wait_for_selector("td.shown")
    assert facts(visit)["empty because"] == "The paper reports no number here."


def test_in_small_windows_details_go_with_the_pointer_and_never_cover_their_cell(browser: Any, site: Path) -> None:
    visit = Visit(browser, site, TABLET)
    panel = visit.page.locator("#panel")
    assert not panel.is_visible()
    cells = visit.page.locator(f"{OOD} tr.nested td")
    for i in (0, cells.count() - 1):
        cells.nth(i).hover()
        playwright.expect(cells.nth(i)).to_have_class("shown")
        assert panel.is_visible()
        mine, theirs = cells.nth(i).bounding_box(), panel.bounding_box()
        assert mine["y"] + mine["height"] <= theirs["y"] or theirs["y"] + theirs["height"] <= mine["y"]
    panel.hover()
    visit.page.wait_for_timeout(SETTLE)
    assert panel.is_visible()  # one can go into it
    visit.page.mouse.move(2, 2)
    panel.wait_for(state="hidden")
    visit.close()


def test_details_of_a_cell_that_a_filter_hides_go_with_it(visit: Visit) -> None:
    measured(visit).click()
    assert visit.page.is_visible("#close")
    visit.page.uncheck("#measured")
    assert not visit.page.is_visible("#close")
    assert facts(visit) == {}
    assert visit.page.evaluate("document.activeElement.id") == "measured"


def test_the_pointer_gives_way_to_the_focus(browser: Any, site: Path) -> None:
    visit = Visit(browser, site, TABLET)
    visit.page.focus(f"{OOD} thead [tabindex='0']")
    visit.press("ArrowRight", "ArrowDown", "ArrowDown")
    title = visit.page.inner_text("#panel-title")
    assert title == "NVAE · SVHN"
    measured(visit).hover()
    playwright.expect(visit.page.locator("#panel-title")).not_to_have_text(title)
    visit.page.mouse.move(2, 2)
    playwright.expect(visit.page.locator("#panel-title")).to_have_text(title)
    visit.close()


def test_focus_scrolls_cells_out_from_under_the_first_column(browser: Any, site: Path) -> None:
    visit = Visit(browser, site, PHONE)
    visit.page.focus(f"{OOD} thead [tabindex='0']")
    visit.press("End", "ArrowDown", "ArrowDown")
    region = visit.page.locator(".scroll").first
    assert region.evaluate("node => node.scrollLeft") > 0
    for _ in range(4):
        visit.press("ArrowLeft")
        right = visit.page.evaluate("document.activeElement.parentElement.cells[0].getBoundingClientRect().right")
        assert visit.page.evaluate("document.activeElement.getBoundingClientRect().left") >= right - 1
    visit.close()


# --------------------------------------------------------------------------------------------------------------------
# Figures, themes, sizes


def test_a_figure_is_enlarged_by_mouse_and_keyboard(visit: Visit) -> None:
    visit.page.locator("figure button").first.click()
    dialog = visit.page.locator("#enlarged")
    assert dialog.is_visible()
    visit.until(lambda: dialog.locator("img").evaluate("image => image.naturalWidth") == 900)
    assert len(dialog.locator("img").get_attribute("alt")) > 20
    visit.press("Escape")
    assert not dialog.is_visible()
    visit.page.locator("figure button").nth(1).press("Enter")
    assert dialog.is_visible()
    dialog.locator("button").click()
    assert not dialog.is_visible()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_theme_follows_the_system_until_it_is_chosen_and_is_remembered(browser: Any, site: Path, system: str) -> None:
    visit = Visit(browser, site, color_scheme=system)
    paper = lambda: (
        sum(map(int, visit.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) > 384
    )
    assert paper() == (system == "light")
    assert visit.page.get_attribute("#theme", "aria-pressed") == str(system == "dark").lower()
    visit.page.click("#theme")
    assert paper() == (system == "dark")
    visit.page.reload()
    assert paper() == (system == "dark")
    assert visit.page.get_attribute("#theme", "aria-pressed") == str(system == "light").lower()
    card = visit.page.locator("figure .card").first
    assert card.evaluate("node => getComputedStyle(node).backgroundColor") == "rgb(255, 255, 255)"
    visit.context.close()


def test_without_storage_the_theme_still_changes(browser: Any, site: Path) -> None:
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })")
    page.goto(site.as_uri())
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    context.close()
    assert errors == []


@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_only_tables_scroll_sideways(browser: Any, site: Path, viewport: dict[str, int]) -> None:
    visit = Visit(browser, site, viewport)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    region = visit.page.locator(".scroll").first
    wide = region.evaluate("node => node.scrollWidth > node.clientWidth")
    assert wide == (viewport is PHONE)
    stop = playwright.expect(region)
    stop.to_have_attribute("tabindex", "0") if wide else stop.not_to_have_attribute("tabindex", "0")
    if wide:
        region.focus()
        visit.press("ArrowRight")
        visit.until(lambda: region.evaluate("node => node.scrollLeft") > 0)
        label = visit.page.locator(f"{OOD} tbody .label").first
        assert label.bounding_box()["x"] >= 0  # the first column stays
    visit.close()


def test_without_javascript_tables_and_plots_are_there(browser: Any, site: Path) -> None:
    visit = Visit(browser, site, java_script_enabled=False)
    assert visit.page.is_visible(OOD)
    assert not visit.page.is_visible("#filter")
    assert not visit.page.is_visible("#theme")
    assert not visit.page.is_visible("#panel")
    assert visit.page.locator("noscript p").is_visible()
    assert visit.page.locator("figure img").first.is_visible()
    visit.close()


def test_print_shows_tables_and_no_controls(visit: Visit) -> None:
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert not visit.page.is_visible(".bar")
    assert not visit.page.is_visible("#panel")
    assert visit.page.is_visible(OOD)
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(254, 254, 252)"


def test_nothing_moves_by_itself(visit: Visit) -> None:
    still = "s => s.scrollBehavior === 'auto' && s.transitionDuration === '0s' && s.animationName === 'none'"
    moving = f"nodes => nodes.map(node => getComputedStyle(node)).filter(s => !({still})(s)).length"
    assert visit.page.eval_on_selector_all("html, body, body *:not(td, tr)", moving) == 0


def test_links_and_focus_bring_their_target_into_view(visit: Visit) -> None:
    below = visit.page.locator(".bar").evaluate("node => node.getBoundingClientRect().height")
    inside = lambda box: below <= box["y"] < DESKTOP["height"] - box["height"]
    for link in visit.page.locator("nav a").all():
        link.click()
        target = visit.page.locator(link.get_attribute("href"))
        visit.until(lambda target=target: inside(target.bounding_box()))  # type: ignore[misc]
    for table in ("#table-modes", "#table-ood-coefficient", "#table-generation-net"):
        visit.page.focus(f"{table} + .scroll thead [tabindex='0']")
        visit.press("End", "Control+End")
        visit.until(lambda: inside(visit.page.locator("td:focus").bounding_box()))
        visit.press("PageUp", "PageUp")
        visit.until(lambda: inside(visit.page.locator(":focus").bounding_box()))


def test_a_link_to_a_table_and_a_reload_keep_their_place(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    top = lambda: page.locator("#table-modes").bounding_box()["y"]
    page.goto(f"{site.as_uri()}#table-modes")
    page.wait_for_timeout(SETTLE)
    assert 50 < top() < 300
    page.goto(f"{site.as_uri()}?")  # without the place
    page.wait_for_timeout(SETTLE)
    assert top() > DESKTOP["height"]
    page.locator("#table-modes").evaluate("node => node.scrollIntoView()")
    page.wait_for_timeout(SETTLE)
    before = top()
    page.reload()
    page.wait_for_timeout(SETTLE)
    assert top() == pytest.approx(before, abs=2)
    page.close()


def test_no_name_runs(visit: Visit) -> None:
    labels = visit.texts(".label")
    for name in HOSTILE[:-1]:
        assert any(name in label for label in labels)
    assert visit.page.locator("img[src=x]").count() == 0
    visit.page.fill("#find", "</script>")
    assert 0 < visit.page.locator("tr[data-origin]:visible").count() < visit.page.locator("tr[data-origin]").count()


def test_policy_stops_scripts_that_are_not_the_pages_own(browser: Any, site: Path, tmp_path: Path) -> None:
    injected = site.read_text(encoding="utf-8").replace("<main", "<script>document.title = 'taken'</script><main")
    (tmp_path / "index.html").write_text(injected, encoding="utf-8")
    visit = Visit(browser, tmp_path / "index.html")
    assert visit.page.title() == "VAEBM leaderboards"
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)
    visit.context.close()


# --------------------------------------------------------------------------------------------------------------------
# For everyone, and fast


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(browser: Any, small_site: Path, theme: str, viewport: dict[str, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    visit = Visit(browser, small_site, viewport, color_scheme=theme)
    visit.page.evaluate("document.querySelector('details.runs').open = true")
    if viewport is DESKTOP:
        measured(visit).click()
        visit.page.locator("thead button").nth(12).click()
    found = axe.Axe().run(visit.page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    visit.close()


def test_fifty_systems_in_every_suite_load_within_a_second(browser: Any, tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"ood_{i}.png").write_bytes(png(300 + i, 300, noise=True))
    runs = runs_of(rows_of([f"system {i:02d}" for i in range(50)]), tmp_path)
    path = write_page(boards_of(runs), tmp_path, runs=runs)
    times = []
    for _ in range(5):
        visit = Visit(browser, path)
        visit.page.wait_for_load_state("load")
        times.append(visit.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        assert visit.page.locator("td").count() > 2500
        visit.close()
        if 0 < times[-1] < 1000:
            break  # the machine may be busy, so the best time counts
    assert 0 < min(times) < 1000, times
    assert path.stat().st_size < 5_000_000
