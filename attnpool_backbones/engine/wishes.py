"""What the processes of a training agree on after an iteration: to stop, or to save."""

from mmengine.runner import Runner

from attnpool_backbones.engine.agreement import Agreement

__all__ = ['Wishes', 'wanted_signal']


class Wishes:
    """Makes all processes of a training stop and save at the same iteration.

    Args:
        runner: The starting training.
    """

    def __init__(self, runner: Runner) -> None:
        self.agreement = Agreement(runner.world_size)

    def agreed(self, runner: Runner, due: bool) -> tuple[int, bool]:
        """Returns the signal to stop by and whether it is time to save, the same for all ranks.

        Args:
            runner: The running training.
            due: Whether it is time in this process.
        """
        number, is_due = self.agreement.highest(wanted_signal(runner), int(due))
        return number, bool(is_due)


def wanted_signal(runner: Runner) -> int:
    """Returns the signal that this process got, 0 if there was none."""
    signals = getattr(runner._train_loop, 'signals', None)
    return 0 if signals is None else signals.wanted
