"""The screenshots of docs/studio.md: python tests/studio/take_pictures.py docs/pictures [MODEL]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what pytest's conftest.py does for the tests
from chromium import Browser  # noqa: E402
from server_process import ServerProcess  # noqa: E402

PROMPT = "a photo of a red apple"
DRAWN = (
    "document.querySelectorAll('#pictures img').length === 4 && !document.querySelector('.waiting') && "
    "[...document.images].every((i) => i.complete && i.naturalWidth)"
)


def shoot(out: Path, url: str) -> None:
    with Browser(1280, 800) as page:
        page.open(url)
        page.until(DRAWN)
        page.press("p")
        page.type(PROMPT)
        page.press("Escape")
        page.until(f"document.getElementById('command').textContent.includes({PROMPT!r}) && {DRAWN}")
        page.press("t")
        page.until(f"document.querySelectorAll('#strip img').length === 7 && {DRAWN}")
        page.picture(out / "studio.png", full=True)
        address = page.run("location.href")
    with Browser(390, 800, mobile=True) as page:
        page.open(address)
        page.until(DRAWN)
        page.picture(out / "studio-phone.png")


if __name__ == "__main__":
    server = ServerProcess("studio", *(sys.argv[2:3] or ["tiny-miro"]), seconds=120)
    try:
        shoot(Path(sys.argv[1]), server.url)
    finally:
        server.kill()
