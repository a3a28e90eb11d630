"""Codecs of depth: what is written comes back within the stated error; whatever is damaged is refused."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from expectations import assert_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin

from metricanything.core import codecs
from metricanything.core.errors import InputError

SHARED = Path(__file__).parents[2] / "shared"
FORMATS = list(codecs.DEPTH_FORMATS)
examples = settings(
    deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def room(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Depth with a floor, a noisy wall, a window to the sky and a patch without measurement."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(9, 1.5, height)[:, None] * np.ones((1, width)) * rng.normal(1, 0.01, (height, width))
    depth[:5, 10:20] = np.inf
    depth[20:30, 5:15] = np.nan
    return depth.astype(np.float32)


def assert_same_depth(name: str, result: np.ndarray, depth: np.ndarray) -> None:
    """`result` is `depth` to within what the format promises."""
    entry = codecs.DEPTH_FORMATS[name]
    expected = depth if entry.keeps_inf else np.where(np.isinf(depth), np.float32(np.nan), depth)
    assert result.dtype == np.float32
    assert result.shape == depth.shape
    np.testing.assert_array_equal(np.isposinf(result), np.isposinf(expected))
    bound = entry.max_error(expected)
    # A depth below half a step of a linear code becomes unknown.
    lost = np.isnan(result) & np.isfinite(expected)
    assert (expected[lost] <= bound[lost]).all()
    known = np.isfinite(expected) & ~lost
    np.testing.assert_array_equal(np.isfinite(result), known)
    difference = np.abs(result[known].astype(np.float64) - expected[known])
    assert (difference <= bound[known]).all()


# ---------------------------------------------------------------- depth: every format


@pytest.mark.parametrize("name", FORMATS)
def test_depth_round_trip(tmp_path: Path, name: str) -> None:
    entry, depth = codecs.DEPTH_FORMATS[name], room()
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, depth)
    assert_same_depth(name, codecs.read_depth(path), depth)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", FORMATS)
@examples
@given(
    depth=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(
            st.floats(2**-10, 2**16, width=32), st.just(np.float32(np.nan)), st.just(np.float32(np.inf))
        ),
    )
)
def test_depth_round_trip_of_any_map(tmp_path: Path, name: str, depth: np.ndarray) -> None:
    entry = codecs.DEPTH_FORMATS[name]
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, depth)
    assert_same_depth(name, codecs.read_depth(path), depth)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 65.535, 65.536, 66.0, 655.36, 3.0, 1e-3])
def test_constant_maps(tmp_path: Path, name: str, value: float) -> None:
    entry, depth = codecs.DEPTH_FORMATS[name], np.full((3, 5), value, np.float32)
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, depth)
    assert_same_depth(name, codecs.read_depth(path), depth)


@pytest.mark.parametrize("name", FORMATS)
def test_zero_and_negative_depth_is_unknown(tmp_path: Path, name: str) -> None:
    entry, depth = codecs.DEPTH_FORMATS[name], np.array([[0.0, -1.0, 2.0, -np.inf]], np.float32)
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, depth)
    np.testing.assert_array_equal(np.isnan(codecs.read_depth(path)), [[True, True, False, True]])


@pytest.mark.parametrize("name", FORMATS)
def test_layouts_of_memory_make_no_difference(tmp_path: Path, name: str) -> None:
    entry, depth = codecs.DEPTH_FORMATS[name], room()
    for view in (depth.T, depth[::-1, ::2], depth.astype(np.float64), depth.astype(">f4"), depth[..., None]):
        path = tmp_path / f"depth{entry.suffix}"
        entry.write(path, view)
        assert_same_depth(name, codecs.read_depth(path), view.squeeze().astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_depth_map_is_not_written(tmp_path: Path, name: str) -> None:
    entry = codecs.DEPTH_FORMATS[name]
    for value in (np.ones(4), np.ones((2, 2, 3)), np.ones((0, 4)), np.ones((2, 2), bool), np.array([["a"]])):
        assert_refused(lambda value=value: entry.write(tmp_path / f"depth{entry.suffix}", value), "depth map")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_depth_is_refused_or_whole(tmp_path: Path, name: str) -> None:
    """Cut anywhere, a file is refused; only the last bytes, which may hold no pixel, can be missing unnoticed."""
    entry, depth = codecs.DEPTH_FORMATS[name], room()
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, depth)
    whole, expected = path.read_bytes(), codecs.read_depth(path)
    cuts = {*range(0, min(len(whole), 400), 7), *np.linspace(0, len(whole) - 1, 60).astype(int), len(whole) - 1}
    refused = 0
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        try:
            np.testing.assert_array_equal(codecs.read_depth(path), expected)
            assert cut >= len(whole) - 20
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused >= len(cuts) - 5


@pytest.mark.parametrize("name", FORMATS)
@examples
@given(data=st.binary(max_size=300))
def test_garbage_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / f"depth{codecs.DEPTH_FORMATS[name].suffix}"
    path.write_bytes(data)
    assert_refused(lambda: codecs.read_depth(path), str(path))


@pytest.mark.parametrize("name", FORMATS)
@examples
@given(seed=st.integers(0, 2**32 - 1))
def test_flipped_bytes_raise_nothing_but_input_error(tmp_path: Path, name: str, seed: int) -> None:
    """Formats without a checksum cannot notice every flip; none may crash or raise another type."""
    entry, rng = codecs.DEPTH_FORMATS[name], np.random.default_rng(seed)
    path = tmp_path / f"depth{entry.suffix}"
    entry.write(path, room(8, 9))
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, min(len(content), 400), rng.integers(1, 6)):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    try:
        result = codecs.read_depth(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert result.dtype == np.float32
        assert not (result <= 0).any()


@pytest.mark.parametrize("suffix", sorted({entry.suffix for entry in codecs.DEPTH_FORMATS.values()}))
def test_missing_files_folders_and_empty_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"depth{suffix}"
    assert_refused(lambda: codecs.read_depth(path), str(path), "no such file")
    path.write_bytes(b"")
    assert_refused(lambda: codecs.read_depth(path), str(path))
    (tmp_path / f"folder{suffix}").mkdir()
    assert_refused(lambda: codecs.read_depth(tmp_path / f"folder{suffix}"), f"folder{suffix}")


def test_unknown_suffix_and_bad_scale(tmp_path: Path) -> None:
    assert_refused(lambda: codecs.read_depth(tmp_path / "depth.bmp"), "depth.bmp", ".pfm")
    for scale in (0, -1, np.nan, np.inf):
        assert_refused(lambda scale=scale: codecs.read_depth(tmp_path / "depth.png", scale), "scale")


# ---------------------------------------------------------------- linear PNG


def foreign_png16(path: Path, values: np.ndarray, **text: str) -> None:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    Image.fromarray(values.astype(np.uint16)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("farthest", "scale"), [(5, 1000), (65.535, 1000), (65.54, 256), (255.9, 256), (300, 100), (5000, 10), (65_000, 1)]
)
def test_linear_scale_always_fits(tmp_path: Path, farthest: float, scale: float) -> None:
    depth = np.array([[farthest, 1.0]], np.float32)
    codecs.write_depth_png16(tmp_path / "d.png", depth)
    with Image.open(tmp_path / "d.png") as image:
        assert float(image.info["depth_scale"]) == scale
    np.testing.assert_array_equal(codecs.read_png16(tmp_path / "d.png"), np.round(depth.astype(np.float64) * scale))
    assert codecs.read_depth(tmp_path / "d.png")[0, 0] == pytest.approx(farthest, abs=0.5 / scale + 1e-3)


def test_linear_scale_that_overflows_is_refused(tmp_path: Path) -> None:
    depth = np.array([[65.6, 1.0]], np.float32)
    assert_refused(lambda: codecs.write_depth_png16(tmp_path / "d.png", depth, 1000), "overflows", "256")
    assert_refused(lambda: codecs.write_depth_png16(tmp_path / "d.png", depth * 1e9), "does not fit")
    for scale in (0, -5, np.nan, np.inf):
        assert_refused(lambda scale=scale: codecs.write_depth_png16(tmp_path / "d.png", depth, scale), "scale")
    assert os.listdir(tmp_path) == []


def test_linear_png_of_other_sources(tmp_path: Path) -> None:
    path = tmp_path / "d.png"
    foreign_png16(path, np.array([[0, 1000, 65535]]))
    assert_refused(lambda: codecs.read_depth(path), "scale")
    np.testing.assert_allclose(codecs.read_depth(path, 1000), [[np.nan, 1, 65.535]], rtol=1e-6)
    np.testing.assert_allclose(codecs.read_depth(path, 256), [[np.nan, 1000 / 256, 65535 / 256]], rtol=1e-6)


def test_stated_scale_and_argument_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "d.png"
    codecs.write_depth_png16(path, np.full((2, 2), 3.0), 500)
    assert (codecs.read_depth(path, 500) == 3).all()
    assert_refused(lambda: codecs.read_depth(path, 1000), "500")
    for text in ("", "zero", "0", "-3", "nan", "inf"):
        foreign_png16(path, np.ones((2, 2)), depth_scale=text)
        assert_refused(lambda: codecs.read_depth(path), "depth_scale")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA"])
def test_png_of_other_kinds_is_no_depth(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "d.png")
    assert_refused(lambda: codecs.read_png16(tmp_path / "d.png"), "16-bit", mode)
    assert_refused(lambda: codecs.read_depth(tmp_path / "d.png", 1000), "16-bit")


# ---------------------------------------------------------------- logarithmic PNG


def test_log_png_follows_the_published_layout(tmp_path: Path) -> None:
    """The formula of MoGe's files, stated here a second time, on a file written by plain Pillow."""
    values = np.random.default_rng(0).integers(0, 65536, (20, 30))
    values[0, :3] = 0, 65535, 1
    near, far = 0.37, 812.5
    foreign_png16(tmp_path / "d.png", values, near=str(near), far=str(far))
    t = (values - 1) / 65533
    expected = np.where(values == 0, np.nan, np.where(values == 65535, np.inf, near ** (1 - t) * far**t))
    np.testing.assert_allclose(codecs.read_depth(tmp_path / "d.png"), expected, rtol=1e-6)
    foreign_png16(tmp_path / "u.png", values, near=str(near), far=str(far), unit="2.5")
    np.testing.assert_allclose(codecs.read_depth(tmp_path / "u.png"), 2.5 * expected, rtol=1e-6)
    # And what we write has that layout.
    ours = codecs.encode_depth_log_png(expected)
    with Image.open(io.BytesIO(ours)) as image:
        assert np.asarray(image)[0, :3].tolist()[:2] == [0, 65535]
        v, n, f = np.asarray(image).astype(float), float(image.info["near"]), float(image.info["far"])
    again = np.where(v == 0, np.nan, np.where(v == 65535, np.inf, n ** (1 - (v - 1) / 65533) * f ** ((v - 1) / 65533)))
    np.testing.assert_allclose(again, expected, rtol=1e-4)


@pytest.mark.parametrize(("ratio", "stated"), [(1e3, 5.3e-5), (1e5, 8.8e-5), (1e76, 1.4e-3)])
def test_log_png_error_is_as_stated(ratio: float, stated: float) -> None:
    low = 1e-38 if ratio > 1e6 else 0.1
    depth = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(low * ratio), (100, 100))).astype(np.float32)
    depth[0, :2] = low, low * ratio
    error = np.abs(codecs.decode_depth_log_png(codecs.encode_depth_log_png(depth), "d") / depth.astype(np.float64) - 1)
    assert error.max() <= codecs.log_png_error(depth) <= stated
    assert error.max() > 0.5 * codecs.log_png_error(depth)  # the bound is tight
    assert np.isfinite(error).all()


@pytest.mark.parametrize(
    "text",
    [
        {"near": "1"},
        {"far": "1"},
        {"near": "2", "far": "1"},
        {"near": "0", "far": "1"},
        {"near": "nan", "far": "1"},
        {"near": "1", "far": "inf"},
        {"near": "a", "far": "1"},
        {"near": "1", "far": "2", "unit": "0"},
    ],
)
def test_log_png_with_bad_bounds_is_refused(tmp_path: Path, text: dict[str, str]) -> None:
    foreign_png16(tmp_path / "d.png", np.ones((2, 2)), **text)
    assert_refused(lambda: codecs.read_depth(tmp_path / "d.png"), "d.png", "write the file again")


def test_log_png_takes_no_scale_and_linear_png_is_not_log(tmp_path: Path) -> None:
    codecs.write_depth_log_png(tmp_path / "log.png", room())
    assert_refused(lambda: codecs.read_depth(tmp_path / "log.png", 1000), "leave the scale or unit out")
    codecs.write_depth_png16(tmp_path / "lin.png", room())
    assert_refused(lambda: codecs.decode_depth_log_png((tmp_path / "lin.png").read_bytes(), "lin.png"), "near")


def test_real_depth_survives_the_log_code() -> None:
    folder = SHARED / "data" / "train"
    if not folder.exists():
        pytest.skip("needs the development data in shared/data")
    for source in sorted(folder.iterdir()):
        with Image.open(sorted(source.glob("*/depth.png"))[0]) as image:
            values = np.asarray(image).astype(np.float32)
        depth = np.where(values > 0, values / 1000, np.nan).astype(np.float32)
        result = codecs.decode_depth_log_png(codecs.encode_depth_log_png(depth), source.name)
        assert_same_depth("log-png16", result, depth)


# ---------------------------------------------------------------- npy, npz, EXR, PFM of other sources


def test_npy_of_other_sources(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    np.save(path, np.array([[0, 1500]], np.uint16))
    assert_refused(lambda: codecs.read_depth(path), "scale")
    np.testing.assert_allclose(codecs.read_depth(path, 1000), [[np.nan, 1.5]])
    np.save(path, np.array([[1500.0]]))
    assert codecs.read_depth(path)[0, 0] == 1500
    assert codecs.read_depth(path, 1000)[0, 0] == 1.5
    np.save(path, np.asfortranarray(room().astype(">f8")))
    np.testing.assert_array_equal(codecs.read_depth(path), room())
    np.save(path, room()[..., None])  # as DIODE stores it
    np.testing.assert_array_equal(codecs.read_depth(path), room())


def test_npy_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.save(tmp_path / "d.npy", np.array([[Trap()]], object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", depth=np.array([[Trap()]], object))
    for name in ("d.npy", "d.npz"):
        assert_refused(lambda name=name: codecs.read_depth(tmp_path / name), name)
    assert not (tmp_path / "sprung").exists()


def test_npz_with_several_arrays(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, a=room(), b=room())
    assert_refused(lambda: codecs.read_depth(path), "depth")
    np.savez(path, a=room() + 1, depth=room())
    np.testing.assert_array_equal(codecs.read_depth(path), room())
    np.savez(path, points=room())
    np.testing.assert_array_equal(codecs.read_depth(path), room())
    with zipfile.ZipFile(path, "w"):
        pass
    assert_refused(lambda: codecs.read_depth(path), "d.npz")


def forged_npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def test_forged_sizes_are_refused_before_allocation(tmp_path: Path) -> None:
    """Each header promises far more pixels than memory holds."""
    for shape in ("(1000000, 1000000)", "(13000, 13000)", "(-1, 4)", "(0, 4)"):
        (tmp_path / "d.npy").write_bytes(forged_npy(shape) + bytes(64))
        assert_refused(lambda: codecs.read_depth(tmp_path / "d.npy"), "d.npy")
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
            archive.writestr("depth.npy", forged_npy(shape) + bytes(64))
        assert_refused(lambda: codecs.read_depth(tmp_path / "d.npz"), "d.npz")
    for size in ("999999999 999999999", "13000 13000", "0 4"):
        (tmp_path / "d.pfm").write_bytes(f"Pf\n{size}\n-1\n".encode() + bytes(64))
        assert_refused(lambda: codecs.read_depth(tmp_path / "d.pfm"), "d.pfm")
    header = struct.pack(">IIBBBBB", 60000, 60000, 16, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "d.png").write_bytes(bomb)
    assert_refused(lambda: codecs.read_depth(tmp_path / "d.png", 1000), "d.png")
    assert_refused(lambda: codecs.read_image(tmp_path / "d.png"), "d.png")


def test_size_limit_is_our_own_when_pillow_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    assert_refused(lambda: codecs.read_image(tmp_path / "huge.png"), "20000x10000", "resize")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [(["Z", "R"], "Z"), (["A", "Y"], "Y"), (["V"], "V"), (["B", "G", "R"], "R"), (["depth"], "depth")],
)
def test_exr_channel_names(tmp_path: Path, names: list[str], chosen: str) -> None:
    import OpenEXR

    for prefix in ("", "view."):
        channels = {
            prefix + name: np.full((3, 4), 2.0 if name == chosen else 5.0, np.float16 if prefix else np.float32)
            for name in names
        }
        with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels) as file:
            file.write(str(tmp_path / "d.exr"))
        assert (codecs.read_depth(tmp_path / "d.exr") == 2).all()


def test_pfm_of_other_sources(tmp_path: Path) -> None:
    path = tmp_path / "d.pfm"
    values = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    for scale, order in ((b"1.0", ">f4"), (b"-1", "<f4"), (b"-0.003922", "<f4")):
        path.write_bytes(b"Pf\n3 2\n" + scale + b"\n" + values[::-1].astype(order).tobytes())
        np.testing.assert_array_equal(codecs.read_depth(path), values)
    path.write_bytes(b"PF\n1 1\n-1\n" + bytes(12))
    assert_refused(lambda: codecs.read_depth(path), "colour")
    path.write_bytes(b"Pf\n1 1\n-1e\n" + bytes(4))
    assert_refused(lambda: codecs.read_depth(path), "d.pfm")


@pytest.mark.parametrize("step", [0.0, 0.01])
def test_log_png_of_smooth_and_of_quantised_depth(step: float) -> None:
    """Quantised maps are stored without PNG's filters; Pillow reads either, and the codes are those of the depth."""
    depth = (2 + np.add.outer(np.arange(150) / 17, np.arange(200) / 31) ** 1.3).astype(np.float32)
    if step:
        depth = (np.round(depth / step) * step).astype(np.float32)
    depth[:5], depth[-5:] = np.nan, np.inf
    data = codecs.encode_depth_log_png(depth)
    rows = zlib.decompress(b"".join(_chunks(data, b"IDAT")))
    assert (set(rows[:: 1 + 2 * 200]) == {0}) == bool(step)
    with Image.open(io.BytesIO(data)) as image:
        values = np.asarray(image)
    codes, table = codecs.decode_depth_log_codes(data, "x")
    np.testing.assert_array_equal(codes, values)
    np.testing.assert_array_equal(table[codes], codecs.decode_depth_log_png(data, "x"))
    assert (np.diff(table[1:65535]) >= 0).all()
    np.testing.assert_allclose(table[codes], depth, rtol=codecs.log_png_error(depth))


def _chunks(data: bytes, kind: bytes) -> list[bytes]:
    """The contents of a PNG's chunks of one kind."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind:
            found.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return found
