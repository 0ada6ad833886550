"""Bundles come back bit for bit, and a damaged one says what is wrong with which file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.interop import bundle
from maskrcnn_jax.interop.bundle import BundleError, load_bundle, read_about, save_bundle
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest


@pytest.fixture(scope="module")
def config():
    return MaskRCNNConfig(
        num_classes=2,
        test_resize=(96, 128),
        backbone=BackboneConfig(depth=18, last_stage=2, stem_channels=4, res2_channels=4),
        rpn=RPNConfig(anchor_sizes=((8,),)),
        roi=RoIConfig(mask_channels=4),
    )


@pytest.fixture
def params(config, rng):
    shapes = expected_shapes(config)
    return nest({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})


@pytest.fixture
def saved(tmp_path, config, params):
    save_bundle(tmp_path / "deep" / "bundle", config, params)
    return tmp_path / "deep" / "bundle"


def edit_header(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype and a[path].shape == b[path].shape
        assert a[path].tobytes() == b[path].tobytes(), path


def test_round_trip_is_bit_identical(saved, config, params):
    loaded_config, loaded = load_bundle(saved)
    assert loaded_config == config
    assert_same(loaded, params)


def test_any_float32_comes_back(tmp_path, config, params):
    """Subnormals, a negative zero, JAX arrays and transposed views."""
    params["rpn"]["deltas"]["bias"][:3] = [1e-42, -0.0, 3.4e38]
    params["rpn"]["objectness"]["bias"] = jnp.zeros(3)
    params["rpn"]["conv"]["kernel"] = params["rpn"]["conv"]["kernel"].transpose(1, 0, 3, 2)
    save_bundle(tmp_path / "b", config, params)
    assert_same(load_bundle(tmp_path / "b")[1], params)


def test_whoever_may_read_the_config_may_read_the_weights(saved):
    modes = {path.stat().st_mode for path in saved.iterdir()}
    assert len(modes) == 1


def test_saving_again_replaces_and_leaves_nothing_behind(saved, config, params):
    params["rpn"]["conv"]["bias"] = np.ones(4, np.float32)
    save_bundle(saved, config, params)
    assert load_bundle(saved)[1]["rpn"]["conv"]["bias"].tolist() == [1] * 4
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("crash", ["save_file", "_swap"])
def test_a_crash_while_saving_keeps_the_old_bundle(saved, config, params, monkeypatch, crash):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(bundle, crash, full)
    with pytest.raises(OSError, match="no space"):
        save_bundle(saved, config, jax.tree.map(np.zeros_like, params))
    assert_same(load_bundle(saved)[1], params)
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


def test_a_failed_rename_puts_the_old_bundle_back(saved, config, params, tmp_path):
    with pytest.raises(FileNotFoundError):
        bundle._swap(tmp_path / "absent", saved)
    assert_same(load_bundle(saved)[1], params)


def test_a_folder_with_other_files_is_not_replaced(tmp_path, config, params):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        save_bundle(tmp_path, config, params)
    assert (tmp_path / "thesis.txt").exists()


def test_unfit_parameters_are_all_named_before_anything_is_written(tmp_path, config, params):
    params["rpn"]["conv"]["bias"][1:3] = [np.nan, np.inf]
    params["rpn"]["deltas"]["bias"] = np.zeros(7, np.float32)
    params["extra"] = np.zeros(1, np.float32)
    del params["rpn"]["objectness"]
    with pytest.raises(BundleError) as error:
        save_bundle(tmp_path / "b", config, params)
    assert str(error.value).splitlines()[1:] == [
        "  rpn/conv/bias: 2 of 4 values are not finite",
        "  rpn/objectness/bias: missing, shape (3,)",
        "  rpn/objectness/kernel: missing, shape (1, 1, 4, 3)",
        "  extra: unexpected, shape (1,)",
        "  rpn/deltas/bias: shape (7,) where the config asks for (12,)",
    ]
    assert not list(tmp_path.iterdir())


def test_other_dtypes_are_refused(tmp_path, config, params):
    params["rpn"]["conv"]["bias"] = jnp.zeros(4, jnp.bfloat16)
    with pytest.raises(BundleError, match="rpn/conv/bias: bfloat16, not float32"):
        save_bundle(tmp_path / "b", config, params)


def test_weights_that_do_not_fit_the_config(saved, config):
    values = config.to_dict()
    values["num_classes"] = 3
    edit_header(saved, config=values)
    pattern = r"(?s)does not fit config\.json.*bbox_pred/bias: shape \(8,\) where the config asks for \(12,\)"
    with pytest.raises(BundleError, match=pattern):
        load_bundle(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(BundleError, match=f"{name} not found"):
        load_bundle(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"nowhere is no bundle: config.json and model.safetensors"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("length", [0, 7, 8, 50, -1])
def test_truncated_weights(saved, length):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged or cut short"):
        load_bundle(saved)


def test_one_flipped_bit_is_found(saved):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="sha256 differs"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"format": "maskrcnn', b"\xff\xfe\x00", b"[" * 9999, b'{"a":' * 9999]
)
def test_damaged_header(saved, text):
    (saved / "config.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"config\.json is damaged"):
        load_bundle(saved)


def test_another_json_is_no_bundle(saved):
    (saved / "config.json").write_text("[1, 2]")
    with pytest.raises(BundleError, match="of another kind"):
        load_bundle(saved)


def test_a_newer_version_asks_for_an_upgrade(saved):
    edit_header(saved, version=bundle.VERSION + 1, package="9.9.9")
    with pytest.raises(
        BundleError,
        match=rf"version {bundle.VERSION + 1}, written by maskrcnn_jax 9\.9\.9.*upgrade maskrcnn_jax",
    ):
        load_bundle(saved)


@pytest.mark.parametrize("version", [None, "1", 0, True])
def test_a_version_that_is_none(saved, version):
    edit_header(saved, version=version)
    with pytest.raises(BundleError, match="is no positive number"):
        load_bundle(saved)


def test_a_header_without_config_and_digest(saved):
    edit_header(saved, config=None, sha256=1)
    with pytest.raises(BundleError, match="config and sha256 missing or of another type"):
        load_bundle(saved)


def test_config_faults_name_their_fields(saved, config):
    values = config.to_dict()
    values["num_clases"] = values.pop("num_classes")
    values["backbone"] = BackboneConfig().__dict__ | {"depth": "50"}
    edit_header(saved, config=values)
    with pytest.raises(
        BundleError, match=r"(?s)config\.json.*num_clases: unknown.*num_classes.*backbone\.depth"
    ):
        load_bundle(saved)


def test_all_but_variances_is_rounded_once_in_half_precision_and_takes_half_the_room(
    tmp_path, config, params
):
    save_bundle(tmp_path / "whole", config, params)
    save_bundle(tmp_path / "half", config, params, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    given, loaded = flatten(params), flatten(load_bundle(tmp_path / "half")[1])
    for path, array in given.items():
        expected = array if path.endswith("/var") else array.astype(np.float16).astype(np.float32)
        assert loaded[path].dtype == np.float32
        np.testing.assert_array_equal(loaded[path], expected)


def test_a_value_too_large_for_half_precision_is_named(tmp_path, config, params):
    params["rpn"]["conv"]["kernel"][0, 0, 0, 0] = 7e4
    with pytest.raises(BundleError, match=r"rpn/conv/kernel: 1 of \d+ values are not finite"):
        save_bundle(tmp_path / "b", config, params, half=True)
    assert not (tmp_path / "b").exists()


def test_what_the_maker_says_comes_back(tmp_path, config, params, saved):
    assert read_about(saved) == {}
    save_bundle(saved, config, params, about={"licence": "CC0", "metrics": {"AJI": 0.6}})
    assert read_about(saved) == {"licence": "CC0", "metrics": {"AJI": 0.6}}
    edit_header(saved, about="text")
    with pytest.raises(BundleError, match="about missing or of another type"):
        read_about(saved)


def test_a_bundle_of_the_first_version_is_read(saved, params):
    header = json.loads((saved / "config.json").read_text())
    del header["about"]
    (saved / "config.json").write_text(json.dumps(header | {"version": 1}))
    assert_same(load_bundle(saved)[1], params)
    assert read_about(saved) == {}
