"""Make the built site lighter, where nobody sees it: drawings in fewer bytes, no source maps, no fonts of a second format.

The dark drawing of a figure is its light one in other colours, so one file holds both: `figure.svg` is light, `figure.svg#dark` is dark.
"""

import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, PngImagePlugin

from ica.record.figures import FOREGROUND, HEX
from ica.record.styles import DARK

COLOURS = 256  # of a picture in PNG; figures have flat colours
UNSEEN = (
    "_static/**/*.map",
    "_static/vendor/**/*.ttf",
    "_static/locales/**/*.po",
    "_static/locales/**/*.mo",
)  # browsers take woff2
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
BETWEEN = re.compile(r">\s+<")
DRAWN = re.compile(r' d="([^"]*)"')
LONG = re.compile(r"(?<!scale\()-?\d+\.\d{3,}")
MARK = re.compile(r' id="([^"]*)"')
LEADS = re.compile(r'(?<=href="#)[^"]*|(?<=url\(#)[^)]*')
LETTER = re.compile(r" ?([MLHVCQZz]) ?")
DEFS = re.compile(r"<defs>.*?</defs>", re.DOTALL)
SHAPE = re.compile(r'<path\b[^>]*\bid="([^"]*)"[^>]*>')
USE = re.compile(r'<use\b[^>]*\bhref="#([^"]*)"[^>]*>')
PAINT = re.compile(r"((fill|stroke): (#[0-9a-f]{6}))(?:; )?")
PLAIN = re.compile(r'((fill|stroke)="(#[0-9a-f]{6})")')
DARKS = re.compile(
    r'(_figures/[^"<>]*?)\.dark\.svg(?P<end>"?)(?: download)?'
)  # what is opened dark would be saved light


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


def both(svg: str) -> str | None:
    """A drawing of `drawing` that turns dark, as `ica.record.figures.dark` has it, where an address leads to its `#dark`.

    Rules of style do not reach a shape where it is used, so it takes its colours from there. None if it has others, or where a colour is
    said in another way than in a style or as `fill` or `stroke`.
    """
    uses = defaultdict(list)
    for use in USE.finditer(svg):
        uses[use[1]].append(use[0])

    def shape(found: re.Match) -> str:
        return PAINT.sub(lambda one: "" if all(one[1] in use for use in uses[found[1]]) else one[0], found[0])

    svg = DEFS.sub(lambda defs: SHAPE.sub(shape, defs[0]), svg)
    used = [shape[0] for defs in DEFS.findall(svg) for shape in SHAPE.finditer(defs) if shape[1] in uses]
    out_of_reach = "".join([PLAIN.sub("", PAINT.sub("", svg)), *used])
    if any(colour in DARK for colour in HEX.findall(out_of_reach)):
        return None
    ways = (PAINT, '[style*="{}"]'), (PLAIN, "[{}]")
    found = {(one[2], one[3], says.format(one[1])) for way, says in ways for one in way.finditer(svg)}
    rules = [
        f":target {where}{{{what}:{DARK[c]}!important}}" for what, c, where in sorted(found) if c in DARK
    ]
    rules.insert(0, f":target{{fill:{DARK[FOREGROUND]}}}")
    return svg.replace("<svg ", '<svg id="dark" ', 1).replace(
        "<defs>", f"<style>{''.join(rules)}</style><defs>", 1
    )


def themes(site: Path) -> None:
    """Put light and dark drawings into one file each, and lead the pages there."""
    merged = []
    for dark in site.glob("_figures/*/*.dark.svg"):
        light = dark.with_name(dark.name.replace(".dark.svg", ".svg"))
        one = both(light.read_text(encoding="utf-8"))
        if one:
            light.write_text(one, encoding="utf-8")
            dark.unlink()
            merged.append(light.relative_to(site).as_posix().removesuffix(".svg"))
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = DARKS.sub(lambda one: f"{one[1]}.svg#dark{one['end']}" if one[1] in merged else one[0], text)
        if found != text:
            page.write_text(found, encoding="utf-8")


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
    themes(site)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(picture, site.glob("_figures/*/*.png")))
