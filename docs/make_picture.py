"""Make the picture of a report that README.md shows: the verdict, the table and the plane of one run.

    hf-unlearn train --config harmful_lab --attack quick
    python docs/make_picture.py unlearned/harmful-lab    # writes docs/images/report.png

It needs Chromium (`apt-get install chromium`) and Pillow, which comes with matplotlib.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from hf_unlearn.cli import main as hf_unlearn

PICTURE = Path(__file__).parent / "images" / "report.png"
# In CSS pixels: about as wide as README is on a screen, at 1.75 times its resolution.
WIDTH, HEIGHT, PIXELS = 940, 2000, 1.75
# The picture ends after the first plot; the page's own head, what is folded and the tables of attacks are left out.
HIDDEN = (
    ".masthead, .rules, .colophon, details, .glossary, .toggle, .attacked, .run > figure:first-of-type ~ * "
    "{ display: none }"
)
NARROW = "main { padding: 0 } main > section.run { margin: 0; border: 0; padding-top: 1rem } h3 { margin-top: 1.5rem }"
# Time for the plots to be drawn, which begin when they come into sight.
WAIT = 10_000


def make(run: Path, picture: Path) -> None:
    """Render the report of a run, take a picture of its top, cut it and reduce it to 64 colours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, shot = folder / "report.html", folder / "shot.png"
        hf_unlearn(["report", str(run), "-o", str(page)])
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("</head>", f"<style>{HIDDEN} {NARROW}</style></head>"), encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"]
        command += [
            f"--force-device-scale-factor={PIXELS}",
            f"--virtual-time-budget={WAIT}",
            f"--screenshot={shot}",
            page.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        image = Image.open(shot).convert("RGB")
    # Below the section lies the page's background alone: the last pixel of the shot.
    background = Image.new("RGB", image.size, image.getpixel((image.width - 1, image.height - 1)))
    bottom = ImageChops.difference(image, background).getbbox()[3]
    picture.parent.mkdir(exist_ok=True)
    top = image.crop((0, 0, image.width, bottom))
    top.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    make(arguments.run, arguments.output)
