"""The documentation site builds without warnings, needs no network, and has no broken links."""

import fcntl
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import sqn_rl
from sqn_rl.recipe.catalogue import Catalogue

DOCS = Path(__file__).parents[2] / "docs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The anchors, links and loaded files of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {value for name, value in given.items() if name == "id"}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif "src" in given or (tag == "link" and "href" in given):
            self.loaded.add(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The HTML folder of the site, built once by the first worker that needs it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    html = folder / "html"
    with (folder / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (html / "searchindex.js").exists():
            options = ["--fail-on-warning", "--keep-going", "--quiet"]
            build = [sys.executable, "-m", "sphinx", *options, DOCS, html]
            done = subprocess.run(build, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
    return html


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    paths = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {path: Page(path) for path in paths}


def test_every_link_picture_and_anchor_of_the_site_resolves(site, pages) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            target, anchor = urldefrag(unquote(link))
            if re.match(r"\w+:", target):
                continue
            there = (path.parent / target.partition("?")[0]).resolve() if target else path
            if not there.exists() or (anchor and there in pages and anchor not in pages[there].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 100
    assert broken == []


def test_the_site_loads_nothing_from_other_hosts(site, pages) -> None:
    assert [link for page in pages.values() for link in page.loaded if "//" in link] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*", styles) == []


def test_every_public_name_part_and_recipe_is_in_the_reference(pages) -> None:
    ids = set().union(*(page.ids for path, page in pages.items() if "reference" in path.parts))
    assert {f"sqn_rl.{name}" for name in sqn_rl.__all__} <= ids
    catalogue = Catalogue()
    labels = {f"{group}-{name}" for group in catalogue.groups() for name in catalogue.names(group)}
    assert {re.sub("[/_]", "-", label) for label in labels} <= ids


def test_the_page_of_every_recipe_shows_its_graph(site) -> None:
    for name in Catalogue().names("recipe"):
        file = name.replace("/", "-")
        assert f"{file}.svg" in (site / "reference" / "generated" / "recipes" / f"{file}.html").read_text()


def test_formulas_draw_bars_with_css_and_the_math_font_is_bundled(site) -> None:
    formula = (site / "algorithms" / "sqn.html").read_text()
    assert '<mrow class="bar"><mi>Q</mi></mrow>' in formula
    assert "ˉ" not in formula
    styles = (site / "_static" / "site.css").read_text()
    (font,) = re.findall(r'url\("(.*?)"\)', styles)
    assert (site / "_static" / font).stat().st_size > 100_000


GALLERY = """<!doctype html><title>loading</title><script>
const broken = [], pictures = {pictures}.map((address) => new Promise((done) => {{
  const image = new Image();
  image.onload = () => {{ if (!image.naturalWidth) broken.push(address); done(); }};
  image.onerror = () => {{ broken.push(address); done(); }};
  image.src = address;
}}));
Promise.all(pictures).then(() => document.title = `${{pictures.length}} pictures, broken: ${{broken}}`);
</script>"""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Silent(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/gallery":
                self.gallery()
            else:
                super().do_GET()

        def gallery(self) -> None:
            found = [path for kind in ("png", "svg") for path in site.rglob(f"*.{kind}")]
            shown = [f"/{path.relative_to(site)}" for path in found if "_static" not in path.parts]
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(GALLERY.format(pictures=shown).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("index.html", "walkthroughs/first_run.html"),
        ("algorithms/sqn.html", "<math"),
        ("gallery", r"<title>[2-9]\d pictures, broken: </title>"),
        ("search.html?q=dueling", r'<a href="algorithms/dueling.html" data-score'),
    ],
)
def test_a_browser_shows_the_page_without_console_messages(address, tmp_path, page, shown) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, f"{address}/{page}"], capture_output=True, text=True, timeout=120
    )
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in lines if '"[PST]: ' not in line] == []  # messages of the theme
    assert re.search(shown, done.stdout)


def test_the_reference_shows_the_arguments_of_every_class(site) -> None:
    """And not the ``**kwargs`` of a metaclass of TorchRL."""
    taken = re.compile(r'<dt class="sig[^>]* id="sqn_rl\.(\w+)">(.*?)</dt>', re.DOTALL)
    texts = {}
    for path in site.glob("reference/generated/api/*.html"):
        texts |= {name: re.sub("<[^>]+>", "", text) for name, text in taken.findall(path.read_text())}
    assert "backup" in texts["SQNLoss"]
    assert [name for name, text in texts.items() if "**kwargs" in text] == []
