"""What is typed after ``--cfg-options`` becomes a value."""

import argparse

import pytest

from attnpool_backbones.launching.options import add_common_arguments


@pytest.mark.parametrize(
    ('typed', 'value'),
    [
        ('/tmp/my data/', '/tmp/my data/'),
        ('"/tmp/my data (1)/"', '/tmp/my data (1)/'),
        (' 3', 3),
        ('None', None),
        ('a, b', ['a', 'b']),
        ('[(1, 2), ( 3, 4 )]', [(1, 2), (3, 4)]),
        ("'(1, 2)'", (1, 2)),
        ('[]', []),
        ('s3://bucket/a(1)', 's3://bucket/a(1)'),
    ],
)
def test_values_of_options(typed, value):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    assert parser.parse_args(['--cfg-options', f'a.b={typed}']).cfg_options == {'a.b': value}
