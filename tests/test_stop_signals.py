"""What child processes make of signals that a training or a prediction catches."""

import os
import signal
import time

import pytest

from attnpool_backbones.stop_signals import Interruption, StopSignals


@pytest.mark.parametrize('kind', [StopSignals, Interruption])
def test_children_that_have_not_run_yet_end_by_sigterm(kind):
    children = []
    with kind() as signals:
        for _ in range(10):
            child = os.fork()
            if not child:
                time.sleep(2)
                os._exit(0)
            os.kill(child, signal.SIGTERM)  # as a pool that is done
            children.append(child)
        ends = [os.waitpid(child, 0)[1] for child in children]
        assert not signals.received
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert ends == [signal.SIGTERM] * 10
