"""Make the built site lighter, where nobody sees it: drawings in fewer bytes, no source maps, no fonts of a second format."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, PngImagePlugin

COLOURS = 256  # of a picture in PNG; figures have flat colours
UNSEEN = ("_static/**/*.map", "_static/vendor/**/*.ttf", "_static/locales/**/*.po")  # browsers take woff2
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
BETWEEN = re.compile(r">\s+<")
DRAWN = re.compile(r' d="([^"]*)"')
LONG = re.compile(r"(?<!scale\()-?\d+\.\d{3,}")
MARK = re.compile(r' id="([^"]*)"')
LEADS = re.compile(r'(?<=href="#)[^"]*|(?<=url\(#)[^)]*')
LETTER = re.compile(r" ?([MLHVCQZz]) ?")


def _short(number: re.Match, places: int) -> str:
    short = f"{float(number[0]):.{places}f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def _path(drawn: re.Match) -> str:
    numbers = LONG.sub(lambda number: _short(number, 2), " ".join(drawn[1].split()))
    return ' d="' + LETTER.sub(r"\1", numbers) + '"'


def _marks(svg: str) -> str:
    """Ids that something in the drawing leads to, in few letters; no others."""
    short = {name: f"a{k}" for k, name in enumerate(dict.fromkeys(LEADS.findall(svg)))}
    svg = MARK.sub(lambda mark: f' id="{short[mark[1]]}"' if mark[1] in short else "", svg)
    return LEADS.sub(lambda lead: short[lead[0]], svg)


def drawing(svg: str) -> str:
    """An SVG of matplotlib without comments, indents and names of parts; paths to a hundredth of a point (1/72 of an inch)."""
    svg = DRAWN.sub(_path, _marks(COMMENT.sub("", svg)))
    return BETWEEN.sub("><", LONG.sub(lambda number: _short(number, 4), svg))


def picture(path: Path) -> None:
    """Write a PNG again with a palette, its words kept, where that is smaller."""
    with Image.open(path) as image:
        words = PngImagePlugin.PngInfo()
        for key, text in image.text.items():
            words.add_text(key, text)
        dpi = image.info.get("dpi")
        fewer = image.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    beside = path.with_suffix(".new")
    fewer.save(beside, "PNG", optimize=True, pnginfo=words, **({"dpi": dpi} if dpi else {}))
    beside.replace(path) if beside.stat().st_size < path.stat().st_size else beside.unlink()


def lighten(site: Path) -> None:
    """Do all of it to a built site."""
    for pattern in UNSEEN:
        for path in site.glob(pattern):
            path.unlink()
    for path in site.glob("_figures/*/*.svg"):
        path.write_text(drawing(path.read_text(encoding="utf-8")), encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(picture, site.glob("_figures/*/*.png")))
