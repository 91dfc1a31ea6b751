"""What a person looks like and wears, drawn by lot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scenes.canvas import Colour, mix, shade

Choice = TypeVar("Choice")

SKINS: tuple[Colour, ...] = (
    (250, 224, 204),
    (243, 208, 180),
    (232, 188, 152),
    (222, 172, 130),
    (201, 148, 104),
    (172, 118, 78),
    (141, 92, 60),
    (108, 70, 46),
    (82, 54, 38),
)
HAIRS: tuple[Colour, ...] = (
    (24, 20, 20),
    (38, 28, 24),
    (62, 40, 28),
    (92, 58, 34),
    (138, 92, 50),
    (190, 148, 88),
    (150, 62, 32),
    (150, 148, 146),
    (214, 212, 208),
)
EYES: tuple[Colour, ...] = ((58, 36, 22), (84, 54, 30), (70, 92, 60), (66, 98, 130), (40, 28, 22))
SURGICAL: tuple[Colour, ...] = (
    (150, 200, 224),
    (128, 184, 214),
    (236, 240, 242),
    (160, 214, 196),
    (240, 196, 206),
    (246, 246, 246),
)
CLOTH: tuple[Colour, ...] = (
    (28, 28, 32),
    (44, 52, 78),
    (120, 30, 40),
    (96, 100, 106),
    (220, 214, 200),
    (62, 92, 70),
    (180, 150, 120),
    (216, 120, 60),
    (90, 60, 110),
)
BRIGHT: tuple[Colour, ...] = (
    (206, 48, 52),
    (240, 180, 40),
    (48, 110, 190),
    (60, 150, 90),
    (226, 110, 50),
    (120, 70, 150),
    (230, 230, 226),
    (40, 44, 52),
    (240, 140, 170),
    (90, 190, 200),
)

HAIR_STYLES = ("short", "parted", "bob", "long", "bun", "curly", "bald", "crop", "fringe")
MASKS = ("surgical", "surgical", "surgical", "cloth", "cloth", "patterned", "ffp2", "bandana")
PATTERNS = ("dots", "stripes", "checks", "flowers", "camouflage")
HATS = ("cap", "beanie", "brim", "theatre", "helmet", "hood", "veil")
TOPS = ("shirt", "tee", "suit", "hoodie", "coat", "striped")


@dataclass(frozen=True)
class Look:
    """A person: what does not change from picture to picture, and what is worn.

    `mask` is None or one of MASKS, `worn` tells how: `full` (nose, mouth, chin), `nose` (the nose
    is free) or `chin`. `hand` is None, `mouth` (a hand before the mouth) or `half` (before half of
    the face).
    """

    skin: Colour
    lips: Colour
    hair: Colour
    style: str
    eyes: Colour
    brow: float
    jaw: float
    breadth: float
    smile: float
    open_mouth: float
    eye_open: float
    beard: str | None
    age: float
    mask: str | None
    worn: str
    mask_colour: Colour
    mask_accent: Colour
    pattern: str
    glasses: str | None
    hat: str | None
    hat_colour: Colour
    scarf: bool
    scarf_colour: Colour
    hand: str | None
    top: str
    top_colour: Colour
    seed: int

    @property
    def state(self) -> str:
        """`mask` for a mask worn right, `poor` for one worn wrong, `bare` without one."""
        if self.mask is None:
            return "bare"
        return "mask" if self.worn == "full" else "poor"


def _jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    grey = rng.normal(0.0, spread)
    return tuple(float(np.clip(c + grey + rng.normal(0.0, spread / 2), 4, 252)) for c in colour)


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of the choices, each as likely."""
    return choices[int(rng.integers(len(choices)))]


def draw_look(
    rng: np.random.Generator, *, masked: bool, worn: str = "full", hand: str | None = None
) -> Look:
    """A person by lot; `masked` and `worn` decide about the mask, `hand` about a hand before it."""
    age = float(rng.uniform(0, 1))
    tone = int(rng.integers(len(SKINS)))
    skin = _jitter(rng, SKINS[tone], 7)
    # Fair and red hair goes with fair skin, grey and white hair with age.
    natural = HAIRS[: 7 if tone < 4 else 4]
    hair = _jitter(rng, pick(rng, natural if age < 0.75 else natural + HAIRS[7:]), 7)
    style = pick(rng, HAIR_STYLES)
    short = style in ("short", "parted", "bald", "crop", "curly")
    beard = pick(rng, ("stubble", "full", "moustache", "goatee")) if rng.random() < 0.3 else None
    mask = pick(rng, MASKS) if masked else None
    palette = {"surgical": SURGICAL, "ffp2": SURGICAL[2:3] + SURGICAL[5:]}.get(mask, CLOTH + BRIGHT)
    hat = pick(rng, HATS) if rng.random() < 0.24 else None
    glasses = pick(rng, ("thin", "thick", "rimless", "sun")) if rng.random() < 0.28 else None
    return Look(
        skin=skin,
        lips=mix(shade(skin, 0.78), (176, 62, 70), float(rng.uniform(0.25, 0.75))),
        hair=hair,
        style=style,
        eyes=_jitter(rng, pick(rng, EYES), 6),
        brow=float(rng.uniform(0.6, 1.5)),
        jaw=float(rng.uniform(0.84, 1.12)),
        breadth=float(rng.uniform(0.93, 1.06)),
        smile=float(rng.uniform(-0.4, 1.0)),
        open_mouth=float(max(0.0, rng.uniform(-0.8, 0.9))),
        eye_open=float(rng.uniform(0.55, 1.1)),
        beard=beard if short else None,
        age=age,
        mask=mask,
        worn=worn,
        mask_colour=_jitter(rng, pick(rng, palette), 6),
        mask_accent=_jitter(rng, pick(rng, BRIGHT), 6),
        pattern=pick(rng, PATTERNS),
        glasses=glasses,
        hat=hat,
        hat_colour=_jitter(rng, pick(rng, BRIGHT + CLOTH), 8),
        scarf=bool(rng.random() < 0.12),
        scarf_colour=_jitter(rng, pick(rng, BRIGHT + CLOTH), 8),
        hand=hand,
        top=pick(rng, TOPS),
        top_colour=_jitter(rng, pick(rng, BRIGHT + CLOTH), 8),
        seed=int(rng.integers(1 << 31)),
    )
