"""Rendered clips: bodies that turn in depth, bend, cast shade and hide one another over a photo.

A warped picture shows the same side of a thing in every frame. A body that turns shows sides that
the given mask did not show. Its look-alikes have the same texture and are background. Masks are
exact, for any number of objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from stremn.data.clips.bodies import Body, Limb
from stremn.data.clips.clip import Clip, first_usable, introduce
from stremn.data.clips.colors import color_matrix, flickering, recolor
from stremn.data.clips.cut_outs import StillDraw
from stremn.data.clips.layers import Layer, channels_first, render
from stremn.data.clips.solids import Light, Rotation, Scene, Vector, rotation
from stremn.data.clips.still_layers import StillClipParameters, backdrop
from stremn.data.clips.warps import smooth_path
from stremn.data.readers.stills import StillImages
from stremn.media.frames import Picture

BACKDROP = StillClipParameters()
"""Motion and colors of the photo behind the bodies."""


@dataclass(frozen=True)
class RenderedClipParameters:
    """Chances and ranges of rendered clips. They are judgement, not measurement."""

    objects: int = 3
    """Most targets."""
    lookalike: float = 0.6
    """Chance of one to three bodies with the texture of a target that are background."""
    others: int = 2
    """Most other bodies that are background."""
    limbs: tuple[int, int] = (0, 5)
    """Parts of a body beside its trunk: fewest and most."""
    share: tuple[float, float] = (0.12, 0.5)
    """Height of a trunk / clip side: smallest and largest."""
    travel: tuple[float, float] = (0.1, 1.2)
    """Largest distance from the start, in clip sides: range it is drawn from."""
    turn: float = 120.0
    """Largest turn of a body from its first pose, degrees."""
    swing: float = 45.0
    """Largest turn of a limb against the trunk, degrees."""
    swell: float = 0.12
    """Largest change of a part's axes, natural logarithm."""
    shadow: float = 0.6
    """Chance that the bodies cast a shadow on the backdrop."""
    ambient: tuple[float, float] = (0.45, 0.8)
    """Share of the light that comes from everywhere."""
    late: float = 0.3
    """Chance that targets that are not in the first frame are given later."""
    motion: StillClipParameters = BACKDROP
    """Motion and colors of the backdrop, and colors of textures."""
    visible: float = 0.004
    """Share of the pixels an object must have in the frame where it is given."""


FOCAL = 1.4
"""Focal length in clip sides: an angle of view of 39 degrees."""

DEPTHS = (3.0, 6.0)
"""Distances of bodies from the camera at the start."""

SUPERSAMPLING = 2
"""Rays per pixel and axis; outlines and textures are smoothed by their mean."""


class RenderedClips:
    """A clip source: textured bodies over photos.

    sets: of still images, whose objects become textures and whose photos become backdrops.
    weights: how often each is drawn from; None: by their sizes.
    """

    def __init__(
        self,
        sets: Sequence[StillImages],
        weights: Sequence[float] | None = None,
        parameters: RenderedClipParameters | None = None,
    ) -> None:
        self.draw = StillDraw(sets, weights)
        self.parameters = RenderedClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; `progress` has no effect. Raises StremnError if none shows an object."""
        return first_usable(
            lambda: self._attempt(rng, frames, size),
            "; rendered objects may be too small "
            f"(an object needs {self.parameters.visible:.1%} of the clip).",
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int) -> Clip | None:
        p = self.parameters
        count = int(rng.integers(1, p.objects + 1))
        bodies = [self._body(rng, number, frames) for number in range(1, count + 1)]
        if rng.random() < p.lookalike:
            model = bodies[int(rng.integers(count))]
            bodies += [self._twin(rng, model, frames) for _ in range(int(rng.integers(1, 4)))]
        bodies += [self._body(rng, 0, frames) for _ in range(int(rng.integers(p.others + 1)))]
        light = _light(rng, p)
        layers = [backdrop(rng, self.draw.still(rng).image, None, frames, size, p.motion)]
        scenes = [_scene(bodies, frame, size, light) for frame in range(frames)]
        if rng.random() < p.shadow:
            layers.append(_shadow(rng, [alpha for _, alpha, _ in scenes], light))
        layers.append(
            _still_layer(
                [picture for picture, _, _ in scenes],
                [alpha for _, alpha, _ in scenes],
                [ids for _, _, ids in scenes],
            )
        )
        pictures, labels = render(layers, frames, size)
        late = bool(rng.random() < p.late)
        found = introduce(labels, count, round(p.visible * size * size), late=late)
        if found is None:
            return None
        pictures = flickering(rng, pictures, p.motion.flicker)
        return Clip(channels_first(pictures), found[0], found[1])

    def _texture(self, rng: np.random.Generator) -> Picture:
        """Return the picture of an object, or a piece of a photo, in other colors."""
        still = self.draw.still(rng)
        cut = self.draw.cut_out(rng, still)
        image = still.image if cut is None else cut.image
        height, width = image.shape[:2]
        # The inner part: an object's box shows the photo at its corners.
        inner = image[height // 5 : height - height // 5, width // 5 : width - width // 5]
        return recolor(np.ascontiguousarray(inner), color_matrix(rng, self.parameters.motion.color))

    def _body(self, rng: np.random.Generator, number: int, frames: int) -> Body:
        p = self.parameters
        texture = self._texture(rng)
        height = float(np.exp(rng.uniform(*np.log(p.share)))) / FOCAL
        depth = rng.uniform(*DEPTHS)
        axes = height * depth / 2 * np.array([1.0, *rng.uniform(0.4, 1.0, 2)])
        limbs = []
        for _ in range(int(rng.integers(p.limbs[0], p.limbs[1] + 1))):
            thin = rng.uniform(0.1, 0.4)
            shape = np.array([thin, thin * rng.uniform(0.6, 1.0), rng.uniform(0.4, 1.0)])
            own = self._texture(rng) if rng.random() < 0.3 else texture
            limbs.append(Limb(_unit(rng), shape, own, _swings(rng, frames, p)))
        place = rng.uniform(-0.35, 0.35, 2) / FOCAL * depth
        return _moving(rng, Body(number, axes, texture, limbs, *_at_rest(frames, place, depth)), p)

    def _twin(self, rng: np.random.Generator, model: Body, frames: int) -> Body:
        """Return a body like `model` that is background: elsewhere, in another pose."""
        depth = rng.uniform(*DEPTHS)
        place = rng.uniform(-0.45, 0.45, 2) / FOCAL * depth
        stretch = np.exp(rng.uniform(-0.2, 0.2, 3)) * depth / model.centers[0, 2]
        limbs = [
            Limb(limb.joint, limb.axes, limb.texture, _swings(rng, frames, self.parameters))
            for limb in model.limbs
        ]
        twin = Body(0, model.axes * stretch, model.texture, limbs, *_at_rest(frames, place, depth))
        return _moving(rng, twin, self.parameters)


def _at_rest(
    frames: int, place: np.ndarray, depth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Rotation]:
    """Return centers, turns, swells and pose of a body that stands still."""
    centers = np.tile(np.array([*place, depth]), (frames, 1))
    return centers, np.zeros((frames, 3)), np.ones((frames, 3)), np.eye(3)


def _moving(rng: np.random.Generator, body: Body, p: RenderedClipParameters) -> Body:
    """Return the body on a smooth way through the scene, turning and swelling."""
    frames = len(body.centers)
    path = smooth_path(rng, frames, 9, 2 + frames // 3)
    path -= path[0]  # now within -2 and 2, which is why ranges are halved below
    depth = body.centers[0, 2]
    travel = float(np.exp(rng.uniform(*np.log(p.travel)))) / 2 * depth / FOCAL
    way = path[:, :3] * travel * np.array([1.0, 0.6, 0.5])
    centers = body.centers + way
    nearest = 2.2 * body.axes.max()
    centers[:, 2] = np.maximum(centers[:, 2], max(nearest, 0.5 * depth))
    turns = np.deg2rad(p.turn) * rng.uniform(0.2, 1.0) / 2 * path[:, 3:6]
    return Body(
        number=body.number,
        axes=body.axes,
        texture=body.texture,
        limbs=body.limbs,
        centers=centers,
        turns=turns,
        swells=np.exp(p.swell / 2 * path[:, 6:9]),
        start=rotation(_unit(rng) * rng.uniform(0, np.pi)),
    )


def _swings(
    rng: np.random.Generator, frames: int, p: RenderedClipParameters
) -> Float64[np.ndarray, "t 3"]:
    return np.deg2rad(p.swing) * smooth_path(rng, frames, 3, 2 + frames // 2)


def _unit(rng: np.random.Generator) -> Vector:
    """Return a random direction."""
    found = rng.normal(size=3)
    return found / np.linalg.norm(found)


def _light(rng: np.random.Generator, p: RenderedClipParameters) -> Light:
    """Return light from above or the side, on the camera's side of the bodies."""
    direction = _unit(rng)
    direction[1] = -abs(direction[1])
    direction[2] = -abs(direction[2])
    return Light(direction, float(rng.uniform(*p.ambient)))


def _scene(
    bodies: Sequence[Body], frame: int, size: int, light: Light
) -> tuple[Picture, UInt8[np.ndarray, "size size"], UInt8[np.ndarray, "size size"]]:
    """Draw all bodies of a frame: their picture, opacity and ids."""
    wide = size * SUPERSAMPLING
    scene = Scene(wide, FOCAL * wide)
    for body in bodies:
        for part, texture in body.parts(frame):
            scene.draw(part, texture, light, body.number)
    covered = scene.covered.astype(np.float32)
    share = cv2.resize(covered, (size, size), interpolation=cv2.INTER_AREA)
    mean = (
        cv2.resize(scene.color.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        / np.maximum(share, 1e-3)[..., None]
    )
    alpha = np.round(255 * share).astype(np.uint8)
    return np.clip(mean, 0, 255).astype(np.uint8), alpha, _majority(scene.ids, size)


def _majority(ids: UInt8[np.ndarray, "wide wide"], size: int) -> UInt8[np.ndarray, "size size"]:
    """Return at each pixel the label that most of its rays met; the first of equals."""
    numbers = np.unique(ids)
    shares = np.stack(
        [
            cv2.resize((ids == n).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
            for n in numbers
        ]
    )
    return numbers[np.argmax(shares, axis=0)].astype(np.uint8)


def _still_layer(
    pictures: Sequence[Picture], alphas: Sequence[np.ndarray], ids: Sequence[np.ndarray] | None
) -> Layer:
    """Return a layer of the canvas's size that does not move."""
    frames = len(pictures)
    return Layer(
        pictures=pictures,
        alphas=alphas,
        ids=ids,
        color=np.eye(3, 4, dtype=np.float32),
        matrices=np.tile(np.eye(3), (frames, 1, 1)),
        bends=None,
        drawn=np.ones(frames, dtype=bool),
    )


def _shadow(rng: np.random.Generator, alphas: Sequence[np.ndarray], light: Light) -> Layer:
    """Return the bodies' shadow on the backdrop: their outline, moved away from the light, soft."""
    size = alphas[0].shape[0]
    away = -light.direction[:2] * size * rng.uniform(0.05, 0.2)
    shift = np.array([[1, 0, away[0]], [0, rng.uniform(0.5, 1.0), away[1]]])
    shift[1, 2] += size * (1 - shift[1, 1])
    dark = rng.uniform(0.2, 0.45)
    blur = size * rng.uniform(0.005, 0.03)
    soft = [
        cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (size, size)), (0, 0), blur) * dark
        for alpha in alphas
    ]
    black = np.zeros((size, size, 3), np.uint8)
    return _still_layer([black] * len(alphas), [each.astype(np.uint8) for each in soft], None)
