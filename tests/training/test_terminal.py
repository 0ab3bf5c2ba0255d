"""What a run looks like on a terminal of 80 columns: read from one, as it is shown."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import fcntl, sys, termios, time
# the terminal whose Ctrl-C this program hears; set here, since JAX warns of code between fork and exec
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
import pcx.training as pxt
from tests.training.helpers import LeastSquares, regression

class Slow(LeastSquares):
    def train_step(self, x, y):
        time.sleep({pause})
        return super().train_step(x, y)

callbacks = [pxt.Checkpoint(sys.argv[1])] if sys.argv[1:] else []
trainer = pxt.Trainer(Slow(), callbacks, log_every=2{options})
trainer.fit(pxt.batches(*regression(40), 4), {epochs}, val=[regression()])
print("after")
"""


def on_a_terminal(program, *arguments, interrupt=None):
    """All that a program writes to a terminal of 80 columns, and its exit status.

    Args:
        interrupt: a text; when it appears, Ctrl-C is typed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        # Python 3.13 has colours inside its last line
        env={**environment, "TERM": "xterm", "PYTHON_COLORS": "0", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
        if interrupt is not None and interrupt.encode() in seen:
            os.write(ours, b"\x03")
            interrupt = None
    os.close(ours)
    return seen.decode(), process.wait(10)


def drawn(text):
    """Every state of every line, in order, without the codes that move the cursor."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "\r", text)
    return [part.rstrip() for part in re.split(r"[\r\n]+", text) if part.strip()]


def test_a_line_stays_for_each_epoch_validation_first_and_nothing_is_cut():
    program = PROGRAM.format(pause=0.02, options="", epochs=2)
    text, status = on_a_terminal(program)
    assert status == 0, text
    parts = drawn(text)
    assert max(map(len, parts)) <= 80
    lines = [p for p in parts if re.match(r"epoch \d/2  ", p)]
    number = r"\d\S*"
    pattern = (
        rf"epoch \d/2  val_accuracy {number}%  accuracy {number}%  energy {number}  {number} s"
    )
    assert len(lines) == 2
    assert [line for line in lines if not re.fullmatch(pattern, line)] == []
    # while an epoch runs: how far it is, and the means so far, whole
    running = [p for p in parts if p.startswith("epoch 2: ")]
    assert re.search(rf"\d+/10 \[\S+, accuracy {number}%  energy {number}$", running[-1])
    assert any(p.startswith("epochs:  50%") for p in parts)
    assert parts[-1] == "after"


@pytest.mark.slow
def test_many_metrics_are_continued_on_the_next_line():
    names = [f"metric_number_{n}" for n in range(4)]
    metric = "lambda p, y: (p[:, 0] - y[:, 0]) ** 2"
    options = f", metrics={{{', '.join(f'{n!r}: {metric}' for n in names)}}}"
    text, status = on_a_terminal(PROGRAM.format(pause=0.01, options=options, epochs=1))
    assert status == 0, text
    parts = drawn(text)
    assert max(map(len, parts)) <= 80
    start = max(i for i, p in enumerate(parts) if p.startswith("epoch 1/1  val_"))
    whole = " ".join(parts[start:-1])
    for name in names:
        assert re.search(rf"val_{name} \d\S*", whole)
        assert re.search(rf" {name} \d\S*", whole)


@pytest.mark.parametrize("checkpoint", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ctrl_c_says_how_far_training_came_and_how_to_go_on(tmp_path, checkpoint):
    path = tmp_path / "run.npz"
    program = PROGRAM.format(pause=0.02, options="", epochs=50)
    text, status = on_a_terminal(program, *[path] * checkpoint, interrupt="epoch  2/50")
    assert status == -2  # a shell sees that the program was interrupted
    assert "after" not in drawn(text)
    lines = [line for line in text.splitlines() if line.strip()]
    last = next(i for i, line in enumerate(lines) if "KeyboardInterrupt: " in line)
    message = " ".join(line.strip() for line in lines[last:])
    found = re.search(r"Ctrl-C in epoch (\d+) of 50, after (\d+) training steps\.", message)
    assert found, message
    epoch, steps = map(int, found.groups())
    # an epoch has ten batches
    assert (epoch - 1) * 10 <= steps <= epoch * 10
    if checkpoint:
        assert f"{path} holds epoch {epoch - 1}:" in message.replace("\r", "")
        assert "`fit(..., resume=True)` with the same arguments goes on from there" in message
        assert path.exists()
    else:
        assert 'Nothing was saved. With the callback `pxt.Checkpoint("run.npz")`' in message
    # the user's line and ours, not the way through the trainer
    assert text.count("  File ") == 2
