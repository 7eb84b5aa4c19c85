"""Takes the pictures that stand in the documentation, of pages as they really are: ``python tests/tools/take_pictures.py``.

Runs the demo's fine-tunes through the whole product on loopback and shows the pages in Chromium. ``--look FOLDER`` takes every page
besides, in both themes, wide and on a telephone, for somebody to look at. Not part of the test suite: it takes minutes.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from gate.client import GateClient
from gate.embedded import EmbeddedStack
from tasks.demo import MODEL, Demo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shown_pages import SHOWN, shown_pages

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
MOST_BYTES = 150_000
PATIENCE_S = 900.0
WIDE, NARROW = 1180, 390
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: where it is taken, how the room is lit, how wide the window and how much of the page is seen.

    ``height`` of 0 is the whole page; ``only`` is the one element that is wanted; ``opened`` opens what is folded; ``edited`` is
    what is put for what in a draft, ``pressed`` a button that is pressed then.
    """

    name: str
    address: str
    theme: str = "light"
    width: int = WIDE
    height: int = 0
    only: str = ""
    opened: str = ""
    edited: tuple[str, str] = ("", "")
    pressed: str = ""
    scale: float = 1.0
    cookies: Sequence[Any] = ()


DECIDED = {
    "review": Picture("review", "", height=840),
    "broken glass": Picture("broken-glass", "", height=840),
    "waivers": Picture("waivers", "", height=520),
    "waiver asked for": Picture("waiver-asked-for", "", "dark", height=640),
    "policy": Picture("policy", "", height=900),
    "replay": Picture("replay", "", edited=("at_most: 0.25", "at_most: 0.01"), pressed="Replay", height=900),
}
"""What the documentation shows of the pages on which people decide."""


def main() -> None:
    """Runs the product, then takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look", type=Path, help="Folder for every page in both themes and widths.")
    parser.add_argument("--out", type=Path, default=IMAGES, help="Folder of the documentation's pictures.")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        stack = EmbeddedStack(Path(folder), settings={"GATE_RECONCILE_EVERY_S": "5", "GATE_THREADS": "1"})
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            stack.start()
            for theme, width in ((t, w) for t in ("light", "dark") for w in (WIDE, NARROW) if given.look):
                take(browser, Picture(f"empty-{theme}-{width}", stack.api_url, theme, width), given.look)
            walk(Demo(stack, "staged", Console()), browser, given.out, given.look)
        finally:
            stack.stop()
        by_people(browser, Path(folder), given.out, given.look)
        browser.close()


def by_people(browser: Browser, folder: Path, out: Path, look: Path | None) -> None:
    """Pictures of the pages on which people decide, over a ledger in which something waits for each decision."""
    with shown_pages(folder, foreign=str) as pages, browser.new_context() as signed_in:
        page = signed_in.new_page()
        page.goto(f"{pages.url}/sign-in")
        page.get_by_label("Token").fill(pages.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{pages.url}/")
        cookies = signed_in.cookies()
        for name, picture in DECIDED.items():
            take(browser, replace(picture, address=pages.address(name), cookies=cookies), out)
        for name in SHOWN if look else ():
            for theme, width in ((t, w) for t in ("light", "dark") for w in (WIDE, NARROW)):
                file = f"{name.replace(' ', '-')}-{theme}-{width}"
                known = cookies if SHOWN[name].signed_in else ()
                picture = Picture(file, pages.address(name), theme, width, pressed=SHOWN[name].pressed, cookies=known)
                take(browser, picture, look)


def walk(demo: Demo, browser: Browser, out: Path, look: Path | None) -> None:
    """Registers the demo's candidates; pictures one while it is measured, and all once they are judged."""
    with ThreadPoolExecutor(1) as pool:
        registering = pool.submit(demo.register_all)
        try:
            during(demo, browser, out, look)
            until(lambda: registering.done() and judged(demo))
            registering.result()
        finally:
            demo.stopped.set()
    for picture in documented(demo):
        take(browser, picture, out)
    for picture in everything(demo) if look else ():
        take(browser, picture, look)


def during(demo: Demo, browser: Browser, out: Path, look: Path | None) -> None:
    """Pictures of an evaluation whose comparison is under way, and of the queue meanwhile."""
    row: Row = {}

    def at_work() -> bool:
        nonlocal row
        found = [each for each in demo.evaluations().values() if each["outcome"] is None and len(each["narrowing"]) > 2]
        row = found[0] if found else {}
        return bool(row)

    until(at_work)
    live, queue = f"{demo.stack.api_url}/evaluations/{row['key']}", f"{demo.stack.api_url}/queue"
    take(browser, Picture("live", live, only=".hero"), out)
    for theme, width in ((t, w) for t in ("light", "dark") for w in (WIDE, NARROW) if look):
        take(browser, Picture(f"live-{theme}-{width}", live, theme, width), look)
        take(browser, Picture(f"queue-busy-{theme}-{width}", queue, theme, width), look)


def documented(demo: Demo) -> Iterator[Picture]:
    """What the documentation shows."""
    gate, keys = demo.stack.api_url, keys_of(demo)
    report = f"{gate}/evaluations/{keys['adversarial']}/report"
    yield Picture("fleet", gate, height=720)
    yield Picture("fleet-dark", gate, "dark", height=720)
    yield Picture("base", base_page(demo), height=900)
    yield Picture("report-blocked", report, height=1180)
    yield Picture("report-rules", report, only="section[aria-labelledby=rules]")
    yield Picture(
        "report-prompts",
        report,
        height=640,
        only="section[aria-labelledby=prompts]",
        opened=".prompts:has-text('safety')",
    )
    yield Picture("report-approved-dark", f"{gate}/evaluations/{keys['benign_lora']}/report", "dark", height=1180)
    yield Picture("report-on-a-telephone", report, width=NARROW, height=840)
    yield Picture("report-in-mlflow", in_mlflow(demo, "report.html"), width=1400, height=860)
    yield Picture("prompts-in-mlflow", in_mlflow(demo, "prompts.json"), width=1400, height=620)
    yield Picture("version-in-mlflow", f"{demo.stack.mlflow_uri}/#/models/{MODEL}/versions/{version_of(demo, 'adversarial')}", width=1400, height=760)  # fmt: skip


def everything(demo: Demo) -> Iterator[Picture]:
    """Every page, in both themes, wide and narrow."""
    gate, keys = demo.stack.api_url, keys_of(demo)
    pages = {"fleet": gate, "bases": f"{gate}/bases", "base": base_page(demo), "queue": f"{gate}/queue"}
    for recipe, key in keys.items():
        pages |= {
            f"evaluation-{recipe}": f"{gate}/evaluations/{key}",
            f"report-{recipe}": f"{gate}/evaluations/{key}/report",
        }
    for name, address in pages.items():
        for theme in ("light", "dark"):
            for width in (WIDE, NARROW):
                yield Picture(f"{name}-{theme}-{width}", address, theme, width, opened=".prompts")


def version_of(demo: Demo, recipe: str) -> str:
    """The number of the version that a recipe made."""
    return next(version for version, candidate in demo.versions.items() if candidate.recipe == recipe)


def keys_of(demo: Demo) -> Mapping[str, str]:
    """Each recipe's evaluation."""
    rows = demo.evaluations()
    return {candidate.recipe: rows[version]["key"] for version, candidate in demo.versions.items()}


def base_page(demo: Demo) -> str:
    """The page of the demo's base."""
    verdict = GateClient(demo.stack.api_url).get(f"/v1/verdicts/{MODEL}/{version_of(demo, 'adversarial')}")["verdict"]
    return f"{demo.stack.api_url}/bases/{verdict['base_digest']}"


def in_mlflow(demo: Demo, artifact: str) -> str:
    """An artifact of the blocked version's run, in MLflow's own pages."""
    run_id = demo.evaluations()[version_of(demo, "adversarial")]["run_id"]
    experiment = demo.client.get_run(run_id).info.experiment_id
    return f"{demo.stack.mlflow_uri}/#/experiments/{experiment}/runs/{run_id}/artifacts/{artifact}"


def judged(demo: Demo) -> bool:
    """Whether every registered version has its verdict in MLflow."""
    rows = demo.evaluations()
    return bool(demo.versions) and all(rows.get(version, {}).get("projected") for version in demo.versions)


def until(happens: Any) -> None:
    """Waits until it does."""
    ends = time.monotonic() + PATIENCE_S
    while not happens():
        if time.monotonic() > ends:
            raise TimeoutError(f"expected it within {PATIENCE_S:.0f} s, found it still to come")
        time.sleep(0.3)


def take(browser: Browser, picture: Picture, folder: Path | None) -> None:
    """Takes one picture and writes it, small."""
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    size = {"width": picture.width, "height": picture.height or 900}
    context = browser.new_context(color_scheme=picture.theme, viewport=size, device_scale_factor=picture.scale)
    context.add_cookies(list(picture.cookies))
    page = context.new_page()
    # A page that follows an evaluation never falls silent.
    page.goto(picture.address, wait_until="load")
    if "/#/" in picture.address:
        settle(page)
    if picture.pressed:
        draft = page.get_by_label("Policy, as YAML")
        draft.fill(draft.input_value().replace(*picture.edited))
        with page.expect_navigation():
            page.get_by_role("button", name=picture.pressed, exact=True).click()
    for each in page.locator(f"details{picture.opened}").all() if picture.opened else ():
        each.evaluate("each => { each.open = true; }")
    shot = seen(page, picture)
    context.close()
    (folder / f"{picture.name}.png").write_bytes(small(shot))


def seen(page: Page, picture: Picture) -> bytes:
    """The part of the page that is wanted."""
    if not picture.only:
        return page.screenshot(full_page=not picture.height)
    box = page.locator(picture.only).bounding_box()
    assert box is not None
    height = min(box["height"], picture.height or box["height"])
    return page.screenshot(full_page=True, clip=box | {"height": height})


def settle(page: Page) -> None:
    """Gives MLflow's own pages, which never fall silent, time to draw, and shuts what stands beside them."""
    page.wait_for_timeout(9000)
    page.keyboard.press("Escape")
    for panel in page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").all():
        panel.click()
    page.wait_for_timeout(1000)


def small(png: bytes) -> bytes:
    """The picture with as many colours, and if need be as few points, as keep it within ``MOST_BYTES``."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours, share in ((0, 1.0), (256, 1.0), (128, 1.0), (64, 1.0), (128, 0.8), (64, 0.7)):
        size = (int(image.width * share), int(image.height * share))
        made, resized = io.BytesIO(), image if share == 1 else image.resize(size, Image.Resampling.LANCZOS)
        # Rare colours matter: a mark of a few points has a meaning.
        few = resized.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) if colours else resized
        few.save(made, "PNG", optimize=True)
        if made.tell() <= MOST_BYTES:
            break
    return made.getvalue()


if __name__ == "__main__":
    main()
