"""Files of a folder to images and labels: layouts, decoding, label values, duplicates.

`find_cases` pairs images with masks, `CaseReader` decodes and checks all of them once,
`find_label_map` gives mask values their class. This room knows no split, no network input and no
named dataset.
"""
