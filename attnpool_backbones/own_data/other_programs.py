"""Labels of programs and data sets that are not read: whose they are, and what to export instead.

A row is a pattern for the path, one for the content (empty where the path is enough), whose labels
these are, and what to do. The first row that fits counts.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from attnpool_backbones.own_data.folder import UNREAD, Folder

__all__ = ['advice', 'program_of']

_PEEK = 10  # files of each ending that are looked at
_COCO = 'export COCO'
_CONVERT = 'convert it to COCO or YOLO'
_PROGRAMS = tuple(
    (re.compile(path, re.IGNORECASE), re.compile(content.encode(), re.IGNORECASE), name, way)
    for path, content, name, way in (
        (r'_annotations\.createml\.json$', '', 'Create ML, from Roboflow', _COCO),
        (r'_annotations\.txt$', '', 'YOLO Keras, from Roboflow', _COCO),
        (r'_classes\.csv$', r'^filename', 'classes of whole images, from Roboflow',
         'put the images of each class into a folder (docs/classification.md)'),
        (r'\.csv$', r'^filename, ?width, ?height, ?class', 'a table for TensorFlow', _COCO),
        (r'\.(tfrecords?|record)(-|$)', '', 'TFRecord', _COCO),
        (r'\.jsonl$', r'"(prefix|suffix)"\s*:', 'lines for a model of vision and language', _COCO),
        (r'\.json$', r'"coordinates"\s*:\s*\{', 'Create ML', _COCO),
        (r'\.json$', r'"(from_name|\w+labels)"\s*:', 'JSON of Label Studio',
         'export COCO or YOLO, with images'),
        (r'task-\d+-annotation-\d+', '', 'brush masks of Label Studio',
         'join those of an image into one mask with a value for each class'),
        (r'\.csv$', r'region_shape_attributes', 'a table of VIA', 'export JSON'),
        (r'\.json$', r'"vid_list"\s*:', 'VIA 3', 'use VIA 2'),
        (r'\.json$', r'"classTitle"\s*:', 'Supervisely', _COCO),
        (r'\.json$', r'"(dm_format_version|label_groups|items)"\s*:', 'Datumaro', _COCO),
        (r'\.json$', r'"(_media_type|_cls)"\s*:|"bounding_box"\s*:\s*\[', 'FiftyOne',
         'export COCODetectionDataset'),
        (r'\.(nd)?json$', r'"(data_row|Labeled Data)"\s*:', 'Labelbox', _CONVERT),
        (r'\.json$', r'darwin_json|"slot_names"\s*:', 'Darwin (V7)', _COCO),
        (r'\.json$', r'"(predicted_iou|stability_score)"\s*:', 'Segment Anything (SA-1B)',
         'its masks have no classes'),
        (r'\.json$', r'"(box2d|poly2d)"\s*:', 'BDD100K or Scalabel', _CONVERT),
        (r'\.json$', r'"(securityToken|activeLearningSettings)"\s*:', 'VoTT', 'export Pascal VOC'),
        (r'\.json$', r'"className"\s*:', 'SuperAnnotate', _COCO),
        (r'\.(geo)?json$', r'"FeatureCollection"', 'GeoJSON', 'convert it to COCO, in pixels'),
        (r'(^|/)metadata\.(jsonl|csv)$|\.parquet$', '', 'a data set of Hugging Face', _CONVERT),
        (r'\.csv$', r'^[^\n]*(EncodedPixels|\brle)', 'a table of run lengths, as on Kaggle',
         'convert it to masks or COCO'),
        (r'\.csv$', r'^(ImageID|LabelName),', 'Open Images',
         'load it by FiftyOne and export COCODetectionDataset'),
        (r'(^|/)Label/[^/]+\.txt$', '', 'Open Images, from OIDv4 ToolKit', _CONVERT),
        (r'\.csv$', r'^[^\n]*(bbox|x_?min)', 'a table of boxes', _CONVERT),
        (r'\.csv$', r'^[^,\n]+(,[\d.]+){4},[^,\n]+,\d+,\d+\s', 'a table of makesense.ai',
         'export YOLO or Pascal VOC'),
        (r'\.json$', r'"bbox_mode"\s*:', 'dicts of Detectron2', _CONVERT),
        (r'(^|/)stage1_train/[^/]+/masks/', '', 'Data Science Bowl 2018',
         'join the masks of an image into one with a value for each class'),
        (r'(^|/)label_2/', '', 'KITTI', _CONVERT),
        (r'(^|/)labelTxt', '', 'DOTA', 'convert it to YOLO, with corners'),
        (r'(^|/)gt\.txt$|(^|/)seqinfo\.ini$', '', 'MOT', _CONVERT),
        (r'\.txt$', r'^\d+(,\d+){7},?\s', 'VisDrone', _CONVERT),
        (r'\.odgt$', '', 'CrowdHuman', _CONVERT),
        (r'\.(mat|h5|hdf5)$', '', 'MATLAB or HDF5', 'convert it to COCO or masks'),
    )
)  # fmt: skip


def program_of(file: str, content: bytes) -> str:
    """Words whose labels a file has and what to do, empty if it is of no known program.

    Args:
        file: Its path.
        content: Its beginning, and what else of it is known.
    """
    content = content.removeprefix(b'\xef\xbb\xbf')
    for path, inside, name, way in _PROGRAMS:
        if path.search(file) and inside.search(content):
            return f'{name}, not read; {way}'
    return ''


def advice(folder: Folder) -> list[str]:
    """Names programs whose labels lie in a folder, and kinds of photos, that are not read."""
    by_ending: dict[str, list[str]] = defaultdict(list)
    for file in folder.files:
        by_ending[PurePosixPath(file).suffix.lower()].append(file)
    found: dict[str, str] = {}
    for files in by_ending.values():
        for file in files[:_PEEK]:
            try:
                words = program_of(file, folder.both_ends(file))
            except OSError:  # what cannot be read is no answer to what is missing
                continue
            if words:
                found.setdefault(words, file)
    lines = [f'{file}: {words}' for words, file in found.items()]
    for ending in UNREAD:
        if ending in by_ending:
            lines.append(f'{by_ending[ending][0]} is of a kind that is not read; convert it')
    return lines
