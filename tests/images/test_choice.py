"""What is cut out of arrays of many axes is what NumPy's indexing gives; what is ambiguous is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_jax.images.choice import ALL, Choice, ChoiceError, View


@st.composite
def stacks(draw):
    """An array with rows and columns at the end or anywhere, channels, and two other axes."""
    axes = "".join(draw(st.permutations("TZCYX")))
    shape = [draw(st.integers(1, 3)) for _ in axes]
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), axes


@given(stacks(), st.data())
def test_planes_and_channels_of_any_stack(stack, data):
    values, axes = stack
    order = [*"YXC", *sorted("TZ", key=axes.index)]
    ordered = values.transpose([axes.index(a) for a in order])
    flat = ordered.reshape(*ordered.shape[:3], -1)
    channel = st.integers(0, flat.shape[2] - 1)
    channels = data.draw(st.tuples(channel) | st.tuples(channel, channel, channel))
    plane = data.draw(st.integers(0, flat.shape[3] - 1) | st.sampled_from(["max", "mean"]))
    if flat.shape[2] == 1 and flat.shape[3] > 1:  # Then planes could be meant by the channels.
        channels = None
    found = View(values, axes, Choice(channels, plane)).read(0, 0, *flat.shape[:2])
    expected = {"max": flat.max(3), "mean": np.rint(flat.mean(3))}.get(plane)
    expected = flat[..., plane] if expected is None else expected
    expected = (
        expected[..., channels] if channels and len(channels) > 1 else expected[..., (channels or [0])[0]]
    )
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == values.dtype


def test_windows_and_colour(rng):
    colour = rng.integers(0, 99, (5, 7, 4))
    view = View(colour, "YXS")
    assert view.size == (5, 7) and view.colour
    np.testing.assert_array_equal(view.read(1, 2, 3, 4), colour[1:4, 2:6, :3])
    np.testing.assert_array_equal(View(colour.transpose(2, 0, 1), "SYX").read(0, 0, 5, 7), colour[..., :3])
    np.testing.assert_array_equal(View(colour, "YXS", Choice((2,))).read(0, 0, 5, 7), colour[..., 2])


def test_axes_of_one_need_no_choice(rng):
    values = rng.integers(0, 99, (1, 1, 5, 7))
    np.testing.assert_array_equal(View(values, "CZYX").read(0, 0, 5, 7), values[0, 0])


def test_a_channel_of_a_stack_whose_axis_has_no_name(rng):
    values = rng.integers(0, 99, (4, 5, 7))
    found = View(values, "QYX", Choice((3, 1, 0))).read(0, 0, 5, 7)
    np.testing.assert_array_equal(found, np.moveaxis(values[[3, 1, 0]], 0, 2))


@pytest.mark.parametrize(
    ("axes", "shape", "choice", "message"),
    [
        ("CYX", (4, 5, 6), ALL, r"4 channels \(axes CYX, 4 x 5 x 6\); choose --channel N.*from 0 to 3"),
        (
            "ZYX",
            (4, 5, 6),
            ALL,
            r"4 planes \(axes ZYX, 4 x 5 x 6\); choose --plane N from 0 to 3, max",
        ),
        ("TZYX", (4, 2, 5, 6), ALL, "8 planes"),
        ("CZYX", (4, 2, 5, 6), ALL, "4 channels and 2 planes .*--channel .* and --plane .*data.channel"),
        ("CZYX", (4, 2, 5, 6), Choice((0,)), "2 planes"),
        ("CYX", (4, 5, 6), Choice((4,)), "holds 4 channels, channel 4 is chosen; choose from 0 to 3"),
        ("ZYX", (4, 5, 6), Choice(plane=9), "holds 4 planes, plane 9 is chosen"),
        ("YX", (5, 6), Choice((1,)), "holds 1 channel, channel 1 is chosen"),
        ("YX", (5, 6), Choice(plane=1), "holds 1 plane, plane 1"),
        ("YXS", (5, 6, 5), ALL, "5 channels"),
    ],
)
def test_what_must_be_chosen_or_is_not_there(axes, shape, choice, message):
    with pytest.raises(ChoiceError, match=message):
        View(np.zeros(shape), axes, choice)


def test_what_people_write():
    assert Choice.parse() == ALL
    assert Choice.parse(channel="2", plane="max", series="1") == Choice((2,), "max", 1)
    assert Choice.parse(channel="2, 0,1", plane="7") == Choice((2, 0, 1), 7)
    for wrong in ({"channel": "1,2"}, {"channel": "-1"}, {"plane": "min"}, {"series": "x"}, {"plane": "1.5"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Choice.parse(**wrong)


def test_plain_pictures(rng):
    colour = rng.integers(0, 255, (5, 6, 3))
    assert ALL.of_plain(colour) is colour
    np.testing.assert_array_equal(Choice((1,), "max", 0).of_plain(colour), colour[..., [1, 1, 1]])
    np.testing.assert_array_equal(Choice((2, 1, 0)).of_plain(colour), colour[..., ::-1])
    for wrong in (Choice(plane=1), Choice(series=1), Choice((3,))):
        with pytest.raises(ChoiceError):
            wrong.of_plain(colour)
