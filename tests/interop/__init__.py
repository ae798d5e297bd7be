"""coco-kp against the programs it must work with, each of them real."""
