"""Data sets: finding, reading, image folders, augmentation."""
