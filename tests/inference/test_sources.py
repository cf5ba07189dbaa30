import http.server
import io
import os
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.limits import InputTooLarge
from attnpool_backbones.inference.movie_header import shown_seconds
from attnpool_backbones.inference.sources import open_source


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for value, name in enumerate(['b.png', 'a.JPG', 'more/c.png']):
        cv2.imwrite(str(folder / name), np.full((8, 10, 3), value * 40, np.uint8))
    (folder / 'notes.txt').write_text('x')
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'film.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (32, 24))
    for value in range(6):
        writer.write(np.full((24, 32, 3), value * 40, np.uint8))
    writer.release()
    return path


def names(source) -> list[str]:
    return [frame.name for frame in source.frames]


def test_folder_pattern_and_file(photos):
    source = open_source(photos)
    assert source.count == 3 and source.rate is None
    assert names(source) == ['a.JPG', 'b.png', 'more/c.png']
    assert names(open_source(str(photos / '*.png'))) == ['b.png']
    assert names(open_source(str(photos / '**/*.png'))) == ['b.png', 'more/c.png']
    (frame,) = open_source(photos / 'b.png').frames
    assert frame.read().shape == (8, 10, 3)


def test_brackets_in_the_names_of_folders_are_no_pattern(photos, monkeypatch):
    folder = photos.rename(photos.with_name('photos [2020]'))
    monkeypatch.chdir(folder.parent)
    for root in (folder.name, folder):
        assert names(open_source(f'{root}/*.png')) == ['b.png']
        assert names(open_source(f'{root}/**/[a-c].png')) == ['b.png', 'more/c.png']
    assert names(open_source('ph[n-p]t*/b.png')) == ['b.png']


def test_linked_folders_are_walked_once(photos, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (photos / 'b.png').rename(tmp_path / 'elsewhere/b.png')
    (photos / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(photos)  # a loop
    (photos / 'folder.png').mkdir()
    assert names(open_source(photos)) == ['a.JPG', 'link/b.png', 'more/c.png']


def test_folders_have_their_own_names_before_those_of_links(tmp_path):
    photos, elsewhere = tmp_path / 'photos', tmp_path / 'elsewhere'
    for folder in (photos / 'day1', photos / 'day2/late', elsewhere / 'inner'):
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / 'x.png'), np.zeros((8, 10, 3), np.uint8))
    (photos / 'current').symlink_to('day2')
    (photos / 'day1/all').symlink_to(photos)
    (photos / 'also').symlink_to(elsewhere)
    (elsewhere / 'again').symlink_to('inner')
    expected = ['also/inner/x.png', 'day1/x.png', 'day2/late/x.png']
    assert names(open_source(photos)) == expected


def test_folders_that_cannot_be_read_are_told(photos, close_folders):
    close_folders('more')
    source = open_source(photos)
    assert source.count == 2 and names(source) == ['a.JPG', 'b.png']
    assert source.closed == [f'more: {photos}/more cannot be read: Permission denied']


def test_arrays_and_lists(photos):
    array = np.zeros((4, 5, 3), np.uint8)
    (frame,) = open_source(array).frames
    assert frame.read() is array
    assert names(open_source([array, photos / 'b.png'])) == ['000000', 'b.png']
    with pytest.raises(UserError, match=r'shape \(4, 5\)'):
        open_source(array[..., 0])
    assert names(open_source([])) == []


def test_images_of_a_list_that_have_one_name_are_told_apart(photos):
    (photos / 'sub').mkdir(exist_ok=True)
    other = photos / 'sub' / 'b.png'
    other.write_bytes((photos / 'b.png').read_bytes())
    source = open_source([str(photos / 'b.png'), other])
    assert source.files == {photos / 'b.png': 'b.png', other: 'sub/b.png'}
    assert names(source) == ['b.png', 'sub/b.png']


@pytest.mark.parametrize(
    'source, words',
    [
        (iter([]), 'list_iterator is no source; in Python a source is a name, an array H, W, 3'),
        ([None], 'NoneType is no source'),
        ([b'photos/b.png'], 'bytes is no source'),
        (np.zeros((0, 5, 3), np.uint8), r'an array of shape \(0, 5, 3\)'),
        (['film.mp4'], r'film\.mp4: a video in a list; videos are predicted on one by one'),
    ],
)
def test_objects_that_are_no_source_are_told(source, words, video, monkeypatch):
    monkeypatch.chdir(video.parent)
    with pytest.raises(UserError, match=words):
        open_source(source)


def test_files_that_are_no_images_are_counted(tmp_path):
    for name in ('a.png', 'B.HEIC', 'c.heic', 'film.mp4', 'README', '.hidden'):
        (tmp_path / name).touch()
    for source in (tmp_path, tmp_path / '*'):
        assert open_source(source).others == {'.heic': 2, '.mp4': 1, '': 1}


def test_video_tells_frames_and_rate(video):
    source = open_source(video)
    assert (source.count, source.rate) == (6, 10)
    frames = list(source.frames)
    assert [frame.name for frame in frames] == [f'{i:06d}' for i in range(6)]
    # each keeps its own picture
    assert np.all(np.diff([frame.read().mean() for frame in frames]) > 20)


def cut_video(path: Path, frames: int = 60) -> Path:
    """Writes a video of which the second half is missing, with a header that tells the whole."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 24))
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    for _ in range(frames):
        writer.write(noise)
    writer.release()
    os.truncate(path, path.stat().st_size // 2)
    return path


def test_a_video_that_breaks_off_is_told(tmp_path):
    source = open_source(cut_video(tmp_path / 'film.avi'))
    frames = list(source.frames)
    assert source.count == 60 and 10 < len(frames) < 50
    assert all(frame.read() is not None for frame in frames)
    (told,) = source.closed
    assert f'film.avi: only {len(frames)} of 60 frames can be read' in told


@pytest.mark.parametrize('told', [3000, 6000])
def test_a_video_that_was_trimmed_is_whole(tmp_path, told):
    path = tmp_path / 'film.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (32, 24))
    for _ in range(60):
        writer.write(np.zeros((24, 32, 3), np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    # one entry of an edit list: milliseconds that are shown, and the first one in 1/10240 seconds
    struct.pack_into('>IIi', content, content.index(b'elst') + 8, 1, 3000, 3 * 10240)
    struct.pack_into('>I', content, content.index(b'mvhd') + 20, told)
    path.write_bytes(content)
    source = open_source(path)
    assert (source.count, len(list(source.frames))) == (60, 30)
    cut = [f'{path}: only 30 of 60 frames can be read, it is cut off']
    assert source.closed == (cut if told == 6000 else [])


@pytest.mark.parametrize(
    'content', [b'', b'\0\0\0\4moov', b'\0\0\0\1moov' + b'\xff' * 8 + b'\0' * 9]
)
def test_headers_of_films_that_are_none(content, tmp_path):
    (tmp_path / 'a.mp4').write_bytes(content)
    assert shown_seconds(str(tmp_path / 'a.mp4')) is None


class Capture:
    """A video of frames of 0.1 s each that tells a count and a rate."""

    def __init__(self, frames, count, rate):
        self.left, self.at, self.is_at_frame = frames, 0, False
        self.told = {cv2.CAP_PROP_FRAME_COUNT: count, cv2.CAP_PROP_FPS: rate}

    def isOpened(self):  # noqa: N802 a name of OpenCV's
        return True

    def get(self, wanted):
        if wanted == cv2.CAP_PROP_POS_MSEC:
            return self.at * 100 if self.is_at_frame else 0  # as FFmpeg's
        return self.told.get(wanted, 1)

    def read(self):
        self.is_at_frame = self.left > 0
        if not self.left:
            return False, None
        self.left, self.at = self.left - 1, self.at + 1
        return True, np.zeros((1, 1, 3), np.uint8)

    def release(self):
        pass


@pytest.mark.parametrize(
    'name, count, rate, fault',
    [
        ('film.mp4', 0, 10, None),
        ('film.mp4', 10, 10, None),
        ('film.mp4', 12, 10, None),
        ('film.mp4', 14, 10, 'only 10 of 14 frames'),
        # a count made of the duration and of a rate that most frames have not
        ('film.webm', 1000, 1000, None),
        ('http://localhost/film.mp4', 10, 10, None),
        ('http://localhost/film.mp4', 20, 10, 'only 10 of 20 frames'),
        ('rtsp://localhost/live', -2e14, 10, 'the stream ended after 10 frames'),
        ('camera:0', -1, 10, 'the stream ended after 10 frames'),
    ],
)
def test_ends_of_videos(tmp_path, monkeypatch, name, count, rate, fault):
    monkeypatch.chdir(tmp_path)
    Path('film.mp4').touch()
    Path('film.webm').touch()
    monkeypatch.setattr(cv2, 'VideoCapture', lambda address: Capture(10, count, rate))
    source = open_source(name)
    assert len(list(source.frames)) == 10
    assert len(source.closed) == (fault is not None)
    assert fault is None or source.closed[0].startswith(f'{name}: {fault}')


@contextmanager
def answering(kind, content, status=200):
    """The address of a server that answers so, but refuses Python's own name as many do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_refused = self.headers['User-Agent'].startswith('Python')
            self.send_response(403 if is_refused else status)
            self.send_header('Content-Type', kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize(
    'kind, typed', [('image/png', 'b%20%C3%A7'), ('application/octet-stream', 'b ç')]
)
def test_an_address_of_an_image_is_one(photos, kind, typed, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    content = (photos / 'b.png').read_bytes()
    with answering(kind, content) as address:
        source = open_source(f'{address}/more/{typed}.PNG?size=full')
        with pytest.raises(InputTooLarge, match='b.png has 10x8 pixels'):
            open_source(f'{address}/b.png', max_pixels=79)
    (frame,) = source.frames
    assert source.rate is None and source.count == 1 and frame.name == 'b ç.PNG'
    assert np.array_equal(frame.read(), cv2.imread(str(photos / 'b.png')))


def test_an_address_that_sends_pictures_for_ever_is_a_video(photos, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    picture = cv2.imencode('.jpg', cv2.imread(str(photos / 'b.png')))[1].tobytes()
    part = b'--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(picture)
    content = 9 * (part + picture + b'\r\n')
    with answering('multipart/x-mixed-replace; boundary=b', content) as address:
        source = open_source(f'{address}/live.jpg')
        assert source.rate is not None and len(list(source.frames)) > 2
    assert 'the stream ended' in source.closed[0]


def test_an_address_without_an_image(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with answering('text/html', b'<p>none', 404) as address:
        with pytest.raises(UserError, match='no image can be read from there: HTTP Error 404'):
            open_source(f'{address}/a.jpg')
    with answering('text/html', b'<p>a login') as address:
        (frame,) = open_source(f'{address}/a.jpg').frames
        assert frame.read() is None


def test_files_of_an_earlier_run_are_not_among_the_others(photos):
    for folder in (photos, photos / 'predictions', photos / 'more'):
        folder.mkdir(exist_ok=True)
        for name in ('predictions.jsonl', 'coco_results.json', 'video.mp4'):
            (folder / name).touch()
    theirs = {'.txt': 1, '.jsonl': 2, '.json': 2, '.mp4': 2}
    for out in (photos, photos / 'predictions'):
        for source in (photos, f'{photos}/**/*'):
            assert open_source(source, out=out).others == theirs


def test_standard_input_has_an_image_or_paths(photos):
    content = (photos / 'b.png').read_bytes()
    (frame,) = open_source('-', io.BytesIO(content)).frames
    assert frame.read().shape == (8, 10, 3)
    paths = f'{photos / "b.png"}\n{photos / "more/c.png"}\n'.encode()
    assert names(open_source('-', io.BytesIO(paths))) == ['b.png', 'more/c.png']


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_turned_as_their_exif_entry_says(orientation, suffix, tmp_path):
    import mmcv
    from PIL import Image, ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f'a{suffix}'
    Image.fromarray(pixels).save(file, exif=exif)
    sources = open_source(file), open_source('-', io.BytesIO(file.read_bytes()))
    for source in sources:
        (frame,) = source.frames
        image = frame.read()
        assert image.shape == ((10, 20, 3) if orientation < 5 else (20, 10, 3))
        assert np.array_equal(image, mmcv.imread(str(file)))
        if suffix == '.png':  # nothing is lost
            turned = np.asarray(ImageOps.exif_transpose(Image.open(file)))
            assert np.array_equal(image[..., ::-1], turned)


@pytest.mark.parametrize(
    'source, words',
    [
        ('photos/d.png', ['source not found', 'that folder has: a.JPG, b.png', 'camera:0']),
        ('nowhere', ['source not found', 'that folder has: film.mp4, photos']),
        ('photos/notes.txt', ['neither an image', 'nor a video']),
        ('photos/*.txt', ['1 files, none of them an image']),
        ('photos/*.xyz', ['0 files']),
        ('camera:77', ['camera:77 is not there', 'this machine has']),
        ('77', ['camera:77 is not there']),
        ('camera:front', ['a camera is camera:0']),
        ('gopher://x', ['streams are rtsp']),
        ('rtsp://127.0.0.1:9/none', ['no video can be read from there']),
        ('empty', ['no images in this folder']),
        ('broken.mp4', ['cannot be read as a video']),
    ],
)
def test_source_that_is_none(photos, video, source, words, monkeypatch):
    monkeypatch.chdir(photos.parent)
    Path('empty').mkdir()
    Path('broken.mp4').write_text('no video')
    if source == 'nowhere':
        Path('empty').rmdir(), Path('broken.mp4').unlink()
    with pytest.raises(UserError) as caught:
        open_source(source)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    'content, words',
    [
        (b'', 'nothing came'),
        (b'\xff\xfe\x00', 'no image and no list'),
        (b'/no/file\n', 'not found'),
    ],
)
def test_standard_input_that_is_none(content, words):
    with pytest.raises(UserError, match=words):
        open_source('-', io.BytesIO(content))


def test_what_would_fill_the_memory_is_not_decoded(photos, tmp_path):
    small = dict(max_pixels=79)  # the photos have 80
    for source in (photos, photos / 'b.png', [photos / 'b.png']):
        for frame in open_source(source, **small).frames:
            with pytest.raises(InputTooLarge, match='10x8 pixels'):
                frame.read()
    with pytest.raises(InputTooLarge, match='standard input has 10x8 pixels'):
        open_source('-', io.BytesIO((photos / 'b.png').read_bytes()), **small)
    with pytest.raises(InputTooLarge, match='more than 632 bytes'):
        open_source('-', io.BytesIO(bytes(700)), **small)


def test_large_videos_are_not_decoded(video):
    with pytest.raises(InputTooLarge, match=r'a frame of .*film\.mp4 has 32x24 pixels'):
        open_source(video, max_pixels=767)
    assert open_source(video, max_pixels=768).count == 6


def test_what_is_no_file_is_not_opened(photos, tmp_path):
    (photos / 'folder.png').mkdir()
    os.mkfifo(photos / 'pipe.png')
    (photos / 'empty.png').write_bytes(b'')
    frames = {frame.name: frame for frame in open_source(photos).frames}
    assert 'folder.png' not in frames and frames['empty.png'].read() is None
    with pytest.raises(InputTooLarge, match='no ordinary file'):
        frames['pipe.png'].read()
    with pytest.raises(UserError, match='no ordinary file'):
        open_source(photos / 'pipe.png')


def test_images_that_would_be_nearly_black_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((8, 8), 4000, np.uint16))
    (frame,) = open_source(tmp_path / 'x.png').frames
    with pytest.raises(UserError, match='nearly black'):
        frame.read()


def test_standard_input_is_refused_as_a_file_is(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((8, 8), 4000, np.uint16))
    with pytest.raises(UserError, match='standard input has more than 8 bits: .* nearly black'):
        open_source('-', io.BytesIO((tmp_path / 'x.png').read_bytes()))
