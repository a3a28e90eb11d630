"""Files of images, depth and points. Every reader raises `InputError` on a bad file; every writer is atomic."""

from metricanything.core.codecs.depth import (
    DEPTH_FORMATS,
    DepthFormat,
    decode_depth_exr,
    encode_depth_exr,
    read_depth,
    read_exr,
    read_npy,
    read_pfm,
    write_depth_exr,
    write_depth_npy,
    write_depth_npz,
    write_depth_pfm,
)
from metricanything.core.codecs.images import (
    decode_image,
    encode_jpeg,
    encode_png,
    exif_focal_px,
    image_size,
    read_image,
    write_image,
)
from metricanything.core.codecs.png16 import (
    decode_depth_log_png,
    encode_depth_log_png,
    log_png_error,
    png16_scale,
    read_png16,
    write_depth_log_png,
    write_depth_png16,
)
from metricanything.core.codecs.points import read_ply, write_glb, write_ply
from metricanything.core.codecs.reading import MAX_PIXELS

__all__ = [
    "DEPTH_FORMATS",
    "MAX_PIXELS",
    "DepthFormat",
    "decode_depth_exr",
    "decode_depth_log_png",
    "decode_image",
    "encode_depth_exr",
    "encode_depth_log_png",
    "encode_jpeg",
    "encode_png",
    "exif_focal_px",
    "image_size",
    "log_png_error",
    "png16_scale",
    "read_depth",
    "read_exr",
    "read_image",
    "read_npy",
    "read_pfm",
    "read_ply",
    "read_png16",
    "write_depth_exr",
    "write_depth_log_png",
    "write_depth_npy",
    "write_depth_npz",
    "write_depth_pfm",
    "write_depth_png16",
    "write_glb",
    "write_image",
    "write_ply",
]
