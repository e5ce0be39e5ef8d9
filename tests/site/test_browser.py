"""The site in headless Chromium: narrow and wide, light and dark. Skipped where there is no Chromium."""

import asyncio
import functools
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.timeout(1800),
]
LOOK = r"""
(() => {
  const found = [];
  const wide = document.scrollingElement.scrollWidth - window.innerWidth;
  if (wide > 1) found.push(`wider than the window by ${wide}`);
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) found.push(`missing: ${image.src}`);
    if (!image.alt.trim()) found.push(`without a description: ${image.src}`);
  }
  const numbers = (color) => {
    const parts = (color.match(/[\d.]+(e-?\d+)?/g) || [0, 0, 0, 0]).map(Number);
    return color.startsWith("color(") ? [...parts.slice(0, 3).map((x) => 255 * x), parts[3] ?? 1] : parts;
  };
  const over = (top, below) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((i) => alpha * top[i] + (1 - alpha) * below[i]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(numbers(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
      continue;
    if (element.closest("script, style, title, svg, .headerlink, .copybtn, .visually-hidden")) continue;
    const style = getComputedStyle(element), ground = behind(element);
    const [a, b] = [luminance(over(numbers(style.color), ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const key = `contrast ${ratio.toFixed(2)}: ${style.color} on ${ground.map(Math.round)}, ${element.className}`;
    if (ratio < (large ? 3 : 4.5) && !seen.has(key)) {
      seen.add(key);
      found.push(`${key}, "${node.textContent.trim().slice(0, 30)}"`);
    }
  }
  return found;
})()
"""


class Browser:
    """A page of Chromium, over its debugging protocol.

    :param connection: to the page
    """

    def __init__(self, connection):
        self.connection, self.n_calls, self.errors, self.loaded = connection, 0, [], asyncio.Event()
        self.answers = {}
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        """Take in answers and events."""
        async for text in self.connection:
            message = json.loads(text)
            method, given = message.get("method"), message.get("params", {})
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            elif method == "Page.loadEventFired":
                self.loaded.set()
            elif method == "Runtime.exceptionThrown":
                self.errors.append(given["exceptionDetails"].get("text", "exception"))
            elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
                self.errors.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            elif method == "Runtime.consoleAPICalled" and given["type"] == "error":
                self.errors.append(str(given["args"]))

    async def call(self, method, **given):
        """Send a command, and wait for its result."""
        self.n_calls += 1
        answer = self.answers[self.n_calls] = asyncio.get_running_loop().create_future()
        await self.connection.send(json.dumps({"id": self.n_calls, "method": method, "params": given}))
        return (await asyncio.wait_for(answer, 60)).get("result", {})

    async def evaluate(self, code):
        """The value of an expression."""
        result = await self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    async def open(self, address):
        """Load a page."""
        self.loaded.clear()
        await self.call("Page.navigate", url=address)
        await asyncio.wait_for(self.loaded.wait(), 60)

    async def dress(self, width, scheme):
        """Set the window's width and the preferred colours."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        # Transitions and pictures that are loaded late have to be over.
        await self.evaluate(
            "Promise.all([...document.images].map((i) => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
        )
        await self.evaluate("new Promise((done) => setTimeout(done, 250))")


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and says nothing about it."""

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the site is served."""
    pytest.importorskip("sphinx", reason="make docs installs it")
    pytest.importorskip("websockets")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-d", folder / "trees", ROOT / "docs"]
    subprocess.run([*command, folder / "html"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder / "html"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder / "html", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def debugger(tmp_path):
    """The address of a page of a fresh Chromium."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    line = next(line for line in process.stderr if "DevTools listening on" in line)
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    port = line.split("127.0.0.1:")[1].split("/")[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        yield next(each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page")
    process.terminate()
    process.wait()
    reader.join()
    process.stderr.close()


async def with_browser(address, use):
    """Let something be done with the page."""
    import websockets

    async with websockets.connect(address, max_size=None) as connection:
        browser = Browser(connection)
        for domain in ("Page", "Runtime", "Log"):
            await browser.call(f"{domain}.enable")
        result = await use(browser)
        browser.reader.cancel()
        return result


def test_every_page_is_fit_to_be_seen(site, debugger):
    folder, address = site
    pages = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if "_static" not in path.parts
    )

    async def look(browser):
        found = {}
        for page in pages:
            browser.errors.clear()
            await browser.open(f"{address}/{page}")
            for width in (400, 1600):
                for scheme in ("light", "dark"):
                    await browser.dress(width, scheme)
                    for problem in await browser.evaluate(LOOK):
                        found.setdefault(page, []).append(f"{width} {scheme}: {problem}")
            found.setdefault(page, []).extend(browser.errors)
        return {page: problems for page, problems in found.items() if problems}

    assert len(pages) > 60
    found = asyncio.run(with_browser(debugger, look))
    assert not found, json.dumps(found, indent=1, ensure_ascii=False)


def test_searching_finds_natural_gradients(site, debugger):
    _, address = site

    async def search(browser):
        await browser.open(f"{address}/search.html?q=natural+gradient")
        await browser.evaluate("new Promise((done) => setTimeout(done, 3000))")
        return await browser.evaluate("[...document.querySelectorAll('#search-results li a')].map((a) => a.href)")

    assert any("npg.html" in link for link in asyncio.run(with_browser(debugger, search)))
