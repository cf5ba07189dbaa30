"""What a finished quickstart changes in the README and in ``docs/quickstart``."""

import io
from pathlib import Path

from PIL import Image

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.experiments.quickstart import PICTURES
from attnpool_backbones.markdown import replace_section

__all__ = ['publish']

WIDTH = 1200
"""Greatest width of a published picture, in pixels."""
CAPTIONS = {
    'detection': 'Detections of a Mask R-CNN',
    'segmentation': 'Segmentation by a UperNet',
    'pooling': "Attention pooling: where the detector's class tokens attend, each in its colour",
    'query': 'What a pixel of a CoAtNet attends to: all, the static and the adaptive part',
    'collapse': "How alike the attention maps of DeepViT's blocks are, plain and re-attended",
    'gates': 'Norms of the features before and after SGE',
}
"""Picture -> what it shows."""
READING = """\
The detector carries an [image-level head](../attention_pooling.md): one class token per digit
learns, beside the main losses, which digits a scene has. "tag mAP" is its mean average precision,
"pointing" how often the peak of a token's attention lies in a box of its digit, "mask IoU" the
overlap of the attention above the best threshold with the digit's masks. The rows "frozen maps"
compare, on the trained detector's last map and from image-level labels alone, attention pooling
with average pooling and its class activation maps (CAM, Grad-CAM); the detector was trained with
attention pooling, which may favour it there. The last three pictures are of
nano backbones that learned single digits for a hundred steps; `attnpool figure` draws them.
"""


def publish(work_dir: Path, root: Path) -> None:
    """Puts table and pictures of a finished run into the README and ``docs/quickstart``.

    Args:
        work_dir: Of :func:`~attnpool_backbones.experiments.quickstart.run`.
        root: Of the clone.

    Raises:
        UserError: One of the pages has no place for them.
    """
    readme, folder = root / 'README.md', root / 'docs' / 'quickstart'
    replace_section(readme, 'quickstart', (work_dir / 'results.md').read_text(encoding='utf-8'))
    replace_section(readme, 'gallery', gallery())
    replace_section(folder / 'README.md', 'pictures', page())
    for name in PICTURES:
        write_atomically(small_picture(work_dir / name), folder / published(name))
    for old in folder.glob('*.png'):  # of earlier versions
        old.unlink()


def gallery() -> str:
    """Returns the README's table of pictures, two in a row."""
    names = [Path(name).stem for name in PICTURES]
    lines = ['| | |\n', '|---|---|\n']
    for pair in zip(names[::2], names[1::2], strict=True):
        cells = [f'![{name}](docs/quickstart/{name}.jpg)<br>{CAPTIONS[name]}' for name in pair]
        lines += [f'| {" | ".join(cells)} |\n']
    return ''.join(lines)


def page() -> str:
    """Returns how to read the table, and the pictures one below the other."""
    names = [Path(name).stem for name in PICTURES]
    return '\n'.join([READING, *(f'![{CAPTIONS[name]}]({name}.jpg)\n' for name in names)])


def published(name: str) -> str:
    """Returns the name under which a picture is published."""
    return Path(name).with_suffix('.jpg').name


def small_picture(path: Path) -> bytes:
    """Returns a picture as JPEG, not wider than :data:`WIDTH`."""
    picture = Image.open(path).convert('RGB')
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.LANCZOS)
    content = io.BytesIO()
    picture.save(content, 'JPEG', quality=82, optimize=True)
    return content.getvalue()
