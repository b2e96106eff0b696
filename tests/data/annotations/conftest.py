"""Small annotated folders."""

import json

import pytest


def write_json(folder, name, content):
    return folder.text(name, json.dumps(content))


def square(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def coco(names, objects, categories=("cell", "dirt"), size=(12, 16)):
    """Objects are (image number, category number, segmentation, crowd)."""
    rows, columns = size
    return {
        "images": [
            {"id": i, "file_name": name, "height": rows, "width": columns}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 7 + k, "name": name} for k, name in enumerate(categories)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 7 + k, "segmentation": s, "iscrowd": crowd}
            for i, (image, k, s, crowd) in enumerate(objects)
        ],
    }


def labelme(image, shapes, size=(12, 16)):
    """Shapes are (label, type, points)."""
    return {
        "version": "5.4.1",
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        "shapes": [
            {"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes
        ],
    }


@pytest.fixture
def labels(folder):
    """Open the folder; return the label of each image by name."""
    from tinyseg.data import Dataset

    def read(**settings):
        dataset = Dataset(folder.path, **settings)
        return dataset, {sample.name: sample.label for sample in dataset}

    return read
