"""Bodies of rendered clips: a trunk with limbs, and its pose in each frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stremn.data.clips.solids import Ellipsoid, Rotation, Vector, rotation
from stremn.media.frames import Picture


@dataclass(frozen=True)
class Limb:
    """A part of a body at rest: where it begins and points to on the trunk's unit sphere, its axes
    in units of the trunk's largest, and its own texture or the trunk's."""

    joint: Vector
    axes: Vector
    texture: Picture
    swings: Float64[np.ndarray, "t 3"]


@dataclass(frozen=True)
class Body:
    """A trunk with limbs, and its pose in each frame; `swells` are factors of its axes."""

    number: int
    axes: Vector
    texture: Picture
    limbs: Sequence[Limb]
    centers: Float64[np.ndarray, "t 3"]
    turns: Float64[np.ndarray, "t 3"]
    swells: Float64[np.ndarray, "t 3"]
    start: Rotation

    def parts(self, frame: int) -> list[tuple[Ellipsoid, Picture]]:
        """Return the ellipsoids of a frame with their textures."""
        pose = rotation(self.turns[frame]) @ self.start
        axes = self.axes * self.swells[frame]
        trunk = Ellipsoid(self.centers[frame], axes, pose)
        parts = [(trunk, self.texture)]
        for limb in self.limbs:
            outward = _basis(limb.joint)
            turned = pose @ rotation(limb.swings[frame]) @ outward
            joint = self.centers[frame] + pose @ (limb.joint * axes * 0.9)
            length = limb.axes * self.axes.max()
            # The limb's long axis is its third: it begins at the joint.
            center = joint + turned[:, 2] * length[2] * 0.85
            parts.append((Ellipsoid(center, length, turned), limb.texture))
        return parts


def _basis(direction: Vector) -> Rotation:
    """Return a rotation whose third column is the unit vector `direction`."""
    helper = np.eye(3)[int(np.argmin(np.abs(direction)))]
    first = np.cross(helper, direction)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first), direction], axis=1)
