"""Flowers drawn with polygons: 8 forms, 13 palettes, 5 scenes behind them."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 128  # pixels
SCALE = 4  # drawn this much larger, then reduced: smooth edges
GOLDEN_ANGLE = np.pi * (3 - 5**0.5)  # the spiral in which seeds and stamens grow

Colour = tuple[float, float, float] | np.ndarray  # RGB from 0 to 255
Head = tuple[float, float, float]  # x, y and radius of a flower, pixels


class Form(NamedTuple):
    """The shape of one kind of flower; lengths are fractions of its radius.

    width: of a petal, relative to its share of the circle.
    base, tip: exponents of the outline; small is blunt, large is pointed.
    notch: depth of the dent in the tip of a petal.
    """

    name: str
    petals: int
    layers: int
    width: float
    base: float
    tip: float
    notch: float
    disc: float
    stamens: int


class Palette(NamedTuple):
    """Colours of one kind of flower, RGB from 0 to 255: the tip and the base of a petal, and the disc."""

    name: str
    tip: Colour
    base: Colour
    disc: Colour


FORMS = (
    Form("primrose", 5, 1, 0.86, 0.85, 0.34, 0.22, 0.13, 8),
    Form("daisy", 15, 1, 0.95, 0.40, 0.32, 0.00, 0.30, 40),
    Form("lily", 6, 1, 0.85, 0.90, 0.85, 0.00, 0.07, 6),
    Form("poppy", 4, 1, 0.95, 0.55, 0.38, 0.00, 0.18, 26),
    Form("dahlia", 12, 4, 1.15, 0.60, 0.75, 0.00, 0.10, 0),
    Form("buttercup", 5, 1, 1.10, 0.65, 0.36, 0.00, 0.20, 22),
    Form("aster", 24, 2, 0.95, 0.35, 0.55, 0.00, 0.20, 30),
    Form("rose", 5, 5, 1.15, 0.50, 0.32, 0.06, 0.07, 0),
)
PALETTES = (
    Palette("pink", (246, 150, 190), (214, 60, 128), (250, 214, 90)),
    Palette("white", (250, 250, 246), (214, 220, 206), (246, 196, 40)),
    Palette("orange", (255, 158, 40), (226, 84, 16), (110, 46, 14)),
    Palette("red", (224, 44, 40), (140, 10, 26), (44, 26, 34)),
    Palette("violet", (158, 96, 214), (92, 40, 156), (250, 206, 70)),
    Palette("yellow", (255, 222, 56), (240, 164, 18), (196, 116, 20)),
    Palette("blue", (112, 146, 238), (52, 66, 176), (248, 226, 120)),
    Palette("peach", (255, 196, 160), (240, 112, 92), (214, 96, 60)),
    Palette("lavender", (204, 184, 242), (142, 112, 204), (244, 204, 84)),
    Palette("crimson", (190, 22, 74), (96, 6, 44), (240, 190, 80)),
    Palette("cream", (255, 244, 208), (240, 206, 110), (170, 126, 40)),
    Palette("magenta", (232, 66, 190), (150, 20, 130), (252, 226, 110)),
    Palette("gold", (250, 186, 30), (178, 60, 14), (84, 38, 18)),
)


class Scene(NamedTuple):
    """What lies behind the flowers: a gradient with spots, out of focus; lengths in pixels of a picture half as large.

    weight: how often the scene is chosen.
    spread: standard deviation of the spots' brightness.
    slim: the spots are leaves rather than balls.
    height: part of the picture, from the top, that has spots.
    """

    name: str
    weight: float
    top: Colour
    bottom: Colour
    spots: Colour
    spread: float
    size: tuple[float, float]
    blur: float
    slim: bool = False
    height: float = 1.0


SCENES = (
    Scene("leaves", 0.34, (46, 84, 36), (22, 50, 22), (74, 128, 50), 34, (5, 16), 1.6, slim=True),
    Scene("meadow", 0.20, (120, 150, 70), (60, 100, 44), (170, 190, 100), 40, (3, 9), 2.2),
    Scene("soil", 0.14, (122, 94, 66), (78, 56, 38), (134, 106, 78), 26, (1, 4), 0.7),
    Scene("sky", 0.14, (110, 168, 226), (206, 226, 240), (240, 244, 250), 10, (5, 14), 4.0, height=0.5),
    Scene("shade", 0.18, (20, 30, 20), (8, 14, 12), (34, 58, 34), 14, (6, 18), 3.0),
)


def kind(label: int) -> tuple[Form, Palette]:
    """Choose form and colours of a class; 8 and 13 have no common factor, so that the first 104 pairs all differ."""
    return FORMS[label % len(FORMS)], PALETTES[label % len(PALETTES)]


def draw(seed: int, index: int, label: int) -> Image.Image:
    """Draw picture `index` of a series: one to five flowers of one kind, (128, 128) RGB."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    heads = _arrange(rng)
    canvas = _background(rng, heads).resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.BILINEAR)
    light = rng.uniform(-np.pi, 0)  # radians; above the picture
    painter = _Painter(canvas, rng, *kind(label), light)
    for head in heads:
        painter.stem(*head)
    for head in heads:
        painter.flower(*head)
    return _illuminate(canvas.reduce(SCALE), rng, light)


def _arrange(rng: np.random.Generator) -> list[Head]:
    """Place the flowers: (x, y, radius) of each in pixels, the farthest first."""
    count = int(rng.choice(5, p=[0.46, 0.22, 0.16, 0.1, 0.06])) + 1
    middle = SIDE / 2
    if count == 1:
        return [(middle + rng.normal(0, 8), middle + rng.normal(0, 8), rng.uniform(34, 58))]
    heads: list[Head] = []
    radius = rng.uniform(28, 38) * (2 / count) ** 0.4
    for _ in range(count):
        spots = rng.uniform(0.14 * SIDE, 0.86 * SIDE, (12, 2))
        taken = np.array([head[:2] for head in heads] or [(middle, 3 * SIDE)])
        distances = np.linalg.norm(spots[:, None] - taken, axis=2).min(axis=1)
        x, y = spots[distances.argmax()] if heads else spots[0]
        heads.append((x, y, radius * rng.uniform(0.8, 1.2)))
    return sorted(heads, key=lambda head: head[1])


def _background(rng: np.random.Generator, heads: list[Head]) -> Image.Image:
    """Draw what lies out of focus behind the flowers, at half size: it is blurred anyway."""
    side = SIDE // 2
    scene = SCENES[rng.choice(len(SCENES), p=[scene.weight for scene in SCENES])]
    ramp = np.linspace(0, 1, side)[:, None, None]
    gradient = (1 - ramp) * np.array(scene.top) + ramp * np.array(scene.bottom) + rng.normal(0, 8, 3)
    image = Image.fromarray(np.broadcast_to(gradient, (side, side, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    leaf = _outline(0.7, 0.8, 0.0) - (0.5, 0)
    for _ in range(round(rng.integers(12, 34) * scene.height)):
        place = rng.uniform(0, side, 2) * (1, scene.height)
        colour = np.array(scene.spots) + rng.normal(0, scene.spread) + rng.normal(0, 6, 3)
        shape = rng.uniform(*scene.size) * np.array([2, rng.uniform(0.3, 0.6) if scene.slim else 1.0])
        blob = place + (leaf * shape) @ _rotation(rng.uniform(0, 2 * np.pi))
        draw.polygon(blob.ravel().tolist(), fill=_rgb(colour))
    if scene.name != "sky":
        for x, y, radius in heads:  # shadows
            x, y, reach = x / 2 + 1, y / 2 + 3, 0.42 * radius
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=_rgb(0.35 * gradient[-1, 0]))
    return image.filter(ImageFilter.GaussianBlur(scene.blur))


class _Painter:
    """Draws the plants of one picture, sharp, on a canvas SCALE times as large; arguments are pixels of the picture."""

    def __init__(
        self, canvas: Image.Image, rng: np.random.Generator, form: Form, palette: Palette, light: float
    ) -> None:
        self.draw = ImageDraw.Draw(canvas)
        self.rng = rng
        self.form = form
        self.light = light
        self.green = np.array([rng.uniform(40, 90), rng.uniform(105, 150), rng.uniform(35, 70)])
        hue = rng.normal(0, 7, 3)
        self.tip, self.base = np.array(palette.tip) + hue, np.array(palette.base) + hue
        self.disc = np.array(palette.disc)

    def stem(self, x: float, y: float, radius: float) -> None:
        """Draw a stem that leaves the picture below, and a few leaves."""
        rng, start = self.rng, np.array([x, y])
        end = np.array([x + rng.normal(0, 24), SIDE + 8])
        bend = (start + end) / 2 + (rng.normal(0, 10), 0)
        t = np.linspace(0, 1, 12)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        self._line(curve, self.green * 0.6, 0.09 * radius)
        self._line(curve, self.green * 0.9, 0.05 * radius)
        for _ in range(rng.integers(2, 6)):
            self._leaf(start + rng.uniform(0.1, 0.8) * (bend - start), radius)

    def flower(self, x: float, y: float, radius: float) -> None:
        """Draw the petals layer by layer from the outside in, then the disc and its stamens."""
        rng, form, middle = self.rng, self.form, np.array([x, y])
        # The flower looks a little to one side: a circle becomes an ellipse.
        axis = rng.uniform(0, np.pi)
        pose = radius * _rotation(axis) @ np.diag([1.0, rng.uniform(0.66, 1.0)]) @ _rotation(-axis)
        turn = rng.uniform(0, 2 * np.pi)
        for layer in range(form.layers):
            self._petals(middle, pose * (1 - 0.85 * layer / form.layers), turn + layer * np.pi / form.petals)
        rim = _around(np.linspace(0, 2 * np.pi, 25)[:-1]) * form.disc
        for part, tone in ((1.0, 0.6), (0.86, 0.85), (0.55, 1.0)):
            self._polygon(middle + part * rim @ pose, self.disc * tone)
        self._stamens(middle, pose, radius)

    def _leaf(self, foot: np.ndarray, radius: float) -> None:
        size = radius * np.array([self.rng.uniform(0.9, 1.5), self.rng.uniform(0.2, 0.34)])
        turned = _rotation(self.rng.uniform(0, 2 * np.pi))
        colour = self.green * self.rng.uniform(0.6, 1.1)
        blade = _outline(0.7, 0.9, 0.0) * size
        for part, tone in ((1.0, 0.7), (0.9, 0.95), (0.6, 1.05)):
            self._polygon(foot + (blade * (1, part)) @ turned, colour * tone)
        self._line(foot + np.array([[0, 0], [0.92 * size[0], 0]]) @ turned, colour * 1.35)

    def _petals(self, middle: np.ndarray, pose: np.ndarray, turn: float) -> None:
        """Draw one ring of petals: each a dark edge, then shades from the tip's colour to the base's, and a vein."""
        form, rng = self.form, self.rng
        outline = _outline(form.base, form.tip, form.notch)
        vein = np.array([[0.15, 0.0], [0.8 - form.notch, 0.0]])
        width = min(0.62, 0.66 * np.tan(np.pi / form.petals) * form.width)
        angles = turn + (np.arange(form.petals) * 2 * np.pi + rng.normal(0, 0.25, form.petals)) / form.petals
        sizes = rng.normal(1, 0.04, (form.petals, 2)).clip(0.85, 1.15) * (1, width)
        tones = 1 + 0.13 * np.cos(angles - self.light) + rng.normal(0, 0.03, form.petals)
        for angle, size, tone in zip(angles, sizes, tones, strict=True):
            place = np.diag(size) @ _rotation(angle) @ pose
            petal = outline @ place
            self._polygon(middle + petal, self._mix(0.4) * 0.68 * tone)
            for part in (0.96, 0.82, 0.66, 0.5, 0.34):
                self._polygon(middle + part * petal, self._mix(((part - 0.3) / 0.66) ** 0.8) * tone)
            self._line(middle + vein @ place, self._mix(0.5) * 0.9 * tone)

    def _stamens(self, middle: np.ndarray, pose: np.ndarray, radius: float) -> None:
        """Draw dots in a spiral, or a lily's long threads with a dot at the end."""
        count, threads = self.form.stamens, self.form.name == "lily"
        number = np.arange(count)
        filled = self.form.disc * np.sqrt((number + 0.5) / max(1, count)) * self.rng.uniform(0.85, 1.05, count)
        reach = np.full(count, 0.42) if threads else filled
        tips = middle + (reach[:, None] * _around(number * GOLDEN_ANGLE + self.light)) @ pose
        dot = max(0.4, 0.022 * radius)
        for tip, tone in zip(tips, self.rng.uniform(0.75, 1.4, count), strict=True):
            if threads:
                self._line(np.stack([middle, tip]), self.disc * 0.9)
            box = np.concatenate([tip - dot, tip + dot]) * SCALE
            self.draw.ellipse(tuple(box.tolist()), fill=_rgb(self.disc * tone + 12))

    def _mix(self, share: float) -> np.ndarray:
        """Blend the two colours of a petal: 0 is its base's, 1 its tip's."""
        return share * self.tip + (1 - share) * self.base

    def _polygon(self, points: np.ndarray, colour: Colour) -> None:
        self.draw.polygon((points * SCALE).ravel().tolist(), fill=_rgb(colour))

    def _line(self, points: np.ndarray, colour: Colour, width: float = 0.5) -> None:
        self.draw.line((points * SCALE).ravel().tolist(), fill=_rgb(colour), width=max(2, round(width * SCALE)))


def _illuminate(image: Image.Image, rng: np.random.Generator, light: float) -> Image.Image:
    """Let light fall from one side, and darken the corners a little."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    shade = rng.uniform(0.9, 1.06) + 0.1 * (x * np.cos(light) + y * np.sin(light)) - 0.07 * (x * x + y * y)
    pixels = np.asarray(image, dtype=np.float32) * shade[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _outline(base: float, tip: float, notch: float) -> np.ndarray:
    """Outline of a petal from (0, 0) to (1, 0), at most 1 to either side: (22, 2) float64."""
    t = (1 - np.cos(np.linspace(0, np.pi, 12))) / 2
    half = t**base * (1 - t) ** tip
    half /= half.max()
    dent = notch * np.exp(-((half / 0.45) ** 2)) * (t > 0.6)
    left = np.stack([t - dent, half], axis=1)
    return np.concatenate([left, left[-2:0:-1] * (1, -1)])


def _rotation(angle: float) -> np.ndarray:
    """Matrix that turns row vectors by `angle` radians: (2, 2) float64."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _around(angles: np.ndarray) -> np.ndarray:
    """Points of the unit circle: (N, 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, int(value))) for value in colour)
    return red, green, blue
