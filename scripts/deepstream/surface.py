"""Video frames as the pipeline carries them: 8-bit 4:2:0 planes of even size."""

from dataclasses import dataclass

import av
import cv2
import numpy as np

# ITU-T H.264 table E-5: matrix_coefficients 1 is BT.709, 5 and 6 are BT.601.
_BT709 = 1
_FULL_RANGE = 2
# Untagged video of this height and more is taken for BT.709, as GStreamer and FFmpeg do.
_HD_HEIGHT = 720


@dataclass(frozen=True)
class Surface:
    """One frame: planes Y (h, w), U and V (h/2, w/2) uint8, or `rgb` (h, w, 3) uint8 instead.

    `bt709` and `full_range` say how the planes encode colour.
    """

    width: int
    height: int
    planes: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    rgb: np.ndarray | None = None
    bt709: bool = False
    full_range: bool = False

    @classmethod
    def from_frame(cls, frame: av.VideoFrame) -> "Surface":
        """Wrap a decoded frame; its planes are shared, not copied, when it is 4:2:0 already."""
        bt709 = frame.colorspace == _BT709 or (
            frame.colorspace not in (5, 6) and frame.height >= _HD_HEIGHT
        )
        full = frame.color_range == _FULL_RANGE or frame.format.name == "yuvj420p"
        if frame.format.name not in ("yuv420p", "yuvj420p") or frame.width % 2 or frame.height % 2:
            frame = frame.reformat(
                width=frame.width - frame.width % 2,
                height=frame.height - frame.height % 2,
                format="yuv420p",
            )
        planes = tuple(
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in frame.planes
        )
        return cls(frame.width, frame.height, planes=planes, bt709=bt709, full_range=full)

    @classmethod
    def from_rgb(cls, rgb: np.ndarray) -> "Surface":
        """Wrap an RGB image (h, w, 3) uint8."""
        return cls(rgb.shape[1], rgb.shape[0], rgb=rgb)

    def resized(self, width: int, height: int) -> "Surface":
        """Stretch to width x height with bilinear interpolation; itself when that is its size."""
        if (width, height) == (self.width, self.height):
            return self
        if self.rgb is not None:
            return Surface.from_rgb(_stretch(self.rgb, width, height))
        luma, *chroma = self.planes
        planes = (
            _stretch(luma, width, height),
            *(_stretch(plane, width // 2, height // 2) for plane in chroma),
        )
        return Surface(width, height, planes=planes, bt709=self.bt709, full_range=self.full_range)

    def to_rgb(self) -> np.ndarray:
        """Return the frame as RGB (height, width, 3) uint8."""
        if self.rgb is not None:
            return self.rgb
        if not (self.bt709 or self.full_range):
            return cv2.cvtColor(self._packed(), cv2.COLOR_YUV2RGB_I420)
        frame = av.VideoFrame.from_ndarray(self._packed(), format="yuv420p")
        return frame.reformat(
            format="rgb24",
            src_colorspace="ITU709" if self.bt709 else "ITU601",
            src_color_range="JPEG" if self.full_range else "MPEG",
            dst_color_range="JPEG",
        ).to_ndarray()

    def _packed(self) -> np.ndarray:
        """The planes one after the other, (3 h / 2, w), the layout OpenCV and PyAV take."""
        packed = np.empty((self.height * 3 // 2, self.width), np.uint8)
        flat = packed.reshape(-1)
        start = 0
        for plane in self.planes:
            flat[start : start + plane.size].reshape(plane.shape)[:] = plane
            start += plane.size
        return packed


def _stretch(image, width, height):
    # Area averaging below half size: bilinear would skip pixels and make small faces flicker.
    shrinks = width * 2 < image.shape[1] or height * 2 < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)
