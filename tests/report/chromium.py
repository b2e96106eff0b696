"""A headless Chromium driven over its DevTools pipe, with the standard library alone."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60
# the browser wants the pipe as files 3 and 4
LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(file), fcntl.F_DUPFD, 10) for file in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A blank page; `events` keeps all that the browser told."""

    def __init__(self, program: str, folder: Path):
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={folder}", "--force-color-profile=srgb", "about:blank"]
        their_read, self.write = os.pipe()
        self.read, their_write = os.pipe()
        numbers = [str(their_read), str(their_write)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *numbers, program, *options],
            pass_fds=(their_read, their_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_read)
        os.close(their_write)
        self.rest, self.last, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.session = ""
        self.call("Browser.close")
        self.process.wait(SECONDS)
        os.close(self.read)
        os.close(self.write)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.last:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            found = os.read(self.read, 1 << 20)
            assert found, "the browser has ended"
            self.rest += found
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path) -> None:
        """Loads a file and waits until the page and its first image are drawn."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete'")

    def eval(self, code: str) -> Any:
        """The value of JavaScript; a promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (code, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, code: str) -> None:
        """Until JavaScript is true."""
        end = time.monotonic() + SECONDS
        while not self.eval(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.02)

    def key(self, name: str, text: str = "") -> None:
        """Presses and lets go of a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            codes = {"ArrowRight": 39, "ArrowLeft": 37}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                windowsVirtualKeyCode=codes.get(name, 0),
                **more,
            )

    def look(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Sets the window's size, colors and kind."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=phone, **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        made = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(made["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and what the policy refused.

        Not the advice about reading pixels back, which the page never does and the tests do.
        """
        self.eval("1")
        found = []
        for event in self.events:
            about = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(about["exceptionDetails"])[:2000])
            if event.get("method") == "Runtime.consoleAPICalled":
                found.append(f"{about['type']}: {json.dumps(about['args'])}")
            if event.get("method") == "Log.entryAdded":
                found.append(about["entry"]["text"])
        return [text for text in found if "willReadFrequently" not in text]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for what lies in the page itself."""
        sent = (e for e in self.events if e.get("method") == "Network.requestWillBeSent")
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls if not url.startswith("data:")]

    def names(self, roles: set[str]) -> list[tuple[str, str]]:
        """Role and accessible name of the elements that have one of the roles."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        pairs = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]
        return [pair for pair in pairs if pair[0] in roles]
