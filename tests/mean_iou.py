"""The metric of segmentation, computed from the files that a test run writes."""

from pathlib import Path

import numpy as np
from PIL import Image


def mean_iou(predicted: Path, truth: Path, classes: range, ignored: int) -> float:
    """Returns the mean IoU of label maps, in percent, over the classes that occur.

    Args:
        predicted: Folder of the predicted maps.
        truth: Folder of the annotated ones, of the same names and sizes.
        classes: Values of the classes.
        ignored: Annotated value that does not count.
    """
    intersections, unions = np.zeros(len(classes)), np.zeros(len(classes))
    files = sorted(predicted.glob('*.png'))
    assert [file.name for file in files] == sorted(file.name for file in truth.glob('*.png'))
    for file in files:
        ours, theirs = (np.asarray(Image.open(f)) for f in (file, truth / file.name))
        assert ours.shape == theirs.shape
        counted = theirs != ignored
        for i, value in enumerate(classes):
            a, b = (ours == value) & counted, (theirs == value) & counted
            intersections[i] += (a & b).sum()
            unions[i] += (a | b).sum()
    assert intersections.any()  # else any two maps would have the same metric
    return 100 * float((intersections[unions > 0] / unions[unions > 0]).mean())
