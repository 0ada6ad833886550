"""What a person reads, in a terminal and in a log file."""

import io

from rich.console import Console

from maskrcnn_jax.training.display import Display, counter

METRICS = {
    "loss": 2.5,
    "loss_cls": 0.5,
    "loss_box_reg": 0.25,
    "loss_mask": 0.75,
    "loss_rpn_cls": 0.625,
    "loss_rpn_loc": 0.375,
}


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, color_system=None)


def text(console):
    return console.file.getvalue()


def test_without_a_terminal_each_log_step_is_a_line():
    out = console(False)
    with Display(out, 10, 40) as display:
        display.update(20, METRICS, 3.5, 0.01)
        display.update(40, METRICS, 4.0, 0.25)
    lines = text(out).splitlines()
    assert len(lines) == 2 and lines[0].startswith(
        "step 20/40  loss 2.500  class 0.500  box 0.250  mask 0.750"
    )
    assert "rpn 0.625  rpn box 0.375  3.5 images/s" in lines[0] and lines[1].endswith("0.0 min left")
    assert "waiting" not in lines[0] and "4.0 images/s  25% of it waiting for data" in lines[1]


def test_in_a_terminal_a_bar_shows_losses_and_speed():
    out = console(True)
    with Display(out, 0, 40) as display:
        display.update(20, METRICS, 3.5, 0.01)
    assert "compiling" in text(out) and "20/40" in text(out) and "mask 0.750" in text(out)
    assert "min left" not in text(out)


def test_a_count_shows_inside_the_bar_of_the_training():
    out = console(True)
    with Display(out, 0, 40), counter(out, "evaluating") as progress:
        progress(3, 5)
    assert "evaluating" in text(out) and "3/5" in text(out)


def test_a_count_is_silent_without_a_terminal():
    out = console(False)
    with counter(out, "evaluating") as progress:
        progress(3, 5)
    assert text(out) == ""
